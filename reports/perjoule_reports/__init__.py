"""What a joule buys, as a report: one self-contained HTML file, the same as Markdown and the same as JSON.

`build_report` decides what is said, `render_html` and `render_markdown` decide how it looks, `write_report` writes all
three files. `write_index` writes the page of a folder of runs.

Names are imported when first used: a report does not need what an index needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perjoule_reports.content import build_report
    from perjoule_reports.pages.html import render_html
    from perjoule_reports.pages.index_page import render_index, write_index
    from perjoule_reports.pages.markdown import render_markdown
    from perjoule_reports.pages.writer import write_report
    from perjoule_reports.records import Report

__all__ = ["Report", "build_report", "render_html", "render_index", "render_markdown", "write_index", "write_report"]

_HOMES = {
    "Report": "perjoule_reports.records",
    "build_report": "perjoule_reports.content",
    "render_html": "perjoule_reports.pages.html",
    "render_index": "perjoule_reports.pages.index_page",
    "render_markdown": "perjoule_reports.pages.markdown",
    "write_index": "perjoule_reports.pages.index_page",
    "write_report": "perjoule_reports.pages.writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'perjoule_reports' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
