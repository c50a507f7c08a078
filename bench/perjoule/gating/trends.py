"""Trends of a history: drifts and steps of energy and quality that no single gate shows.

Only runs with the same suite, prompts, device, meter, boundary, provenance and metric are compared. The series are
ln J/image and quality of each cell, and their means over the cells; `perjoule.statistics.trend` tests all of them with
one p-value. Counted joules repeat exactly: `perjoule.statistics.exact_changes` reports their changes without a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perjoule.gating.history import History, LoggedRun, Series, when
from perjoule.gating.series import began_with, labels
from perjoule.statistics import trend
from perjoule.statistics.exact_changes import exact_changes

Axis = Literal["energy", "quality"]
TrendVerdict = Literal["worse", "changed", "stable", "too few runs"]
ALL_CELLS = "all cells"
# smaller changes are not reported: a fifth of the gate's default margin on energy, and of the metric's margin
SMALLEST_ENERGY = 0.01
_MARGIN_SHARE = 0.2
_WEEK_S = 7 * 86_400
_FEWEST_COUNTED = 2

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendChange:
    """A step or a drift of one series.

    Attributes:
        axis: `energy` or `quality`.
        cell: Its cell, or `all cells` for the mean over cells.
        kind: `step` or `drift`.
        date: Date of the first run after the step, or of the run at which the drift starts.
        commit: Commit of that run.
        run: Id of that run.
        size: Share of J/image, or quality in units of the metric; of a drift, from its start to its last run.
        low: Lower end of the 95 % interval, for a given date; None for counted joules, whose changes are exact.
        high: Upper end.
        per_week: Drift per week, in the unit of `size`.
        p: P-value for no change in any series; 0 for counted joules, which have no noise.
        worse: Whether it is for the worse.
        conditions: Conditions that changed with a step, e.g. `diffusers 0.38.0 → 0.39.0`.
    """

    axis: Axis
    cell: str
    kind: trend.Kind
    date: str
    commit: str | None
    run: str
    size: float
    low: float | None
    high: float | None
    per_week: float | None
    p: float
    worse: bool
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend(Series):
    """The trend of comparable runs.

    Attributes:
        verdict: `worse` if the changes of energy or quality add up to one for the worse, `changed` if they do not, e.g.
            after an improvement.
        sentence: The verdict in words.
        runs: Number of runs, since the last accepted change.
        first: Date of the first of them.
        last: Date of the last.
        weeks: Time between them.
        session_sd: Standard deviation of ln J/image between runs, around the changes; None for counted work, and with
            fewer than three runs.
        accepted: Reason of the acceptance at which the trend starts.
        skipped: Cells that are not tested, because not every run has their joules.
        label: What distinguishes it from other trends of the same title, e.g. `steps 4`.
        began_with: What changed when it began after runs of the same title, e.g. `steps 3 → 4`.
        changes: Changes found, by series and time.
    """

    verdict: TrendVerdict
    sentence: str
    runs: int
    first: str
    last: str
    weeks: float
    session_sd: float | None
    accepted: str | None
    skipped: tuple[str, ...]
    label: tuple[str, ...]
    began_with: tuple[str, ...]
    changes: tuple[TrendChange, ...]

    @property
    def title(self) -> str:
        """Suite, device and kind of joules, as far as they are known, and what distinguishes it from other trends."""
        provenance = "provenance not stated" if self.provenance == "not stated" else self.provenance
        facts = (self.suite, self.device, self.boundary, provenance, *self.label)
        return ", ".join(fact for fact in facts if fact and fact != "not stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLog:
    """What `baseline log` prints.

    Attributes:
        history: File of the history.
        logged: Id of the run that was logged.
        added: Whether a line was written; False if the history had the run as it is.
        accepted: What was accepted, in words.
        runs: Number of runs in the history.
        trends: That of the newest run first.
    """

    history: Path
    logged: str | None
    added: bool
    accepted: str | None
    runs: int
    trends: tuple[Trend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a figure of a trend shows: the mean over cells in each run, and the fitted level.

    Attributes:
        trend: The trend.
        dates: Date of each run.
        energy_j: Geometric mean of J/image over the cells.
        energy_fit_j: Its fitted level.
        quality: Mean quality over the cells; empty without quality.
        quality_fit: Its fitted level.
    """

    trend: Trend
    dates: tuple[datetime, ...]
    energy_j: tuple[float, ...]
    energy_fit_j: tuple[float, ...]
    quality: tuple[float, ...]
    quality_fit: tuple[float, ...]


def trends(history: History) -> list[Trend]:
    """Return the trend of each series, that of the newest run first."""
    return [course.trend for course in courses(history)]


