from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.reports import built, section

pytestmark = pytest.mark.slow


def test_phases_are_shares_of_time(usual_report):
    report = usual_report
    table = section(report, "phases").figures[0].data
    for row in table.rows:
        assert sum(cell.sort for cell in row[1:]) == pytest.approx(100)
    assert "not of joules" in section(report, "phases").how_to_read


def test_a_run_without_phases_says_so(small):
    run = small
    report, _, _ = built(replace(run, trials=run.trials.with_columns(phases_s=pl.lit("{}"))))
    found = section(report, "phases")
    assert not found.figures
    assert "no trial recorded them" in found.empty
