from __future__ import annotations

import pytest
from tests.support.reports import section

from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_each_source_has_a_number_or_a_reason(report: Report) -> None:
    """The arms' seeds scatter by 3 % in energy; a table has no windows of the same prompts, and no drift."""
    found = section(report, "noise")
    (sources,) = found.tables
    titles = [column.title for column in sources.columns]
    rows = {row[0].text: dict(zip(titles, (cell.text for cell in row), strict=True)) for row in sources.rows}
    for row in rows.values():
        assert (row["included in ±"] == "unknown") == (row["energy"] == row["q"] == "–"), row
        assert row["included in ±"] != "unknown" or row["reason if absent"], row
    assert float(rows["between prompts of one cell"]["energy"]) == pytest.approx(2.0, rel=0.2)
    assert found.paragraphs[0].startswith("Drift over the run: unknown, ")
