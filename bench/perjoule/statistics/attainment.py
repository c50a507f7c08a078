"""How sure the frontier is: the quality that the cells together attain at each energy, over the resamples.

    A(e) = max { Q_i : E_i ≤ e }      its 5 %, 50 % and 95 % quantiles over the draws

The quantiles of empirical attainment surfaces (Grunert da Fonseca, Fonseca and Hall 2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perjoule.statistics.comparisons import Evidence
from perjoule.statistics.resampling import Array

SHARES = (0.05, 0.5, 0.95)
_PLACES = 96


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attainment:
    """energy_j: (places,) J/image, rising; low, middle, high: (places,) quality, NaN where fewer draws attain any."""

    energy_j: Array
    low: Array
    middle: Array
    high: Array


def attainment(evidence: Evidence, cells: Sequence[str]) -> Attainment | None:
    """The attainment band of some cells; None without draws of one of them, such as with one window group.

    Under a metric of which less is better, low and high keep their places: low is the worse quality.
    """
    columns = [evidence.grid.cells.index(cell) for cell in cells]
    sign = evidence.spec.sign
    energy = evidence.draws.energy.resamples[:, columns]
    quality = sign * evidence.draws.quality(evidence.spec.name).resamples[:, columns]
    known = np.isfinite(energy) & np.isfinite(quality)
    if not len(known) or not known.any(0).all():
        return None
    energy, quality = np.where(known, energy, np.inf), np.where(known, quality, -np.inf)
    finite = energy[np.isfinite(energy)]
    places = np.geomspace(finite.min(), finite.max(), _PLACES)
    # cells from cheap to expensive, with the best quality so far: what a place attains is read off by counting
    order = np.argsort(energy, axis=1)
    cost = np.take_along_axis(energy, order, 1)
    best = np.maximum.accumulate(np.take_along_axis(quality, order, 1), axis=1)
    surface = np.full((len(places), len(energy)), -np.inf)
    for i, place in enumerate(places):
        affordable = (cost <= place).sum(1)
        rows = affordable > 0
        surface[i, rows] = best[rows, affordable[rows] - 1]
    bands = sign * np.quantile(surface, SHARES, axis=1, method="inverted_cdf")
    low, middle, high = np.where(np.isfinite(bands), bands, np.nan)
    return Attainment(energy_j=places, low=low, middle=middle, high=high)
