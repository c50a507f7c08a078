"""A report as GitHub-flavoured Markdown, for pull requests and terminals.

Foreign text is escaped so that it cannot open a table cell, a link, a mention, an image or an HTML element.
"""

from __future__ import annotations

from perjoule.text import escape_markdown as escape
from perjoule_reports.records import Cell, Column, Report, Section, Table


def render_markdown(report: Report) -> str:
    """Render the report; pictures stay in its HTML twin."""
    lines = [f"# {escape(report.title)}", "", escape(report.subtitle), ""]
    if report.provenance != "measured":
        word = (report.provenance or "not measured").upper()
        lines += [f"> **{word}**: {'there are no joules' if report.provenance is None else 'not a measurement'}", ""]
    lines += [f"**{escape(report.headline.sentence)}**", ""]
    for sentence in report.headline.support:
        lines += [escape(sentence), ""]
    lines += [" · ".join(f"{escape(b.label)}: **{escape(b.value)}**" for b in report.badges), ""]
    for section in report.sections:
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section) -> list[str]:
    tables = [*section.tables, *section.folded]
    if section.albums or (section.figures and not section.paragraphs):
        figures = ", ".join(escape(f.title) for f in section.figures)
        shown = figures or ", ".join(escape(album.title) for album in section.albums)
        lines = [f"## {escape(section.title)}", "", f"Drawn in the HTML report: {shown}.", ""]
        return lines + [line for table in tables for line in _table(table)]
    lines = [f"## {escape(section.title)}", ""]
    bullet = "- " if len(section.paragraphs) > 1 else ""
    lines += [bullet + escape(p) for p in section.paragraphs] + [""] * bool(section.paragraphs)
    for table in tables:
        lines += _table(table)
    if section.code:
        lines += ["```console", *section.code.splitlines(), "```", ""]
    return lines


def _table(table: Table) -> list[str]:
    head = [escape(_title(column)) for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [
        [_cell(cell, i in table.marked and j == 0) for j, cell in enumerate(row)] for i, row in enumerate(table.rows)
    ]
    return [f"**{escape(table.caption)}**", "", *(f"| {' | '.join(row)} |" for row in [head, rule, *rows]), ""]


def _title(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _cell(cell: Cell, stressed: bool) -> str:
    text = escape(" ".join(filter(None, (cell.text, cell.detail, cell.brand))))
    return f"**{text}**" if stressed and text else text
