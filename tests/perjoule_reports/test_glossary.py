from __future__ import annotations

import re
from html import escape

import pytest

from perjoule_reports import render_html
from perjoule_reports.glossary import TERMS, explain

pytestmark = pytest.mark.slow


def explained(text: str, seen: set[str] | None = None) -> list[str]:
    return [part for part, definition in explain(text, set() if seen is None else seen) if definition]


def test_only_the_first_appearance_is_explained() -> None:
    seen: set[str] = set()
    parts = list(explain("Each cell of an arm; two cells, two arms.", seen))
    assert "".join(part for part, _ in parts) == "Each cell of an arm; two cells, two arms."
    assert [(part, definition) for part, definition in parts if definition] == [
        ("cell", TERMS["cell"]), ("arm", TERMS["arm"]),
    ]  # fmt: skip
    assert explained("One cell more, one Rung", seen) == ["Rung"]


def test_plurals_are_terms_and_names_are_not() -> None:
    assert explained("Families, windows and draws") == ["Families", "windows", "draws"]
    assert explained("ladder-004, a_cell, runs/trial, the warm, windowing, arm-2") == []
    assert explained("look at the table") == []
    assert explained("mode paired, 2 looks") == ["looks"]


def test_definitions_are_short_sentences() -> None:
    assert list(TERMS) == sorted(TERMS)
    for definition in TERMS.values():
        assert re.fullmatch(r"[A-Z].{20,130}\.", definition)


def test_each_section_explains_each_term_once(usual_report) -> None:
    page = render_html(usual_report)
    for section in re.findall(r'<section id="(?:arms|gate|power).*?</section>', page, re.S):
        for part in re.split(r'<details class="how">.*?</details>', section, flags=re.S):
            titles = re.findall(r'<abbr class="term" tabindex="0" title="([^"]*)">', part)
            assert set(titles) <= {escape(definition) for definition in TERMS.values()}
    arms = re.search(r'<section id="arms".*?</section>', page, re.S)
    assert arms is not None
    shown = re.sub(r"<details.*?</details>", "", arms[0], flags=re.S)
    assert shown.count(f'title="{escape(TERMS["arm"])}"') == 1
    assert shown.count(f'title="{escape(TERMS["cell"])}"') <= 1
