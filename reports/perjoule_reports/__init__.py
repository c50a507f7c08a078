"""What the joules bought, for people: one self-contained HTML file, its Markdown twin and the same as JSON.

`build_report` decides what is said, `render_html` and `render_markdown` how it looks, `write_report` puts all three
beside each other.
"""

from __future__ import annotations

from perjoule_reports.content import build_report
from perjoule_reports.html import render_html
from perjoule_reports.markdown import render_markdown
from perjoule_reports.records import Report
from perjoule_reports.writer import write_report

__all__ = ["Report", "build_report", "render_html", "render_markdown", "write_report"]
