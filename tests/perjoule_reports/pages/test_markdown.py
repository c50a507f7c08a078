from __future__ import annotations

import re
from dataclasses import replace

import pytest

from perjoule.text import escape_markdown as escape
from perjoule_reports import build_report, render_markdown

pytestmark = pytest.mark.slow

CELL_END = re.compile(r"(?<!\\)\|")


def test_tables_keep_their_columns_whatever_the_run_says(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=synthetic.HOSTILE, ladder=(1, 4), seeds=(1,), metrics=("scene",))
    run = replace(
        run,
        suite=replace(run.suite, title="a | b\nc"),
        environment=run.environment | {"cpu": "two | pipes |\nand a line", "a|b": {"c\nd": "`x`"}},
        trials=run.trials.with_columns(failure=run.trials["prompts"].list.first()),
    )
    text = render_markdown(build_report(run))
    width = 0
    for line in text.splitlines():
        if line.startswith("|"):
            cells = len(CELL_END.findall(line))
            assert width in {0, cells}, line
            width = cells
        else:
            width = 0
    assert "<" not in text.replace("&lt;", "")
    assert "@everyone" not in text
    assert "https:" not in text
    assert "www." not in text


def test_escape_leaves_plain_words_alone():
    assert escape("0.97 [0.95, 0.98] +3 %") == r"0.97 \[0.95, 0.98\] +3 %"
    assert escape("a|b\nc") == r"a\|b c"
    assert escape("<b>@me #1") == "&lt;b&gt;&#64;&#8203;me &#35;&#8203;1"
    assert escape("clip_text") == r"clip\_text"


def test_twin_says_what_the_page_says(usual_report):
    report = usual_report
    text = render_markdown(report)
    assert escape(report.headline.sentence) in text
    assert "**ESTIMATED**" in text
    assert all(f"## {section.title}" in text for section in report.shown)
    assert escape(report.absent) in text
    assert len(text) < 60_000
