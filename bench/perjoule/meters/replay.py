"""Replays a stored power trace: each window gets the next part of the trace, as long as the window.

    trace    ├───────────────┼──────────┼─────────────────────────┤
               window 1         window 2      window 3 …             past the end: no number

Time between windows does not use the trace, so a replay gives the same joules whatever the duration of the set-up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, cast, get_args

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.types import PROVENANCES, Boundary, EnergyReading, PowerTrace, Provenance, weakest

COLUMNS = "t_s,power_w, optionally trial_id, source, boundary, provenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrace:
    """A power trace on one time axis that starts at 0; power is linear between samples."""

    t_s: tuple[float, ...]
    power_w: tuple[float, ...]
    source: str
    boundary: Boundary
    provenance: Provenance

    def power_at_w(self, t_s: float) -> float:
        """Return power in W at a time inside the trace; between two trials, that of the later one."""
        right = min(bisect_right(self.t_s, t_s), len(self.t_s) - 1)
        left = right - 1
        span_s = self.t_s[right] - self.t_s[left]
        if span_s <= 0:
            return self.power_w[right]
        share = (t_s - self.t_s[left]) / span_s
        return self.power_w[left] + share * (self.power_w[right] - self.power_w[left])

    def cut(self, begin_s: float, end_s: float) -> tuple[list[float], list[float]]:
        """Return the samples from `begin_s` to `end_s`, with interpolated ones at both ends."""
        first, last = bisect_right(self.t_s, begin_s), bisect_left(self.t_s, end_s)
        times = [begin_s, *self.t_s[first:last], end_s]
        powers = [self.power_at_w(begin_s), *self.power_w[first:last], self.power_at_w(end_s)]
        return times, powers


def read_trace(file: Path) -> StoredTrace:
    """Read CSV or Parquet with the columns of `power.parquet`; trials are joined in the order of the file.

    Raises a MeterError with file, row and column if the trace cannot be used.
    """
    rows = _rows(file)
    if len(rows) < 2:
        raise MeterError(f"replay: {file} has {len(rows)} samples, at least 2 are needed; columns: {COLUMNS}")
    times: list[float] = []
    powers: list[float] = []
    offset_s, trial, last_s = 0.0, object(), 0.0
    for number, row in enumerate(rows, start=1):
        t_s, power_w = (_number(row[column], column, file, number) for column in ("t_s", "power_w"))
        if power_w < 0:
            raise MeterError(f"replay: {file}, sample {number}: power_w is {power_w:g}, below 0")
        if row.get("trial_id") != trial:
            trial = row.get("trial_id")
            offset_s = (times[-1] if times else 0.0) - t_s
        elif t_s <= last_s:
            raise MeterError(
                f"replay: {file}, sample {number}: t_s is {t_s:g} after {last_s:g}; times must increase in a trial"
            )
        last_s = t_s
        times.append(t_s + offset_s)
        powers.append(power_w)
    if not times[-1] > 0:
        raise MeterError(f"replay: {file} has no duration: every trial has a single sample")
    provenances = _words(rows, "provenance", PROVENANCES, file)
    boundaries = _words(rows, "boundary", get_args(Boundary), file) or {"estimate"}
    if len(boundaries) > 1:
        raise MeterError(f"replay: {file} mixes boundaries {', '.join(sorted(boundaries))}; split it")
    sources = sorted({str(row["source"]) for row in rows if row.get("source")})
    return StoredTrace(
        t_s=tuple(times),
        power_w=tuple(powers),
        source=", ".join(sources) or "unknown source",
        boundary=cast(Boundary, boundaries.pop()),
        provenance=weakest(provenances) or "simulated",
    )


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise MeterError(f"replay: {file} is not a file; give a trace as replay:FILE (columns: {COLUMNS})")
    import polars  # takes a tenth of a second, so it is imported only if a table is read

    try:
        if file.suffix.lower() in {".parquet", ".pq"}:
            table = polars.read_parquet(file)
        else:
            table = polars.read_csv(file, infer_schema_length=None, comment_prefix="#")
    # polars panics, which is not an Exception, on some damaged bytes
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__  # the other lines are about polars
        raise MeterError(f"replay: {file} cannot be read: {reason}; columns: {COLUMNS}") from error
    absent = [column for column in ("t_s", "power_w") if column not in table.columns]
    if absent:
        has = ", ".join(table.columns) or "none"
        raise MeterError(f"replay: {file} has no column {' and '.join(absent)}; it has {has}; columns: {COLUMNS}")
    return table.to_dicts()


def _number(value: Any, column: str, file: Path, number: int) -> float:
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = float("nan")
    if not isfinite(result):
        raise MeterError(f"replay: {file}, sample {number}: {column} is {value!r}, a finite number is needed")
    return result


def _words(rows: list[dict[str, Any]], column: str, allowed: tuple[str, ...], file: Path) -> set[str]:
    """Return the distinct texts of a column, empty if the column is missing."""
    words = {str(row[column]) for row in rows if row.get(column) is not None}
    strange = sorted(words.difference(allowed))
    if strange:
        raise MeterError(f"replay: {file}: {column} is {strange[0]!r}, must be one of {', '.join(allowed)}")
    return words


class ReplayMeter(BaseMeter[float]):
    """Meter whose windows read a stored trace.

    The bound is the uncertainty between the samples of the trace: half of each change times its interval. It does not
    include the errors of the trace itself.
    """

    def __init__(self, file: Path | str, clock: Clock | None = None) -> None:
        """Read the trace. Raises MeterError if it cannot be used."""
        self._file = Path(file)
        self._trace = read_trace(self._file)
        self._cursor_s = 0.0
        super().__init__(
            name=f"replay:{file}",
            why=f"replays {self._trace.t_s[-1]:.3f} s of stored power from {file}, without measurement",
            boundary=self._trace.boundary,
            provenance=self._trace.provenance,
            clock=clock,
        )

    @property
    def method(self) -> str:
        """Description of the source: the file and its own source."""
        return f"replay of {self._file.name} ({self._trace.source})"

    def learn_idle(self, seconds: float) -> float | None:
        """Return None: a stored trace does not record when its device was at rest."""
        return None

    def _begin(self) -> float:
        return self._cursor_s

    def _end(self, state: float, started_s: float, stopped_s: float) -> EnergyReading:
        end_s = state + stopped_s - started_s
        length_s = self._trace.t_s[-1]
        self._cursor_s = min(end_s, length_s)
        if end_s > length_s:
            raise Fault("W240", f"the window needs {state:.3f} to {end_s:.3f} s of a trace of {length_s:.3f} s")
        times, powers = self._trace.cut(state, end_s)
        pieces = list(zip(pairwise(times), pairwise(powers), strict=True))
        energy_j = sum((right - left) * (one + other) / 2 for (left, right), (one, other) in pieces)
        bound_j = sum((right - left) * abs(other - one) / 2 for (left, right), (one, other) in pieces)
        trace = PowerTrace(t_s=tuple(t_s - state for t_s in times), power_w=tuple(powers), source=self._trace.source)
        return replace(self._reading(energy_j, bound_j, started_s, stopped_s), trace=trace)
