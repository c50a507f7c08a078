from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.reports import built, section

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
