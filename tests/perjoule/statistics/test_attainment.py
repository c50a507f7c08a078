from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perjoule.runs.directory import Run
from perjoule.statistics.attainment import SHARES, attainment
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.frontier import frontier
from tests.support.tables_of_runs import imported, table

DRAWS = 400


def test_the_band_rises_and_holds_the_frontier(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], DRAWS), "q")
    band = attainment(evidence, evidence.grid.cells)
    assert band is not None
    known = np.isfinite(band.low)
    assert (np.diff(band.energy_j) > 0).all()
    for line in (band.low[known], band.middle[known], band.high[known]):
        assert (np.diff(line) >= -1e-12).all()
    assert (band.low[known] <= band.middle[known]).all()
    assert (band.middle[known] <= band.high[known]).all()
    best = max(p["quality"]["value"] for p in frontier(run, "q", resamples=0)["points"])
    assert band.low[-1] <= best <= band.high[-1]


@pytest.mark.parametrize("metric", ["q", "loss"])
def test_the_band_is_that_of_the_best_affordable_cell_in_each_resample(run: Run, metric: str) -> None:
    evidence = evidence_of(run, draw(run, [metric], 60), metric)
    cells = ("ladder-004", "quick-016", "ladder-064")
    band = attainment(evidence, cells)
    assert band is not None
    columns = [evidence.grid.cells.index(cell) for cell in cells]
    energy = evidence.draws.energy.resamples[:, columns]
    quality = evidence.spec.sign * evidence.draws.quality(metric).resamples[:, columns]
    assert (band.energy_j[0], band.energy_j[-1]) == pytest.approx((energy.min(), energy.max()))
    for place, *limits in zip(band.energy_j, band.low, band.middle, band.high, strict=True):
        attained = np.sort([max(q[e <= place], default=-np.inf) for e, q in zip(energy, quality, strict=True)])
        for share, limit in zip(SHARES, limits, strict=True):
            # the smallest that is not exceeded by this share of the resamples
            wanted = attained[int(np.ceil(share * len(attained))) - 1]
            assert limit == pytest.approx(evidence.spec.sign * wanted, nan_ok=True) or not np.isfinite(wanted)
            assert np.isfinite(limit) == np.isfinite(wanted)


def test_a_cell_without_scores_has_no_band(tmp_path: Path) -> None:
    frame = table(prompts=6, ladder=(4, 16)).with_columns(
        pl.when(pl.col("steps") == 4).then(None).otherwise(pl.col("quality:q")).alias("quality:q")
    )
    run = imported(frame, tmp_path)
    evidence = evidence_of(run, draw(run, ["q"], 20), "q")
    assert attainment(evidence, ("ladder-004", "ladder-016")) is None
    assert attainment(evidence, ("quick-016", "ladder-016")) is not None
