from __future__ import annotations

import math
from dataclasses import fields

import polars as pl

from perjoule.runs.columns import POINT_COLUMNS
from perjoule.statistics.frontier import read_frontier
from perjoule.statistics.point_rows import PointRow, point_rows
from tests.support.tables_of_runs import imported, table


def test_a_row_has_a_field_for_each_column():
    assert [field.name for field in fields(PointRow)] == list(POINT_COLUMNS)


def test_numbers_that_are_not_finite_are_absent():
    numbers = {"energy_j_per_image": math.nan, "energy_low": -math.inf, "energy_high": math.inf, "quality": 0.5}
    columns = dict.fromkeys(POINT_COLUMNS) | {"cell_id": "a-001", "variant": "a"} | numbers
    (row,) = point_rows(pl.DataFrame([columns], schema=POINT_COLUMNS).with_columns(more=pl.lit(1)))
    assert (row.energy_j_per_image, row.energy_low, row.energy_high, row.quality) == (None, None, None, 0.5)
    assert row.energy_estimate.value is None
    assert (row.quality_estimate.value, row.quality_estimate.low, row.quality_estimate.n) == (0.5, None, 0)


def test_the_stored_rows_are_the_points_of_the_frontier(tmp_path):
    run = imported(table(prompts=12), tmp_path)
    points = read_frontier(run).points
    rows = [row for row in point_rows(run.points) if row.metric == run.suite.metrics.primary]
    assert [row.point(point.quality_p10) for row, point in zip(rows, points, strict=True)] == list(points)
