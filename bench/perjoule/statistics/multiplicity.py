"""Many tests at once: Holm's step-down, Benjamini and Hochberg's step-up, the p-value of a resampled statistic."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from perjoule.statistics.resampling import Array

ALPHA = 0.05
Key = TypeVar("Key", bound=Hashable)


def holm(tests: Mapping[Key, float], alpha: float | Callable[[int], float] = ALPHA) -> set[Key]:
    """The tests that reject when the chance of any false rejection is held at `alpha` (Holm 1979).

    Args:
        tests: Key -> p-value.
        alpha: Family-wise level. A function returns the level of each of n tests, e.g. at one look of a sequential
            design with the error alpha/n (Maurer and Bretz 2013); it must not increase with n.
    """
    level = alpha if callable(alpha) else lambda n: alpha / n
    rejected = set()
    for rank, (key, p) in enumerate(sorted(tests.items(), key=lambda item: item[1])):
        if p > level(len(tests) - rank):
            break
        rejected.add(key)
    return rejected


def benjamini_hochberg(tests: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted p-values that hold the expected share of false discoveries (Benjamini and Hochberg 1995).

    Args:
        tests: Key -> p-value.

    Returns:
        Key -> the smallest false discovery rate at which the test would still be called a discovery.
    """
    if not tests:
        return {}
    ranked = sorted(tests.items(), key=lambda item: item[1])
    adjusted = np.array([p for _, p in ranked]) * len(ranked) / np.arange(1, len(ranked) + 1)
    smallest = np.minimum(1.0, np.minimum.accumulate(adjusted[::-1])[::-1])
    by_key = dict(zip((key for key, _ in ranked), smallest.tolist(), strict=True))
    return {key: by_key[key] for key in tests}


def p_differs_from_zero(resamples: Array) -> float:
    """Two-sided p-value, 2 (1 + rows on the smaller side of 0)/(1 + rows); rows (b,) without a value side with zero."""
    if not len(resamples):
        return 1.0
    with np.errstate(invalid="ignore"):
        smaller = min((~(resamples > 0)).sum(), (~(resamples < 0)).sum())
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(resamples))))
