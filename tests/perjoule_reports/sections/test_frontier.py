from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.reports import built, section

pytestmark = pytest.mark.slow


def test_one_cell_without_energy_is_left_out_of_the_picture_only(synthetic, small):
    run = small
    lost = pl.when(pl.col("cell_id") == "tiny-teacher-012").then(None).otherwise(pl.col("energy_j"))
    run = synthetic.summarised(replace(run, trials=run.trials.with_columns(energy_j=lost)))
    report, html, _ = built(run)
    assert "tiny-teacher, 12 steps:" not in html
    assert len(section(report, "arms").tables[0].rows) == 6


def test_no_points(synthetic, small):
    run = small
    run = replace(run, points=run.points.clear(), scores=run.scores.clear(), metrics={})
    report, _, _ = built(run)
    assert "have not been scored" in report.headline.sentence
    arms = section(report, "arms").tables[0]
    assert len(arms.rows) == 6
    energies = [c for row in arms.rows for c, column in zip(row, arms.columns, strict=True) if column.title == "energy"]
    assert all(c.brand == "est." and c.sort for c in energies)
    assert "no cell has both joules and a score" in section(report, "frontier").empty
