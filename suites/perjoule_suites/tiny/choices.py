"""What can be saved if each caption gets its own arm: by an oracle, by a table of kinds, by any prediction.

An arm is a model at a step count. Every choice maximises `expected quality - price * joules`; the price is set so that
the mean quality equals that of the best single arm. The expected quality and the judged quality are of different seeds
(oracle) or different captions (table), so that luck does not look like skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_BISECTIONS, _RESAMPLES = 60, 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Result of choosing an arm per caption.

    Attributes:
        saving: 1 - J/image of the choices over J/image of the best single arm, at its quality; negative if it costs
            more; None if the choices do not reach that quality at any price.
        low: Lower and
        high: upper end of the 95 % bootstrap interval over captions.
        shares: Share of the captions that get each arm.
        best: Index of the best single arm.
    """

    saving: float | None
    low: float | None
    high: float | None
    shares: tuple[float, ...]
    best: int


def choose(expected: Array, judged: Array, joules: Sequence[float]) -> Choice:
    """Choose an arm per caption.

    Args:
        expected: (captions, arms) quality by which arms are chosen.
        judged: (captions, arms) quality by which they are judged.
        joules: J/image of each arm.
    """
    costs = np.asarray(joules, float)
    best = int(judged.mean(0).argmax())
    picks = _picks(expected, judged, costs, best)
    shares = np.bincount(picks, minlength=len(costs)) / len(picks) if picks is not None else np.zeros(len(costs))
    rng, draws = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        rows = rng.integers(0, len(judged), len(judged))
        again = _picks(expected[rows], judged[rows], costs, best)
        if again is not None:
            draws.append(1 - costs[again].mean() / costs[best])
    certain = picks is not None and len(draws) > 0.95 * _RESAMPLES
    low, high = np.quantile(draws, [0.025, 0.975]) if certain else (None, None)
    return Choice(
        saving=None if picks is None else float(1 - costs[picks].mean() / costs[best]),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        shares=tuple(float(share) for share in shares),
        best=best,
    )


def oracle(quality: Array, joules: Sequence[float]) -> Choice:
    """Choose by half of the seeds and judge by the other half. quality: (captions, seeds, arms)."""
    return choose(quality[:, ::2].mean(1), quality[:, 1::2].mean(1), joules)


def by_kind(quality: Array, kinds: Sequence[int], joules: Sequence[float]) -> Choice:
    """Choose by the mean of a kind of captions over the other half of the captions. (captions, seeds, arms)."""
    means, labels = quality.mean(1), np.asarray(kinds)
    expected = np.empty_like(means)
    half = np.arange(len(means)) % 2
    for side in (0, 1):
        others = half != side
        for kind in np.unique(labels):
            same = others & (labels == kind)
            expected[(half == side) & (labels == kind)] = means[same if same.any() else others].mean(0)
    return choose(expected, means, joules)


def _picks(expected: Array, judged: Array, costs: Array, best: int) -> NDArray[np.intp] | None:
    """Return each caption's arm at the highest price with which the judged quality is that of the best arm."""
    wanted = judged[:, best].mean()

    def at(price: float) -> NDArray[np.intp]:
        # of equal arms the cheapest
        picks: NDArray[np.intp] = (expected - (price + 1e-12) * costs).argmax(1)
        return picks

    def is_enough(picks: NDArray[np.intp]) -> bool:
        return bool(np.take_along_axis(judged, picks[:, None], 1).mean() >= wanted - 1e-12)

    if not is_enough(at(0.0)):
        return None
    low, high = 0.0, (np.ptp(expected) + 1) / max(np.diff(np.unique(costs)).min(initial=np.inf), 1e-12)
    if is_enough(at(high)):
        return at(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_enough(at(middle)) else (low, middle)
    return at(low)
