from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.support.reports import SMALL, section
from tests.support.tables_of_runs import imported, table

from perjoule_reports import build_report
from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_arms_are_held_against_the_ladder_that_they_save_on(report: Report) -> None:
    cells, arms = section(report, "arms").tables
    assert arms.caption == "Arms against the ladder of ladder"
    head = [c.title for c in arms.columns]
    row = dict(zip(head, arms.rows[0], strict=True))
    assert (row["arm"].text, row["resolved"].text) == ("quick", "yes")
    assert row["BD-energy"].strong
    assert row["BD-energy"].text.startswith("−2")
    anchor = next(r for r in cells.rows if r[0].detail == "quick-064")
    assert [c.text for c in anchor].count("anchor") == 2
    change = [c.title for c in cells.columns].index("Δ energy")
    equal = next(r for r in cells.rows if r[0].detail == "ladder-064")
    assert equal[change].strong
    quality = [c.title for c in cells.columns].index("Δ q")
    assert equal[quality].text.startswith("~")
    assert not equal[quality].strong


def test_the_anchor_is_a_cell_and_what_an_arm_is_compared_with_is_a_ladder(tmp_path: Path) -> None:
    """`slow` is as long as `fast` and better, but `fast` has more rungs."""
    frame = table(**(SMALL | {"ladder": (2, 4, 8, 16)}), variants=(("fast", 1.0), ("slow", 2.0)))
    slow = pl.col("variant") == "slow"
    frame = frame.filter(~slow | (pl.col("steps") == 16))
    better = pl.when(slow).then(pl.col("quality:q") + 0.5).otherwise(pl.col("quality:q"))
    found = section(build_report(imported(frame.with_columns(better.alias("quality:q")), tmp_path)), "arms")
    _, arms = found.tables
    assert "The anchor is slow at 16 steps." in found.how_to_read
    assert arms.caption == "Arms against the ladder of fast"
    reason = arms.rows[0][-1].text
    assert "the best of the ladder (" in reason
    assert "anchor" not in reason
