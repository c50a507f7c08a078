from __future__ import annotations

from dataclasses import replace

import pytest

from perjoule.testing.nvml_simulator import compiler
from perjoule_reports import build_report, render_html, render_markdown

pytestmark = pytest.mark.slow


needs_compiler = pytest.mark.skipif(compiler() is None, reason="the NVML simulator needs a C compiler")


@needs_compiler
def test_the_section_shows_traces_tables_and_conditions(traced):
    report = build_report(traced)
    section = next(s for s in report.sections if s.anchor == "power")
    assert len(section.figures) == 3
    assert all("denoise" in f.svg and "idle 60" in f.svg for f in section.figures)
    assert any("▲ slowed down: power cap" in f.caption for f in section.figures)
    (table,) = section.tables
    for row in table.rows:
        *phases, total = (cell.sort for cell in row[1:5])
        assert sum(phases) == pytest.approx(total)
        assert "slowed down in 3 of 3" in row[-1].text
    assert "Joules of each phase" in render_markdown(report)
    assert len(render_html(report).encode()) < 2_000_000


@pytest.mark.parametrize(
    ("meter", "word"), [("estimate", "power model"), ("imported", "imported"), ("rapl", "rapl"), (None, "no power")]
)
def test_a_run_without_samples_says_why_and_draws_no_axis(small, meter, word):
    run = replace(small, environment={"meter": {"name": meter}} if meter else {})
    section = next(s for s in build_report(run).sections if s.anchor == "power")
    assert word in section.empty
    assert section.figures == section.tables == ()
