from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.support.reports import SMALL, section
from tests.support.tables_of_runs import imported, table

from perjoule_reports import build_report

pytestmark = pytest.mark.slow


def test_the_curve_table_repeats_bd_energy_by_metric(tmp_path: Path) -> None:
    frame = table(**SMALL).with_columns((1 - pl.col("quality:q")).alias("quality:loss"))
    found = section(build_report(imported(frame, tmp_path, lower=["loss"])), "curves").tables[0]
    assert [row[1].text for row in found.rows] == ["q", "loss"]
    assert len({row[2].text for row in found.rows}) == 1  # a metric and its mirror image
    assert found.columns[2].title == "BD-energy"
