"""What a joule buys, as a report: one self-contained HTML file, the same as Markdown and the same as JSON.

`build_report` decides what is said, `render_html` and `render_markdown` decide how it looks, `write_report` writes all
three files. `write_index` writes the page of a folder of runs.
"""

from __future__ import annotations

from perjoule_reports.content import build_report
from perjoule_reports.pages.html import render_html
from perjoule_reports.pages.index_page import render_index, write_index
from perjoule_reports.pages.markdown import render_markdown
from perjoule_reports.pages.writer import write_report
from perjoule_reports.records import Report

__all__ = ["Report", "build_report", "render_html", "render_index", "render_markdown", "write_index", "write_report"]
