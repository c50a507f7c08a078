"""Conformal risk control of a floor (Angelopoulos et al., arXiv:2208.02814): a margin that keeps a promise of misses.

Of arms (models, or numbers of steps) the cheapest is taken whose lead, its forecast above the floor, is at least a
margin. The margin is the smallest with which n calibration prompts have

    (n / (n + 1)) · risk + 1 / (n + 1) ≤ p

where the risk is the mean over prompts of the share of a prompt's seeds that miss the floor. Prompts are exchangeable
and images are not, so n counts prompts. The promise is a mean over prompts like those of the calibration and over
calibrations: a single calibration may miss more often.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_ROUNDING = 1e-9


def cheapest_safe(lead: Array, margin: float, fallback: int) -> Index:
    """Return the first arm whose lead is at least the margin, else the fallback.

    Args:
        lead: (n, arms), the cheapest arm first.
        margin: Required lead.
        fallback: Arm for prompts without a safe arm.
    """
    safe = lead >= margin
    return np.where(safe.any(1), safe.argmax(1), fallback).astype(np.intp)


def calibrated_margin(
    lead: Array, missed: Array, fallback: int, miss_rate: float, prompts: int | None = None
) -> float | None:
    """Return the smallest margin that keeps the promise, as do all larger ones; None if not even the fallback does.

    Args:
        lead: (n, arms) leads of the calibration prompts, the cheapest arm first.
        missed: (n, arms) share of a prompt's images that miss the floor.
        fallback: Arm for prompts without a safe arm.
        miss_rate: Promised rate.
        prompts: Number of prompts, if there is a row for each image: `missed` is then the image's part of that share.
    """
    # of the sum of all prompts' misses
    most = miss_rate * ((len(lead) if prompts is None else prompts) + 1) - 1 + _ROUNDING
    if missed[:, fallback].sum() > most:
        return None
    # as the margin falls, a prompt moves to arms that are cheaper than all that are safe at larger margins
    cheaper = np.maximum.accumulate(lead, axis=1)[:, :-1]
    taken = lead > np.concatenate([np.full((len(lead), 1), -np.inf), cheaper], axis=1)
    change, before = np.zeros_like(missed), missed[:, fallback]
    for arm in reversed(range(lead.shape[1])):
        change[:, arm] = missed[:, arm] - before
        before = np.where(taken[:, arm], missed[:, arm], before)
    order = np.argsort(-lead[taken], kind="stable")
    margins, sums = lead[taken][order], missed[:, fallback].sum() + np.cumsum(change[taken][order])
    last = np.append(margins[1:] != margins[:-1], True)  # prompts with equal leads move together
    margins, broken = margins[last], sums[last] > most
    # just above the first margin that breaks the promise; the next calibration lead above it would waste joules
    return float(np.nextafter(margins[broken.argmax()], np.inf)) if broken.any() else -math.inf


def prompts_needed(miss_rate: float, risk: float = 0.0) -> int | None:
    """Return how many calibration prompts a promise needs if the best arm misses at a rate; None if none suffice.

    From (n · risk + 1) / (n + 1) ≤ p follows n ≥ (1 − p) / (p − risk).
    """
    if risk >= miss_rate:
        return None
    return math.ceil((1 - miss_rate) / (miss_rate - risk) - _ROUNDING)
