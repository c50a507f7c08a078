"""Renders a report as GitHub-flavoured Markdown, for pull requests and terminals.

Foreign text is escaped so that it cannot open a table cell, a link, a mention, an image or an HTML element.
"""

from __future__ import annotations

from perjoule.text import escape_markdown as escape
from perjoule_reports.format import PROVENANCE_WORDS, provenance_title
from perjoule_reports.records import Cell, Column, Report, Section, Table

COMMENT_BYTES = 60_000  # GitHub accepts 65 536 characters
MOST_ROWS = 60


def render_markdown(report: Report) -> str:
    """Render the report; figures and images are only in the HTML file."""
    lines = [f"# {escape(report.title)}", "", escape(report.subtitle), ""]
    if report.stamp.word != "NO GATE":
        lines += [f"## {escape(report.stamp.sign)} {escape(report.stamp.word)}", ""]
    if report.provenance != "measured":
        title = provenance_title(report.provenance, report.imported)
        known = {None: "there are no joules", "not stated": PROVENANCE_WORDS["not stated"]}
        lines += [f"> **{title}**: {known.get(report.provenance, 'not a measurement')}", ""]
    lines += [f"**{escape(report.headline.sentence)}**", ""]
    for sentence in report.headline.support:
        lines += [escape(sentence), ""]
    lines += [" · ".join(f"{escape(b.label)}: **{escape(b.value)}**" for b in report.badges), ""]
    for title, sentences in (("Deploy", report.headline.deploy), ("Beware", report.headline.beware)):
        if sentences:
            lines += [f"**{title}**", "", *(f"- {escape(line)}" for line in sentences), ""]
    if report.headline.call:
        lines += ["```python", *_code(report.headline.call), "```", ""]
    for folded in (True, False):
        body = [line for section in report.shown for line in _section(section, folded=folded)]
        text = "\n".join([*lines, *body, escape(report.absent)]).rstrip() + "\n"
        if len(text.encode()) <= COMMENT_BYTES:
            break
    return _cut(text)


def _cut(text: str) -> str:
    """Shorten to what a pull request accepts, cutting between sections."""
    raw = text.encode()
    if len(raw) <= COMMENT_BYTES:
        return text
    start = raw[: COMMENT_BYTES - 200].decode(errors="ignore").rpartition("\n\n")[0]
    return start + "\n\n… cut here, because a pull request accepts no more: the HTML report contains the rest.\n"


def _section(section: Section, *, folded: bool) -> list[str]:
    lines = [f"## {escape(section.title)}", ""]
    if section.alert:
        lines += [f"> **⊘ {escape(section.alert)}**", ""]
    bullet = "- " if len(section.paragraphs) > 1 else ""
    lines += [bullet + escape(p) for p in section.paragraphs] + [""] * bool(section.paragraphs)
    drawn = [figure.title for figure in section.figures]
    drawn += [f"{album.title.lower()} ({len(album.strips)} rows of images)" for album in section.albums]
    if drawn:
        lines += [f"Drawn in the HTML report: {', '.join(map(escape, drawn))}.", ""]
    tables = [*section.tables, *(section.folded if folded else ())]
    if not section.tables and folded and section.anchor != "frontier":  # the arms table contains the same
        tables += [f.data for f in section.figures if f.data and not f.small and len(f.data.rows) <= MOST_ROWS]
    for table in tables:
        lines += _table(table)
    if section.code:
        lines += ["```console", *_code(section.code), "```", ""]
    guide = [("n", section.sample), ("Intervals", section.interval), ("What would change this", section.change)]
    notes = [f"{name}: {escape(text)}" for name, text in guide if text]
    if notes:
        lines += [f"*{' · '.join(notes)}*", ""]
    return lines


def _code(text: str) -> list[str]:
    """Return the lines of a fenced block, in which nothing can close the fence."""
    return [line.replace("```", "` ` `") for line in text.splitlines()]


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
    rest = escape(" ".join(filter(None, (cell.detail, cell.brand))))
    text = escape(cell.text)
    if (stressed or cell.strong) and text:
        text = f"**{text}**"
    return f"{text} {rest}".strip()
