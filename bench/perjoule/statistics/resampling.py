"""Paired bootstrap: one index vector for all cells, so that what prompts have in common cancels in differences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perjoule.types import Estimate

RESAMPLES = 2_000
LEVEL = 0.95
SEED = 20_241_205


def bootstrap_weights(n: int, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
    """How often each of n units is drawn in each resample. -> (resamples, n), rows sum to n."""
    chance = np.random.default_rng([seed, n])
    return chance.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def ratio_of_sums(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Σ numerator / Σ denominator over units, ignoring units where either is NaN.

    Args:
        numerator: (units, cells).
        denominator: (units, cells).
        weights: (resamples, units).

    Returns:
        The ratio itself (cells,) and its resamples (resamples, cells); NaN where there is nothing.
    """
    known = np.isfinite(numerator) & np.isfinite(denominator)
    top, bottom = np.where(known, numerator, 0.0), np.where(known, denominator, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return top.sum(0) / bottom.sum(0), (weights @ top) / (weights @ bottom)


def percentile_estimate(
    value: float, resamples: NDArray[np.float64], n: int, method: str, level: float = LEVEL
) -> Estimate:
    """An estimate with its percentile interval; no interval from fewer than two units, and none for NaN."""
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, level=level, n=n, method=method)
    finite = resamples[np.isfinite(resamples)]
    if n < 2 or len(finite) < 100:
        return Estimate(value=float(value), low=None, high=None, level=level, n=n, method=method)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(value), low=float(low), high=float(high), level=level, n=n, method=method)
