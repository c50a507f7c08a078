"""What a plan says of joules and seconds nobody has spent yet. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from perjoule.types import Provenance
from perjoule.types.price import TIMES, Shrinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A number that is expected, not measured, and the range it is expected in.

    Attributes:
        value: The middle.
        low: Lower end.
        high: Upper end.
        level: Level of the interval; None for a judged range, which has no level.
        provenance: Always `estimated`: nothing has been measured yet.
    """

    value: float
    low: float
    high: float
    level: float | None
    provenance: Provenance = "estimated"

    def times(self, factor: float) -> Projection:
        """All three, times a number that is known exactly."""
        return Projection(value=self.value * factor, low=self.low * factor, high=self.high * factor, level=self.level)

    def by(self, count: Projection) -> Projection:
        """Times a count that is itself only expected."""
        return Projection(
            value=self.value * count.value,
            low=self.low * count.low,
            high=self.high * count.high,
            level=self.level if count.low == count.high else None,
        )

    def at_most(self, most: float) -> Projection:
        """With the upper end cut off where nothing can reach it."""
        return self if self.high <= most else replace(self, high=max(most, self.value))

    def widened(self, low: float, high: float) -> Projection:
        """Times a factor that is only known to lie between `low` and `high`; no interval any more, but a range."""
        if low == high:
            return self.times(low)
        middle = math.sqrt(low * high)
        return Projection(value=self.value * middle, low=self.low * low, high=self.high * high, level=None)


def total(parts: Iterable[Projection | None]) -> Projection | None:
    """The sum of those that are known, None if none is.

    Ends add up, as if all were off in the same direction: what makes one figure wrong (another board, another session)
    makes the others wrong as well.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    levels = {part.level for part in known}
    return Projection(
        value=sum(part.value for part in known),
        low=sum(part.low for part in known),
        high=sum(part.high for part in known),
        level=None if None in levels else min(level for level in levels if level is not None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an image of a cell is expected to cost; what is not known is None, with the reason.

    Attributes:
        energy_j: Per image.
        duration_s: Per image, of the window.
        reason: Why there are no joules (or, with joules, no seconds); empty if both are there.
        source: Where the figures come from: a publication, or a run directory.
        rests_on: How the joules of the source came about.
        boundary: What they cover.
        repeats: How often a window did its work there, where the source is a run under the same bound.
    """

    energy_j: Projection | None = None
    duration_s: Projection | None = None
    reason: str = ""
    source: str = ""
    rests_on: Provenance | None = None
    boundary: str | None = None
    repeats: Projection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHalving:
    """What half the intervals would take, in addition to the plan: `times` as many prompts.

    Attributes:
        times: How many times the prompts.
        energy_j: Further joules; None if no price is known.
        duration_s: Further seconds of windows.
        shrinks: Which intervals become half as wide: joules that are counted repeat exactly.
    """

    times: int = TIMES
    energy_j: Projection | None
    duration_s: Projection | None
    shrinks: Shrinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A published figure next to an estimate that rests on own windows.

    Attributes:
        energy_j_per_image: Published, for the same model at this step count (by a line through the figures).
        device: Where it was measured.
        source: Source of the figure.
        ratio: The estimate over the figure.
        remark: What is implausible about it, empty if nothing is.
    """

    energy_j_per_image: float
    device: str
    source: str
    ratio: float
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The smallest difference between two cells that a run of this size will see in four of five cases.

    Attributes:
        axis: `energy`, or the name of a metric.
        unit: `relative` for energy, otherwise that of the metric.
        n: Prompts, or groups of prompts that share windows.
        mde: In the unit; None where the scatter is not known.
        mde_in_sd: In standard deviations of the paired difference, which needs no scatter.
        sd: Standard deviation of the paired difference.
        source: Where it comes from.
        reason: Why `mde` is absent, empty if it is there.
    """

    axis: str
    unit: str
    n: int
    mde: float | None
    mde_in_sd: float | None
    sd: float | None = None
    source: str = ""
    reason: str = ""
