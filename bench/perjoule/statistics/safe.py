"""Safe ends of a cell: the quality that it keeps, and the joules that it stays within, in most resamples.

    safe quality   largest q with  P(Q ≥ q) ≥ 0.9
    safe energy    smallest e with P(E ≤ e) ≥ 0.9

P is the share of bootstrap resamples. A point estimate just above a demand would be below it in half of all
repetitions.
"""

from __future__ import annotations

import math

import numpy as np

from perjoule.statistics.resampling import Array

CONFIDENCE = 0.9
LEAST_PROMPTS = 8  # with fewer, 95 % intervals cover far less often than in 95 % of cases


def least_kept(resamples: Array, confidence: float = CONFIDENCE) -> Array:
    """Return, by column, the largest value that at least a share `confidence` of the resamples reaches.

    Args:
        resamples: (resamples, cells), higher is better; NaN counts as worst.
        confidence: Share of the resamples.

    Returns:
        (cells,), NaN without resamples, or if too many of them are NaN.
    """
    if not len(resamples):
        return np.full(resamples.shape[1], np.nan)
    values = np.where(np.isnan(resamples), -np.inf, resamples)
    place = min(math.floor(round((1 - confidence) * len(values), 6)), len(values) - 1)
    least = np.partition(values, place, axis=0)[place]
    return np.where(np.isfinite(least), least, np.nan)


def kept(point: Array, resamples: Array, confidence: float = CONFIDENCE) -> Array:
    """Return, by column, what a cell keeps: the largest value that its point estimate and `least_kept` both reach.

    A demand is met safely if it is not above this value; `recommend` and the report judge by it. Of energy, pass and
    get negative values: less is better.
    """
    return np.minimum(point, least_kept(resamples, confidence))


def anchor_worth(role: str, steps: float | None, quality: float, energy_j: float | None) -> tuple[float, ...]:
    """Return a key whose maximum over the cells is the anchor, which sets the floor and which others are compared with.

    It is the longest fixed run. Without any fixed run it is the longest other one, a control only if there is nothing
    else. Of equally long runs it is the best.

    Args:
        role: Part that the cell plays.
        steps: Mean number of steps.
        quality: Mean quality, turned so that higher is better.
        energy_j: Joules per image.
    """
    return {"fixed": 2.0, "control": 0.0}.get(role, 1.0), steps or 0.0, quality, energy_j or 0.0
