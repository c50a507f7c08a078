from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.reports import section

from perjoule.runs.directory import Run
from perjoule_reports import build_report
from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_single_prompts_and_slices(report: Report, run: Run) -> None:
    found = section(report, "prompts")
    assert [f.name for f in found.figures] == ["prompts-quality", "prompts-energy"]
    assert len(found.tables[0].rows) == 10
    losses = [row[2].sort for row in found.tables[0].rows]
    assert losses == sorted(losses)
    assert losses[-1] < 0
    kinds = tuple(replace(p, category="odd" if i % 2 else "even") for i, p in enumerate(run.prompt_set))
    sliced = Run(path=run.path)
    sliced.__dict__["prompt_set"] = kinds
    table_ = section(build_report(sliced), "prompts").tables[1]
    assert [row[0].text for row in table_.rows] == ["even", "odd"]
    assert "exploratory" in table_.caption
    assert all(float(row[4].text) > 0.05 for row in table_.rows)
