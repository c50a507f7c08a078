"""Changes of a series without noise, e.g. counted joules: every difference between two runs is real, and needs no test.

─┘   one change                                  a step, with its exact size
╱    changes in the same direction, run by run   a drift, unless one of them is most of it
⩘    small changes back and forth                a drift, if the level differs in the end
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.trend import Change, Kind

_EQUAL = 1e-9  # counted work is computed in floating point
_PAUSE = 2  # unchanged runs between changes of one drift

Array = NDArray[np.float64]


def exact_changes(values: Array, weeks: Array, smallest: float) -> list[Change]:
    """Return the changes of one series, by time; they do not overlap, and their intervals have no width.

    Between two of them, before the first and after the last, the level changes by less than `smallest`. So if the last
    run is higher than the first by `smallest` or more, there is an increase among them.

    Args:
        values: Of each run, in the order of time.
        weeks: Time of each run in weeks.
        smallest: Smaller changes are reported only together, as a drift.
    """
    deltas = np.diff(values)
    found = [change for rows in _stretches(deltas, smallest) for change in _changes(rows, values, weeks, smallest)]
    return sorted([*found, *_remainders(found, values, weeks, smallest)], key=lambda change: change.end)


def _remainders(found: Sequence[Change], values: Array, weeks: Array, smallest: float) -> Iterator[Change]:
    """Yield a drift where the level before a change differs from the level after the one before it."""
    begins = [change.start if change.kind == "drift" else change.start - 1 for change in found]
    ends = [change.end - 1 for change in found]
    changed = np.flatnonzero(np.abs(np.diff(values)) > _EQUAL)
    for first, last in zip([0, *ends], [*begins, len(values) - 1], strict=True):
        if abs(values[last] - values[first]) >= smallest:
            inner = changed[(changed >= first) & (changed < last)]
            yield _change("drift", int(inner[0]), int(inner[-1]) + 1, values, weeks)


def _stretches(deltas: Array, smallest: float) -> Iterator[list[int]]:
    """Yield rows of changes in the same direction; a large change after more than `_PAUSE` unchanged runs is apart."""
    rows: list[int] = []
    for row in (np.flatnonzero(np.abs(deltas) > _EQUAL) + 1).tolist():
        before = rows[-1] if rows else None
        if before is not None:
            large = max(abs(deltas[before - 1]), abs(deltas[row - 1])) >= smallest
            if deltas[before - 1] * deltas[row - 1] < 0 or (large and row - before > _PAUSE + 1):
                yield rows
                rows = []
        rows.append(row)
    if rows:
        yield rows


def _changes(rows: Sequence[int], values: Array, weeks: Array, smallest: float) -> Iterator[Change]:
    """Yield the steps of a stretch, or its drift."""
    start, total = rows[0] - 1, abs(values[rows[-1]] - values[rows[0] - 1])
    steps = [row for row in rows if abs(values[row] - values[row - 1]) >= smallest]
    most = max(abs(values[row] - values[row - 1]) for row in rows)
    if steps and (len(rows) == 1 or most > total / 2):
        yield from (_change("step", row, row, values, weeks) for row in steps)
    elif total >= smallest:
        yield _change("drift", start, rows[-1], values, weeks)


def _change(kind: Kind, start: int, last: int, values: Array, weeks: Array) -> Change:
    before = start if kind == "drift" else start - 1
    size = float(values[last] - values[before])
    span = float(weeks[last] - weeks[before])
    return Change(
        series=0,
        kind=kind,
        start=start,
        end=last + 1,
        size=size,
        low=size,
        high=size,
        per_week=size / span if kind == "drift" and span > 0 else None,
        p=0.0,
    )
