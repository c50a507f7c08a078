from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.reports import built, section
from tests.support.tables_of_runs import imported, table

pytestmark = pytest.mark.slow


def test_energy_that_is_absent_is_never_zero(synthetic, small):
    run = small
    run = synthetic.summarised(
        replace(run, trials=run.trials.with_columns(pl.lit(None, dtype=pl.Float64).alias("energy_j")))
    )
    report, html, markdown = built(run)
    assert "Energy was not measured" in report.headline.sentence
    assert not section(report, "frontier").figures
    arms = section(report, "arms").tables[0]
    energies = [row[i].text for row in arms.rows for i, c in enumerate(arms.columns) if c.title == "energy"]
    assert set(energies) == {"not measured"}
    assert "J not measured" in html
    assert "not measured" in markdown


@pytest.mark.parametrize(
    ("flops", "unit", "shown", "twice"), [(1.6e12, "TFLOP", "1.60", "3.20"), (2.5e9, "GFLOP", "2.50", "5.00")]
)
def test_counted_work_is_a_column_in_one_unit(tmp_path, flops, unit, shown, twice):
    frame = table(prompts=4, seeds=1, ladder=(1, 2, 3)).with_columns(
        flops_per_image=flops * pl.when(pl.col("steps") < 3).then(pl.col("steps")), nfe_per_image=2.0 * pl.col("steps")
    )
    arms = section(built(imported(frame, tmp_path))[0], "arms").tables[0]
    (place,) = (i for i, column in enumerate(arms.columns) if column.title == "work")
    assert arms.columns[place].unit == f"{unit}/image"
    assert arms.columns[place - 1].title == "NFE"
    # the third step count has none
    assert [row[place].text for row in arms.rows[:3]] == [shown, twice, "–"]


def test_without_a_count_there_is_no_column(tmp_path):
    arms = section(built(imported(table(prompts=4, seeds=1, ladder=(1, 2, 3)), tmp_path))[0], "arms").tables[0]
    assert "work" not in [column.title for column in arms.columns]
