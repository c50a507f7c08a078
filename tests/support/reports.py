"""Reports of small runs, and what is checked in each of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from jsonschema import Draft202012Validator

from perjoule.commands.schemas import schemas
from perjoule_reports import build_report, render_html, render_markdown
from perjoule_reports.pages.payload import to_json
from perjoule_reports.records import Report, RunData, Section

SMALL: dict[str, Any] = {"ladder": (2, 4, 8, 16, 32, 64), "prompts": 24, "seeds": 1}


def section(report: Report, anchor: str) -> Section:
    return next(s for s in report.sections if s.anchor == anchor)


def rendered(report: Report) -> str:
    """Both renderings, checked: nothing that is no number, a result that keeps to its schema."""
    html, markdown = _renderings(report)
    Draft202012Validator(schemas()["result"]).validate(json.loads(to_json(report.payload)))
    return html + markdown


def built(run: RunData) -> tuple[Report, str, str]:
    """Report, HTML and Markdown of a run, checked for what is no number."""
    report = build_report(run)
    return report, *_renderings(report)


def _renderings(report: Report) -> tuple[str, str]:
    html, markdown = render_html(report), render_markdown(report)
    visible = re.sub(r"<(script|style).*?</\1>|<svg.*?</svg>|data:image[^\"]*", "", html, flags=re.S)
    ids = Counter(re.findall(r'\sid="([^"]*)"', re.sub(r"<script.*?</script>", "", html, flags=re.S)))
    assert not [name for name, count in ids.items() if count > 1]
    for text in (visible, markdown):
        text = text.replace("safety_checker=None", "")  # Python to paste
        found = re.search(r"\b(nan|NaN|None|inf|Infinity|null)\b", text)
        assert not found, text[found.start() - 60 : found.end() + 20]
    return html, markdown
