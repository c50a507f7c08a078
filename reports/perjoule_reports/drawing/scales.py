"""The two axes of a frontier: limits, ticks, and how values become places between the ends.

Joules have a log2 axis. Quality has a linear axis, unless most values, or all of them, lie close to the best possible
one: then equal distances multiply what is missing to that bound, 1 − q for a share, by equal factors. Linear axes draw
such values on top of each other. No axis goes beyond the best possible value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from perjoule.statistics.resampling import Array
from perjoule_reports.drawing.canvas import text_width

Curve = Callable[[Array], Array]

_CROWDED = 8  # the axis is stretched if the largest distance to the bound is this multiple of the median one
_NEAR, _APART = 0.1, 4  # so is it if all distances are at most this share of the bound, and differ by this factor
_LEAST_CELLS = 4
_MOST_DECADES = 3  # below this many decades of distance the stretched axis is linear
_MOST_FINE = 40
_FONT = 10  # points, of tick labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One axis.

    Attributes:
        low: Smallest value shown.
        high: Largest value shown.
        forward: Takes values to the places that are spaced evenly; rises.
        backward: Its inverse.
        candidates: Ticks inside the limits, from the most to the least important.
        coarse: Number of candidates that are ticks of the whole axis; the others serve parts of it.
        bound: The value that a stretched axis approaches; None for the other axes.
    """

    low: float
    high: float
    forward: Curve
    backward: Curve
    candidates: tuple[tuple[float, str], ...]
    coarse: int | None = None
    bound: float | None = None

    def place(self, value: float) -> float:
        """Return the place of a value: 0 at the lower end, 1 at the upper end."""
        at, low, high = self.forward(np.array([value, self.low, self.high]))
        return float((at - low) / (high - low))

    def ticks(self, least: float) -> list[tuple[float, str]]:
        """Return the most important ticks whose places differ by at least `least`."""
        chosen: list[tuple[float, float, str]] = []
        for value, text in self.candidates[: self.coarse]:
            place = self.place(value)
            if all(abs(place - other) >= least for other, _, _ in chosen):
                chosen.append((place, value, text))
        return [(value, text) for _, value, text in sorted(chosen)]

    def fine(self) -> str:
        """Return the candidates with their places, for the script that rescales: `1@0.25 2@0.5`."""
        return " ".join(f"{text}@{self.place(value):.4g}" for value, text in self.candidates)


def energy_scale(joules: Sequence[float]) -> Scale:
    """Return the log2 axis for some energies in the unit that is shown."""
    low, high = min(joules) / 1.22, max(joules) * 1.18
    if high / low < 1.6:
        low, high = low / 1.25, high * 1.25
    octaves = [2.0**k for k in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    between = [m * 10.0**k for m in (1, 5, 2, 3, 7, 1.5)
               for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]  # fmt: skip
    evenly = [float(v) for v in MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)]
    coarse = _labelled(octaves if len(octaves) >= 3 else evenly, low, high)
    return Scale(low=low, high=high, forward=np.log2, backward=np.exp2, coarse=len(coarse),
                 candidates=_labelled([*(v for v, _ in coarse), *octaves, *between, *evenly], low, high))  # fmt: skip


def quality_scale(values: Sequence[float], ends: Sequence[float], *, higher: bool, bound: float | None) -> Scale:
    """Return the axis of a metric; values that are worse lie further down.

    Args:
        values: One value per cell.
        ends: The ends of their intervals.
        higher: True if more is better.
        bound: The best possible value; None if there is none.
    """
    width = None if bound is None else _stretch(values, bound)
    sign = 1.0 if higher else -1.0
    if bound is None or width is None:
        shown = [*values, *ends]
        room = (max(shown) - min(shown)) * 0.1 or abs(max(shown)) * 0.05 or 0.5
        worst, best = (min(shown) - room, max(shown) + 1.6 * room) if higher else (max(shown) + room,
                                                                                   min(shown) - 1.6 * room)  # fmt: skip
        best = _at_most(best, values, bound, sign)
        low, high = min(worst, best), max(worst, best)
        few, many = (_labelled(list(MaxNLocator(n).tick_values(low, high)), low, high) for n in (6, 24))
        return Scale(low=worst, high=best, forward=lambda v: sign * v, backward=lambda v: sign * v,
                     candidates=tuple(dict.fromkeys((*few, *many))), coarse=len(few))  # fmt: skip

    def forward(v: Array) -> Array:
        return -np.arcsinh(sign * (bound - np.asarray(v)) / width)

    def backward(place: Array) -> Array:
        return np.asarray(bound + sign * width * np.sinh(place))

    places = forward(np.array([*values, *ends, bound]))
    worst = float(backward(places.min() - 0.06 * np.ptp(places)))
    best = _at_most(float(backward(places.max())), values, bound, sign)
    largest = math.ceil(math.log10(abs(bound - worst)))
    steps = [m * 10.0 ** (largest - k) for m in (1, 3, 5, 2, 7) for k in range(_MOST_DECADES + 2)]
    ticks = [bound, *(bound - sign * step for step in steps if step >= width / 2)]
    return Scale(low=worst, high=best, forward=forward, backward=backward, bound=bound,
                 candidates=_labelled(ticks, min(worst, best), max(worst, best)))  # fmt: skip


def apply(axes: Axes, x: Scale, y: Scale, size: tuple[float, float]) -> None:
    """Set the scales, limits and ticks of axes in a figure of `size` inches."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(x.low, x.high)
    if y.bound is not None:
        axes.set_yscale("function", functions=(y.forward, y.backward))
    axes.set_ylim(y.low, y.high)
    widest = text_width([text for _, text in x.candidates[: x.coarse]], _FONT)
    across, up = x.ticks(max(0.5, widest + 0.1) / size[0]), y.ticks(0.32 / size[1])
    axes.xaxis.set_major_locator(FixedLocator([v for v, _ in across]))
    axes.xaxis.set_major_formatter(FixedFormatter([text for _, text in across]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(FixedLocator([v for v, _ in up]))
    axes.yaxis.set_major_formatter(FixedFormatter([text for _, text in up]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _stretch(values: Sequence[float], bound: float) -> float | None:
    """Return the distance to the bound below which a stretched axis is linear; None if a linear axis shows enough."""
    gaps = np.sort(np.abs(bound - np.asarray(values, float)))
    positive = gaps[gaps > 0]
    if len(gaps) < _LEAST_CELLS or not len(positive):
        return None
    crowded = gaps[-1] >= _CROWDED * float(np.median(gaps))
    near = gaps[-1] <= _NEAR * abs(bound) and gaps[-1] >= _APART * positive[0]
    return float(max(positive[0], gaps[-1] / 10**_MOST_DECADES)) if crowded or near else None


def _at_most(best: float, values: Sequence[float], bound: float | None, sign: float) -> float:
    """Return the end of an axis: not beyond the best possible value, unless a value is."""
    if bound is None:
        return best
    return sign * min(sign * best, max(sign * bound, *(sign * value for value in values)))


def _labelled(values: Sequence[float], low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Return distinct values inside the limits with texts that distinguish them, at most `_MOST_FINE`."""
    inside = list(dict.fromkeys(float(f"{v:.6g}") for v in values if low <= v <= high))
    return tuple((v, f"{v:.6g}".replace("-", "\N{MINUS SIGN}")) for v in inside[:_MOST_FINE])