def courses(history: History) -> list[Course]:
    """Return the trends with what a figure of them shows, that of the newest run first."""
    groups: dict[Series, list[LoggedRun]] = {}
    for run in history.runs:
        groups.setdefault(run.series, []).append(run)
    newest = sorted(groups.values(), key=lambda runs: runs[-1].time, reverse=True)
    return [_course(runs, history, label) for runs, label in zip(newest, labels(newest), strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """A series: its axis, its cell, and a value per run (ln J/image, or quality)."""

    axis: Axis
    cell: str
    values: Array


def _course(runs: list[LoggedRun], history: History, label: tuple[str, ...]) -> Course:
    began = began_with(runs, history.runs)
    accepted = [line for line in history.accepted if line.suite == runs[0].suite]
    reason = None
    for line in accepted:
        rest = [run for run in runs if run.time >= when(line.since)]
        if rest and len(rest) < len(runs):
            runs, reason = rest, line.reason
    weeks = np.array([(run.time - runs[0].time).total_seconds() / _WEEK_S for run in runs])
    series, skipped = _series(runs)
    found = _found(series, weeks, counted=runs[0].counted, margin=runs[-1].margin)
    changes = [_change(series[change.series], change, runs) for change in found]
    means = {entry.axis: (n, entry) for n, entry in reversed(list(enumerate(series)))}
    fits = {
        axis: entry.values
        if runs[0].counted and axis == "energy"
        else trend.fit(entry.values, weeks, [change for change in found if change.series == n])
        for axis, (n, entry) in means.items()
    }
    energies = means["energy"][1].values if "energy" in means else np.array([])
    sd = None
    if energies.size and len(runs) > 2 and not runs[0].counted:
        changed = [change for change in found if change.series == means["energy"][0]]
        sd = trend.residual_sd(energies, weeks, changed)
    fewest = _FEWEST_COUNTED if runs[0].counted else trend.FEWEST_RUNS
    verdict: TrendVerdict = "too few runs" if len(runs) < fewest else "stable"
    if found:
        worse = _net_worse(series, found, runs)
        verdict = "worse" if worse else "changed"
    newest = runs[-1]
    made = Trend(
        **asdict(newest.series),
        verdict=verdict, sentence=_sentence(changes, runs, weeks, fewest), runs=len(runs), first=runs[0].date,
        last=newest.date, weeks=float(weeks[-1]), session_sd=sd, accepted=reason,
        skipped=skipped, label=label, began_with=() if reason else began, changes=tuple(changes),
    )  # fmt: skip
    quality = means["quality"][1].values if "quality" in means else np.array([])
    return Course(
        trend=made,
        dates=tuple(run.time for run in runs),
        energy_j=tuple(np.exp(energies).tolist()),
        energy_fit_j=tuple(np.exp(fits["energy"]).tolist()) if energies.size else (),
        quality=tuple(quality.tolist()),
        quality_fit=tuple(fits["quality"].tolist()) if quality.size else (),
    )


def _series(runs: Sequence[LoggedRun]) -> tuple[list[_Series], tuple[str, ...]]:
    """Return the series, the mean over cells first on each axis, and the cells that lack joules in some run."""
    names = sorted({cell for run in runs for cell in run.cells})
    series: list[_Series] = []
    skipped: tuple[str, ...] = ()
    for axis in ("energy", "quality"):
        columns = {name: [_value(run, name, axis) for run in runs] for name in names}
        full = {n: np.array(column, dtype=float) for n, column in columns.items() if None not in column}
        if axis == "energy":
            skipped = tuple(name for name in names if name not in full)
        entries = [_Series(axis=axis, cell=name, values=values) for name, values in full.items()]
        if len(full) > 1:
            mean = np.mean(list(full.values()), axis=0)
            entries.insert(0, _Series(axis=axis, cell=ALL_CELLS, values=mean))
        series += entries
    return series, skipped


def _value(run: LoggedRun, name: str, axis: Axis) -> float | None:
    cell = run.cells.get(name)
    if cell is None or axis == "quality":
        return None if cell is None else cell.quality
    return math.log(cell.energy_j) if cell.energy_j is not None and cell.energy_j > 0 else None


def _found(series: Sequence[_Series], weeks: Array, *, counted: bool, margin: float | None) -> list[trend.Change]:
    """Return the changes of all series that are large enough to report."""
    exact = [n for n, entry in enumerate(series) if counted and entry.axis == "energy"]
    noisy = [n for n in range(len(series)) if n not in exact]
    least = _smallest("energy", None)
    changes = [replace(change, series=n) for n in exact for change in exact_changes(series[n].values, weeks, least)]
    if noisy:
        table = np.stack([series[n].values for n in noisy], axis=1)
        changes += [replace(change, series=noisy[change.series]) for change in trend.changes(table, weeks)]
    return [change for change in changes if abs(change.size) >= _smallest(series[change.series].axis, margin)]


def _smallest(axis: Axis, margin: float | None) -> float:
    return math.log1p(SMALLEST_ENERGY) if axis == "energy" else _MARGIN_SHARE * (margin or 0.0)


def _net_worse(series: Sequence[_Series], found: Iterable[trend.Change], runs: Sequence[LoggedRun]) -> bool:
    """Return whether the changes of a series add up to a change for the worse, beyond the error of their sizes.

    Counted joules have no error: those of the last run are compared with those of the first, because changes that are
    too small to report, between reported ones, add up too.
    """
    totals: dict[int, tuple[float, float]] = {}
    for change in found:
        total, half = totals.get(change.series, (0.0, 0.0))
        totals[change.series] = total + change.size, math.hypot(half, (change.high - change.low) / 2)
    newest = runs[-1]
    for n in totals:
        if runs[0].counted and series[n].axis == "energy":
            totals[n] = float(series[n].values[-1] - series[n].values[0]), 0.0
    return any(
        _sign(series[n].axis, newest) * total >= max(half, _smallest(series[n].axis, newest.margin))
        for n, (total, half) in totals.items()
    )


def _sign(axis: Axis, run: LoggedRun) -> float:
    """Return +1 if larger values are worse."""
    return 1.0 if axis == "energy" or not run.higher else -1.0


def _change(entry: _Series, change: trend.Change, runs: Sequence[LoggedRun]) -> TrendChange:
    shown = math.expm1 if entry.axis == "energy" else float
    run, before = runs[change.start], runs[max(0, change.start - 1)]
    exact = entry.axis == "energy" and run.counted
    return TrendChange(
        axis=entry.axis,
        cell=entry.cell,
        kind=change.kind,
        date=run.date,
        commit=run.commit,
        run=run.id,
        size=shown(change.size),
        low=None if exact else shown(change.low),
        high=None if exact else shown(change.high),
        per_week=None if change.per_week is None else shown(change.per_week),
        p=change.p,
        worse=_sign(entry.axis, run) * change.size > 0,
        conditions=_different(before, run) if change.kind == "step" else (),
    )


def _different(before: LoggedRun, after: LoggedRun) -> tuple[str, ...]:
    names = sorted(before.conditions.keys() | after.conditions.keys())
    pairs = [(name, before.conditions.get(name, "none"), after.conditions.get(name, "none")) for name in names]
    return tuple(f"{name} {old} → {new}" for name, old, new in pairs if old != new)


def _sentence(changes: Sequence[TrendChange], runs: Sequence[LoggedRun], weeks: Array, fewest: int) -> str:
    span = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    if not changes:
        if len(runs) < fewest:
            return f"{span}: a trend needs {fewest}."
        return f"No change in {span} over {weeks[-1]:.0f} weeks."
    return in_words(main_changes(changes)[0])


def main_changes(changes: Sequence[TrendChange]) -> list[TrendChange]:
    """Return the changes to print, the most important first: not those of cells that the mean over cells shares."""
    shared = {(change.axis, change.kind, change.date) for change in changes if change.cell == ALL_CELLS}
    chosen = [c for c in changes if c.cell == ALL_CELLS or (c.axis, c.kind, c.date) not in shared]
    return sorted(chosen, key=lambda change: (not change.worse, change.cell != ALL_CELLS, change.axis != "energy"))


def in_words(change: TrendChange) -> str:
    """Return a change as a sentence, e.g. `Quality rose by 0.02 [+0.01, +0.03] at the run of 2026-03-02.`."""
    what = "Energy per image" if change.axis == "energy" else "Quality"
    where = "" if change.cell == ALL_CELLS else f" of {change.cell}"
    verb = "rose" if change.size > 0 else "fell"
    sizes = _amount(change.size, change.axis).lstrip("+-")
    if change.low is not None and change.high is not None:
        sizes += f" [{_amount(change.low, change.axis)}, {_amount(change.high, change.axis)}]"
    commit = f", commit {change.commit[:7]}" if change.commit else ""
    if change.kind == "drift":
        slope = "" if change.per_week is None else f" by {_amount(change.per_week, change.axis)} per week"
        return f"{what}{where} drifts{slope} since {change.date[:10]}{commit}: it {verb} by {sizes}."
    cause = f" ({'; '.join(change.conditions)})" if change.conditions else ""
    return f"{what}{where} {verb} by {sizes} at the run of {change.date[:10]}{commit}{cause}."


def _amount(value: float, axis: Axis) -> str:
    return f"{100 * value:+.1f} %" if axis == "energy" else f"{value:+.3g}"
