"""Energy over quality of random choices between arms: the lower hull of a few points, for many rows at once.

Whoever takes one of two arms at random has the mean of their joules and of their qualities, and there is nothing else
between two levels of a step policy. A curve through the levels, e.g. of ln E, passes below the straight line between
them and shows savings that no choice has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# relative difference of the energies at the ends of a line below which it counts as level
_LEVEL = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hulls:
    """The cheapest mixtures, from the cheapest arm to the best, one row each.

    Attributes:
        quality: (rows, knots) quality of the arms on the hull, rising; NaN behind the last.
        energy_j: Their J/image, rising.
        arm: Their places.
        count: (rows,) number of arms on the hull.
    """

    quality: Array
    energy_j: Array
    arm: Index
    count: Index

    @classmethod
    def of(cls, energy_j: Array, quality: Array) -> Hulls:
        """Keep the arms that no arm and no mixture beats; (rows, arms) each, those with NaN are left out."""
        known = np.isfinite(energy_j) & np.isfinite(quality)
        cost, gain = np.where(known, energy_j, np.inf), np.where(known, quality, -np.inf)
        order = _by_cost(cost, gain)
        cost, gain = (np.take_along_axis(each, order, 1) for each in (cost, gain))
        kept, count = _lower_hull(cost, gain)
        inside = np.arange(cost.shape[1]) < count[:, None]
        return cls(
            quality=np.where(inside, np.take_along_axis(gain, kept, 1), np.nan),
            energy_j=np.where(inside, np.take_along_axis(cost, kept, 1), np.nan),
            arm=np.take_along_axis(order, kept, 1),
            count=count,
        )

    def energy_at(self, quality: Array) -> Array:
        """J/image of the cheapest mixture with a mean quality: (rows, k) -> the same; NaN outside the hull."""
        return _read(self.quality, self.energy_j, self.count, quality)

    def quality_at(self, energy_j: Array) -> Array:
        """The best mean quality at a mean energy: (rows, k) -> the same; NaN outside the hull."""
        return _read(self.energy_j, self.quality, self.count, energy_j)

    def log_energy_integral(self, low: Array, high: Array) -> Array:
        """∫ ln E dQ, low and high (rows,) inside the hull -> (rows,); NaN outside."""
        if self.quality.shape[1] < 2:
            return np.full(len(self.quality), np.nan)
        ends = [np.clip(at[:, None], self.quality[:, :-1], self.quality[:, 1:]) for at in (low, high)]
        slope = np.diff(self.energy_j, axis=1) / np.diff(self.quality, axis=1)
        first, last = (self.energy_j[:, :-1] + slope * (at - self.quality[:, :-1]) for at in ends)
        with np.errstate(invalid="ignore", divide="ignore"):
            rise = last / first - 1
            # the mean of ln E along a straight line
            mean = np.where(rise > _LEVEL, (1 + 1 / rise) * np.log1p(rise) - 1 + np.log(first), np.log(first))
        inside = (low >= self.quality[:, 0]) & (high <= np.fmax.reduce(self.quality, axis=1)) & (self.count > 1)
        return np.where(inside, np.nansum(mean * (ends[1] - ends[0]), axis=1), np.nan)


def _by_cost(cost: Array, gain: Array) -> Index:
    """Order of the arms of each row, the cheapest first; of equal joules, the best first."""
    order = np.argsort(cost, axis=1, kind="stable")
    ranked = np.take_along_axis(cost, order, 1)
    tied = ((ranked[:, 1:] == ranked[:, :-1]) & np.isfinite(ranked[:, 1:])).any(1)
    order[tied] = np.lexsort((-gain[tied], cost[tied]), axis=-1)  # twice as slow
    return order


def _lower_hull(cost: Array, gain: Array) -> tuple[Index, Index]:
    """Places of the arms on the hull, and how many there are; (rows, arms) sorted by cost, -inf for an unknown gain."""
    rows, arms = cost.shape
    kept, count = np.zeros((rows, arms), np.intp), np.zeros(rows, np.intp)
    # one-dimensional views, and copies by place: to take elements from them is twice as fast
    start, places, costs, gains = np.arange(rows) * arms, kept.ravel(), cost.ravel(), gain.ravel()
    highest = np.full(rows, -np.inf)
    for place, (here_j, here) in enumerate(zip(cost.T.copy(), gain.T.copy(), strict=True)):
        better = here > highest
        active = np.flatnonzero(better & (count > 1))
        while len(active):
            first = start[active]
            end = first + count[active]
            last, before = first + places[end - 1], first + places[end - 2]
            base_j, base = costs[before], gains[before]
            # the last arm lies on or above the line between its neighbours
            above = (costs[last] - base_j) * (here[active] - base) >= (here_j[active] - base_j) * (gains[last] - base)
            beaten = active[above]
            count[beaten] -= 1
            active = beaten[count[beaten] > 1]
        new = np.flatnonzero(better)
        places[start[new] + count[new]] = place
        count[new] += 1
        highest[new] = here[new]
    return kept, count


def _read(x: Array, y: Array, count: Index, at: Array) -> Array:
    """Y at (rows, k) places of the broken lines through the knots (rows, knots); NaN outside."""
    start = np.clip((at[:, :, None] >= x[:, None, :]).sum(-1) - 1, 0, np.maximum(count - 2, 0)[:, None])
    rows, end = np.arange(len(x))[:, None], np.minimum(start + 1, np.maximum(count - 1, 0)[:, None])
    width = x[rows, end] - x[rows, start]
    part = (at - x[rows, start]) / np.where(width > 0, width, 1.0)
    value = y[rows, start] + part * (y[rows, end] - y[rows, start])
    return np.where((at >= x[:, :1]) & (at <= np.fmax.reduce(x, axis=1)[:, None]), value, np.nan)
