from __future__ import annotations

import pytest
from tests.support.reports import section

from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_arms_are_held_against_the_ladder_that_they_save_on(report: Report) -> None:
    cells, arms = section(report, "arms").tables
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
