from __future__ import annotations

import numpy as np

from perjoule.runs.directory import Run
from perjoule.statistics.attainment import attainment
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.frontier import frontier

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
