"""Changes of a series without noise, e.g. counted joules: every difference between two runs is real, and needs no test.

─┘   one change                                  a step, with its exact size
╱    changes in the same direction, run by run   a drift, unless one of them is most of it
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
    """Return the changes of one series, by time; their intervals have no width.

    Args:
        values: Of each run, in the order of time.
        weeks: Time of each run in weeks.
        smallest: Smaller changes are reported only together, as a drift.
    """
    deltas = np.diff(values)
    found = [change for rows in _stretches(deltas, smallest) for change in _changes(rows, values, weeks, smallest)]
    if not found and len(values) > 1 and abs(values[-1] - values[0]) >= smallest:
        found = [_change("drift", 0, len(values) - 1, values, weeks)]
    return found


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
