"""Writes a report to disk, so that a reader sees either the old file or the new one, never a part of it."""

from __future__ import annotations

from pathlib import Path

from perjoule.files import write_text
from perjoule.running.reporting import ReportRequest
from perjoule_reports.content import build_report
from perjoule_reports.pages.html import render_html
from perjoule_reports.pages.markdown import render_markdown
from perjoule_reports.pages.payload import to_json
from perjoule_reports.records import RunData


def write_report(run: RunData, out: Path, request: ReportRequest | None = None) -> list[Path]:
    """Write the report as HTML, Markdown and JSON.

    Args:
        run: The run to report on.
        out: The HTML file, or a folder that gets `report.html`, `report.md` and `result.json`. If the HTML file has
            another name, e.g. `demo.html`, the other two are named after it: `demo.md` and `demo.json`.
        request: A baseline to gate against, and other options.

    Returns:
        The files written, HTML first.
    """
    page = out if out.suffix.lower() in {".html", ".htm"} else out / "report.html"
    result = page.with_name("result.json") if page.stem == "report" else page.with_suffix(".json")
    report = build_report(run, request, page)
    contents = {
        page: render_html(report),
        page.with_suffix(".md"): render_markdown(report),
        result: to_json(report.payload),
    }
    for file, text in contents.items():
        write_text(file, text)
    return list(contents)
