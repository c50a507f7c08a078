"""Perceptual gain per joule, and what a joule is worth.

    incremental gain   PGJ  = (Q_a − Q_0)/(E_a − E_0)         over a declared floor 0, quality per joule
    marginal gain      mPGJ = (Q_k − Q_{k−1})/(E_k − E_{k−1})  between neighbours on the frontier
    net benefit        INB  = λ (Q_a − Q_0) − (E_a − E_0)      λ: joules worth paying for one unit of quality

Average quality over energy is never formed: it ranks the cheapest, worst image first. A ratio whose denominator may be
zero has no interval, so it is withheld then, and the quadrant is named instead; net benefit stays defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perjoule.statistics.curves import Ladders
from perjoule.statistics.resampling import Array, Means
from perjoule.types import Estimate

GAIN_METHOD = "(Q − Q0)/(E − E0), quality per joule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadrants:
    """Shares of the resamples in the plane of energy and quality differences; a tie in both is in none of them."""

    cheaper_and_better: float
    dearer_and_better: float
    cheaper_and_worse: float
    dearer_and_worse: float

    @property
    def likeliest(self) -> str:
        """The name of the largest share, for people."""
        names = ("cheaper_and_better", "dearer_and_better", "cheaper_and_worse", "dearer_and_worse")
        return max(names, key=lambda name: float(getattr(self, name))).replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetBenefit:
    """INB at one price. `p_positive`: the share of resamples in which the change is worth it; None without any."""

    joules_per_quality: float
    net_benefit_j: Estimate
    p_positive: float | None


def gain_per_joule(means: Means, test: tuple[int, int], floor: tuple[int, int]) -> tuple[Estimate, str | None]:
    """Incremental gain per joule of one point over another.

    Args:
        means: Draws.
        test: Columns of its energy and its quality (higher is better).
        floor: The same of the point that it is compared with.

    Returns:
        The estimate in quality units per joule, and why it is withheld, in words.
    """
    spent = means.estimate(lambda rows: rows[:, test[0]] - rows[:, floor[0]])
    with np.errstate(invalid="ignore", divide="ignore"):  # cells may tie in energy; the ratio is then withheld
        estimate = means.estimate(
            lambda rows: (rows[:, test[1]] - rows[:, floor[1]]) / (rows[:, test[0]] - rows[:, floor[0]]),
            what=GAIN_METHOD,
        )
    absent = Estimate(value=None, low=None, high=None, level=estimate.level, n=estimate.n, method=estimate.method)
    if spent.value is None:
        return absent, "joules or scores are missing"
    if spent.value <= 0:
        return absent, "undefined: it does not cost more than what it is compared with"
    low, high = spent.low, spent.high
    # |ΔE| ≤ 2 SE, read off the interval
    if low is not None and high is not None and low <= 0 <= high:
        shares = quadrants(means, test, floor)
        return absent, f"undefined: the energies do not differ for sure{f'; {shares.likeliest}' if shares else ''}"
    return estimate, None


def quadrants(means: Means, test: tuple[int, int], other: tuple[int, int]) -> Quadrants | None:
    """Where the resampled differences lie; columns as in `gain_per_joule`.

    None where no resample knows them, such as with an energy of one window group.
    """
    energy, quality = (means.resamples[:, test[i]] - means.resamples[:, other[i]] for i in (0, 1))
    known = np.isfinite(energy) & np.isfinite(quality)
    if not known.any():
        return None
    energy, quality = energy[known], quality[known]
    return Quadrants(
        cheaper_and_better=float(((energy <= 0) & (quality >= 0) & ((energy < 0) | (quality > 0))).mean()),
        dearer_and_better=float(((energy > 0) & (quality > 0)).mean()),
        cheaper_and_worse=float(((energy < 0) & (quality < 0)).mean()),
        dearer_and_worse=float(((energy >= 0) & (quality <= 0) & ((energy > 0) | (quality < 0))).mean()),
    )


def net_benefits(
    means: Means, test: tuple[int, int], floor: tuple[int, int], prices: Sequence[float]
) -> tuple[NetBenefit, ...]:
    """INB over a range of prices λ (J per quality unit): the acceptability curve."""

    def at(price: float) -> NetBenefit:
        def rows_of(rows: Array) -> Array:
            return price * (rows[:, test[1]] - rows[:, floor[1]]) - (rows[:, test[0]] - rows[:, floor[0]])

        rows = rows_of(means.resamples)
        known = rows[np.isfinite(rows)]
        return NetBenefit(
            joules_per_quality=price,
            net_benefit_j=means.estimate(rows_of, what="λ ΔQ − ΔE"),
            p_positive=float((known > 0).mean()) if len(known) else None,
        )

    return tuple(at(price) for price in prices)


def knee(ladder: Ladders) -> Array:
    """Index of the knee of each row's curve (Kneedle on log2 E and Q, both scaled to 0..1) -> (rows,), NaN if none.

    A hint: it moves with the range that was measured.
    """
    y = ladder.quality
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.log2(ladder.energy_j)
        x = (x - np.fmin.reduce(x, axis=1, keepdims=True)) / np.ptp(x, axis=1, keepdims=True)
        y = (y - np.fmin.reduce(y, axis=1, keepdims=True)) / np.ptp(y, axis=1, keepdims=True)
    height = np.where(np.isfinite(x) & np.isfinite(y), y - x, -np.inf)
    return np.where(np.isfinite(height.max(1)), height.argmax(1).astype(np.float64), np.nan)
