"""Hostile texts in prompts, names and failures: HTML, SVG, Markdown, JSON and JUnit stay what they are.

What a browser makes of them is asked in test_browser.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as Xml

import polars as pl
import pytest
from markdown_it import MarkdownIt
from tests.support.hostile import CONTROL, PAYLOAD, PROMPTS, hostile_run

from perjoule.gating import GateConfig, gate, render
from perjoule_reports import build_report, render_html, render_markdown
from perjoule_reports.pages.payload import to_json

pytestmark = pytest.mark.slow


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return hostile_run(tmp_path_factory.mktemp("hostile") / "run")


@pytest.fixture(scope="module")
def named(synthetic, tmp_path_factory):
    """A run whose variants are named like the prompts; neither suites nor imports let that happen, damage might."""
    made = synthetic.make_run(
        tmp_path_factory.mktemp("named"), prompts=8, ladder=(1, 4), seeds=(1,), metrics=("scene",)
    )
    names = {"tiny-teacher": PROMPTS[0], "tiny-student": PROMPTS[5] + PROMPTS[1]}
    renamed = pl.col("variant").replace_strict(names)
    points = made.points.with_columns(renamed, cell_id=renamed + pl.col("cell_id"))
    failure = pl.when(pl.col("steps").list.first() == 1).then(renamed)
    return replace(
        made,
        points=points,
        images=made.images.with_columns(renamed, cell_id=renamed + pl.col("cell_id")),
        scores=made.scores.with_columns(
            cell_id=pl.col("cell_id").str.head(12).replace_strict(names) + pl.col("cell_id")
        ),
        trials=made.trials.with_columns(renamed, cell_id=renamed + pl.col("cell_id"), failure=failure),
    )


@pytest.fixture(scope="module", params=["run", "named"])
def report(request):
    return build_report(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def page(report):
    return render_html(report)


def test_html_holds_no_element_and_no_handler_of_theirs(page):
    found = Tags(page)
    assert found.tags.count("script") == 3
    assert found.tags.count("style") == found.tags.count("body") == found.tags.count("html") == 1
    assert not {"iframe", "object", "b", "textarea"} & set(found.tags)
    assert not [name for _, name, _ in found.attributes if name.startswith("on") or name == "style"]
    for tag, name, value in found.attributes:
        if name in {"src", "href"}:
            assert value.startswith(("#", "data:image/webp;base64,")), (tag, name, value[:60])
    assert "<h4>49" not in page  # no template in a template
    assert not CONTROL.search(page)


def test_svg_is_well_formed(page):
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert pictures
    for picture in pictures:
        root = Xml.fromstring(picture)
        assert {e.tag for e in root.iter()} <= {"svg", "g", "path", "text", "tspan", "title", "desc", "defs", "use",
                                                "clipPath", "rect", "image", "marker", "linearGradient"}  # fmt: skip
        assert not [name for e in root.iter() for name in e.attrib if name.startswith("on")]


def test_markdown_shows_text_only(report):
    text = render_markdown(report)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in [*tokens, *inline]}
    assert not kinds & {"link_open", "image", "html_block"}
    ours = {"<sub>", "</sub>"}
    assert {token.content for token in inline if token.type == "html_inline"} <= ours
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert len(headings) <= 2 + 4 * len(report.sections)
    assert not CONTROL.search(text)
    # as many columns in every row as in its head, and as many tables as the report has
    widths, rows = [], 0
    for token in tokens:
        if token.type == "tr_open":
            rows = 0
        rows += token.type in {"th_open", "td_open"}
        if token.type == "tr_close":
            widths.append(rows)
        if token.type == "table_close":
            assert len(set(widths)) == 1
            widths.clear()
    assert not [t.content for t in inline if t.type == "text" and re.search(r"@\w|#\d", t.content)]
    assert {t.info for t in tokens if t.type == "fence"} <= {"console", "python"}


def test_json_comes_back_as_it_went_in(report):
    found = json.loads(to_json(report.payload))
    assert set(found["prompts"].values()) <= set(PROMPTS) | set(report.payload["prompts"].values())
    again = json.loads(json.dumps(found))
    assert again == found


def test_prompts_survive_whole_in_the_json(run):
    found = json.loads(to_json(build_report(run).payload))
    assert set(found["prompts"].values()) == set(PROMPTS)


def test_junit_markdown_and_annotations_of_a_gate(run, tmp_path):
    verdict = gate(run, hostile_run(tmp_path / "candidate", factor=1.3), None, GateConfig())
    assert verdict.verdict == "invalid"  # trials failed, and say so in the prompts' words
    assert any("trials failed" in reason for reason in verdict.reasons)
    verdict = replace(verdict, reasons=(*verdict.reasons, *PROMPTS), notes=PROMPTS, metric=PROMPTS[1])
    root = Xml.fromstring(render.junit(verdict))
    assert {e.tag for e in root.iter()} == {"testsuite", "testcase", "properties", "property", "error"}
    text = render.markdown(verdict)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert not {t.type for t in [*tokens, *inline]} & {"link_open", "image", "html_inline", "html_block", "fence"}
    assert sum(t.type == "heading_open" for t in tokens) == 1
    assert sum(t.type == "table_open" for t in tokens) == 1
    assert "@everyone" not in text
    for told in (text, render.annotations(verdict), render.terminal(verdict), render.junit(verdict)):
        assert not CONTROL.search(told)
    for line in render.annotations(verdict).splitlines():
        assert line.startswith("::error title=perjoule gate INVALID::")
    assert len(render.terminal(verdict).splitlines()) <= 12
    json.loads(json.dumps(verdict.as_json()))


def test_payload_is_in_the_page_as_text(page):
    assert PAYLOAD in page.replace("&#34;", '"').replace("&#39;", "'").replace("&gt;", ">")
