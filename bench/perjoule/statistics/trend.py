"""Drifts and steps in a history of runs: one permutation test for all series, then a fit of what was found.

A history is a table with a row per run and a column per series, e.g. ln J/image of each cell. If nothing changes, the
rows are exchangeable: their order carries no information. Each shape (a step before run k, a drift since run a) is a
contrast over the rows. The statistic of a series is the mean over all shapes of their Bayes factors against no change,

    (1 + g)^((n − 2)/2) / (1 + g (1 − r²))^((n − 1)/2)        r: correlation of the series with the shape

with Zellner's prior of unit information, g = n (Liang and others, JASA 103, 2008). The mean is more powerful than the
largest correlation, because a drift resembles many shapes a little. Only the order of the statistics matters: permuting
whole rows gives the distribution of the largest one without an assumption about the noise, and keeps the correlation
between series, so that one p-value is valid for all series and shapes together (Westfall and Young 1993, maxT).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FEWEST_RUNS = 10
# of one look: docs/trend.md has the share of stable histories that are flagged in 20 and 52 weekly looks
LEVEL = 0.006
_PERMUTATIONS = 4_999
_FIRST_BATCH, _MOST_BATCH = 100, 1_000
_FEWEST_BESIDE = 2  # runs on either side of a step
_FEWEST_RISING = 4  # runs of a drift, with the one at which it starts
_CONFIDENCE = 0.95

Kind = Literal["step", "drift"]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a series changes: the fields of a `Change` that do not need a fit."""

    series: int
    kind: Kind
    start: int
    end: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of one series.

    Attributes:
        series: Its column.
        kind: A step, or a drift.
        start: Row of the first run after the step, or of the run at which the drift starts.
        end: Row after the last run of the change's part of the history.
        size: Difference between before and after; of a drift, from its start to the last run.
        low: Lower end of the 95 % interval of `size`, for a given start.
        high: Upper end.
        per_week: Slope of a drift per week; None for a step.
        p: P-value for no change in any series, adjusted for all series and shapes.
    """

    series: int
    kind: Kind
    start: int
    end: int
    size: float
    low: float
    high: float
    per_week: float | None
    p: float


def changes(values: Array, weeks: Array, *, level: float = LEVEL) -> list[Change]:
    """Return the changes of all series, in the order of the columns and then of time.

    Args:
        values: Rows are runs in the order of time, columns are series. No gaps.
        weeks: Time of each run in weeks.
        level: Significance level of the whole table.

    A step divides the history of its series, and both parts are tested again. The changes of a series are then fitted
    together by least squares. A table with fewer than `FEWEST_RUNS` rows has no changes.
    """
    places: dict[int, list[Place]] = {}
    for place in _places(values, weeks, level):
        places.setdefault(place.series, []).append(place)
    return [
        change
        for series in sorted(places)
        for change in fitted(values[:, series], weeks, sorted(places[series], key=lambda place: place.start))
    ]


def _places(values: Array, weeks: Array, level: float) -> list[Place]:
    count = len(values)
    if count < FEWEST_RUNS:
        return []
    scaled, moving = _scaled(values)
    if not moving.size:
        return []
    shapes = _shapes(weeks)
    contrasts = np.stack([_contrast(kind, start, weeks) for kind, start in shapes])
    correlations = np.abs(contrasts @ scaled)
    p_values = _p_values(contrasts, scaled, level)
    return [
        place
        for column in np.flatnonzero(p_values <= level)
        for place in _best(values[:, moving[column]], weeks, shapes, correlations[:, column], p_values[column], level)
        for place in [replace(place, series=int(moving[column]))]
    ]


def _best(
    series: Array, weeks: Array, shapes: list[tuple[Kind, int]], correlations: Array, p: float, level: float
) -> list[Place]:
    """Return the changes of a series that has some: those of its best step or its best drift, whichever fits better.

    Two steps upwards resemble a drift, so each is completed before they are compared (by Schwarz's criterion): a step
    divides the series into two parts that are tested again, and what is before a drift is tested again.
    """
    count, candidates = len(series), []
    for kind in ("step", "drift"):
        of_kind = [n for n, (other, _) in enumerate(shapes) if other == kind]
        if not of_kind:
            continue
        start = shapes[max(of_kind, key=lambda n: correlations[n])][1]
        places = [Place(series=0, kind=kind, start=start, end=count, p=float(p))]
        for first, last in ((0, start), (start, count)) if kind == "step" else ((0, start),):
            for part in _places(series[first:last, None], weeks[first:last], level):
                places.append(replace(part, start=part.start + first, end=part.end + first))
        candidates.append(places)
    return min(candidates, key=lambda places: _criterion(series, weeks, places))


def _criterion(series: Array, weeks: Array, places: Sequence[Place]) -> float:
    """Return Schwarz's criterion of a fit; each change has a place and a size."""
    residuals = series - fit(series, weeks, places)
    count = len(series)
    return count * math.log(max(float(residuals @ residuals), 1e-300) / count) + 2 * len(places) * math.log(count)


def _shapes(weeks: Array) -> list[tuple[Kind, int]]:
    count = len(weeks)
    steps: list[tuple[Kind, int]] = [("step", k) for k in range(_FEWEST_BESIDE, count - _FEWEST_BESIDE + 1)]
    drifts: list[tuple[Kind, int]] = [("drift", a) for a in range(count - _FEWEST_RISING + 1) if weeks[-1] > weeks[a]]
    return steps + drifts


def _shape(kind: Kind, start: int, end: int, weeks: Array) -> Array:
    """Return a step, or a rise from `start` to the last row before `end`, with mean 0."""
    if kind == "step":
        shape = (np.arange(len(weeks)) >= start).astype(float)
    else:
        shape = np.clip(weeks - weeks[start], 0.0, weeks[end - 1] - weeks[start])
    return np.asarray(shape - shape.mean())


def _contrast(kind: Kind, start: int, weeks: Array) -> Array:
    shape = _shape(kind, start, len(weeks), weeks)
    return shape / np.linalg.norm(shape)


def _scaled(values: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the series that vary, with mean 0 and length 1, and their columns."""
    centred = values - values.mean(0)
    lengths = np.linalg.norm(centred, axis=0)
    moving = np.flatnonzero(lengths > 1e-12 * np.maximum(1.0, np.linalg.norm(values, axis=0)))
    return centred[:, moving] / lengths[moving], moving


def _evidence(contrasts: Array, scaled: Array) -> Array:
    """Return the logarithm of the mean Bayes factor of all shapes for each series, see the module."""
    count = scaled.shape[0]
    rest = 1 - np.minimum((contrasts @ scaled) ** 2, 1.0)
    exponents = (count - 2) / 2 * math.log1p(count) - (count - 1) / 2 * np.log1p(count * rest)
    largest = exponents.max(0)  # so that no exponential overflows
    return np.asarray(largest + np.log(np.exp(exponents - largest).mean(0)))


def _p_values(contrasts: Array, scaled: Array, level: float) -> Array:
    """Return the adjusted p-value of each series; stops early when all are clearly above the level."""
    random = np.random.default_rng(0)  # equal histories give equal verdicts
    rows, observed = np.arange(len(scaled)), _evidence(contrasts, scaled)
    exceeded, done, batch = np.zeros(len(observed)), 0, _FIRST_BATCH
    while done < _PERMUTATIONS and exceeded.min() <= level * (_PERMUTATIONS + 1):
        size = min(batch, _PERMUTATIONS - done)
        orders = random.permuted(np.tile(rows, (size, 1)), axis=1)
        # one product of matrices: rows are runs, columns are the series of all permutations
        table = scaled[orders].transpose(1, 0, 2).reshape(len(rows), -1)
        largest = _evidence(contrasts, table).reshape(size, -1).max(1)
        # permutations that move nothing must count in spite of rounding
        exceeded += (largest[:, None] >= observed - 1e-9).sum(0)
        done, batch = done + size, min(2 * batch, _MOST_BATCH)
    return np.asarray((1 + exceeded) / (1 + done))


def fitted(series: Array, weeks: Array, places: Sequence[Place]) -> list[Change]:
    """Fit all changes of a series by least squares, with Student's intervals of their sizes."""
    if not places:
        return []
    design = np.stack([_shape(place.kind, place.start, place.end, weeks) for place in places], axis=1)
    centred = series - series.mean()
    slopes = np.linalg.lstsq(design, centred, rcond=None)[0]
    errors = residual_sd(series, weeks, places) * np.sqrt(np.diag(np.linalg.pinv(design.T @ design)))
    halves = float(stdtrit(max(1, len(series) - 1 - len(places)), (1 + _CONFIDENCE) / 2)) * errors
    result = []
    for place, slope, half in zip(places, slopes.tolist(), halves.tolist(), strict=True):
        drift = place.kind == "drift"
        length = float(weeks[place.end - 1] - weeks[place.start]) if drift else 1.0
        result.append(
            Change(
                series=place.series,
                kind=place.kind,
                start=place.start,
                end=place.end,
                size=slope * length,
                low=(slope - half) * length,
                high=(slope + half) * length,
                per_week=slope if drift else None,
                p=place.p,
            )
        )
    return result


def residual_sd(series: Array, weeks: Array, places: Sequence[Place | Change]) -> float:
    """Return the standard deviation of the runs around the fitted changes: the noise between sessions."""
    residuals = series - fit(series, weeks, places)
    return float(np.sqrt(residuals @ residuals / max(1, len(series) - 1 - len(places))))


def fit(series: Array, weeks: Array, places: Sequence[Place | Change]) -> Array:
    """Return the fitted level of each run."""
    level = np.full(len(series), series.mean())
    if places:
        design = np.stack([_shape(place.kind, place.start, place.end, weeks) for place in places], axis=1)
        level += design @ np.linalg.lstsq(design, series - series.mean(), rcond=None)[0]
    return level
