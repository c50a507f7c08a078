"""Power over time: which samples belong to which phase of the pipeline, and how many joules each phase took.

    one window          |te|pr|------ denoise ------|-- vae --|host|
    samples         x   x   x   x   x   x   x   x   x   x   x   x

A run records how long each phase took, not when. A pipeline call has a fixed order, so the phases are laid end to end
in that order. `host` is the time outside of the networks: most of it is spent on the finished images, and a smaller
part, tokens and scheduler, lies between the others. Runs of earlier versions did not record it: there the rest of the
window counts as denoising. A window of n calls repeats the pattern n times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.types import Conditions
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.format import clean, finite
from perjoule_reports.records import RunData

Floats = NDArray[np.float64]

FIRST, LAST = ("text_encoder", "predictor"), ("vae_decode", "host")
REST = "denoise"
MOST_POINTS = 1000
MOST_WINDOWS = 50  # per cell; the mean does not need more


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A part of a window, in seconds from its start."""

    phase: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerWindow:
    """One window with samples; times in s from its start."""

    trial_id: str
    arm: Arm
    t_s: Floats
    power_w: Floats
    source: str
    duration_s: float
    image_count: int
    idle_w: float | None
    energy_j: float | None
    bands: tuple[Band, ...]
    conditions: tuple[Conditions, ...] = ()

    @property
    def refresh_s(self) -> float:
        """Refresh of the sensor: the shortest time between two changes, at least the time between two samples."""
        if len(self.t_s) < 2:
            return self.duration_s
        apart_s = float(np.median(np.diff(self.t_s)))
        changes = self.t_s[np.flatnonzero(np.diff(self.power_w)) + 1]
        return max(apart_s, float(np.diff(changes).min())) if len(changes) > 1 else apart_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """The columns of a window that are read here."""

    trial_id: str
    cell_id: str
    duration_s: float
    images: int | None
    iterations: int | None
    idle_power_w: float | None
    energy_j: float | None
    phases_s: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnergy:
    """Cost of a phase: seconds, joules, and the bound on the joules, since both ends of its bands are uncertain."""

    seconds: float
    energy_j: float
    bound_j: float


def power_windows(run: RunData, evidence: Evidence) -> list[PowerWindow]:
    """Read the windows with at least two samples, at most `MOST_WINDOWS` per cell, in the order of the arms."""
    if run.power.is_empty():
        return []
    sampled = run.power.filter(pl.col("t_s").is_finite() & pl.col("power_w").is_finite())
    counted = sampled.group_by("trial_id").len().filter(pl.col("len") > 1)
    trials = (
        run.windows.join(counted, on="trial_id", how="semi")
        .sort("trial_id")
        .group_by("cell_id", maintain_order=True)
        .head(MOST_WINDOWS)
    )
    of_trials = sampled.join(trials, on="trial_id", how="semi")
    samples = {str(key[0]): part.sort("t_s") for key, part in of_trials.partition_by("trial_id", as_dict=True).items()}
    conditions: dict[str, list[Conditions]] = {}
    for trial_id, board in run.devices:
        if trial_id in samples and board.conditions is not None:
            conditions.setdefault(trial_id, []).append(board.conditions)
    arms = {arm.cell_id: arm for arm in evidence.arms}
    rows = [_Row(**row) for row in trials.select(field.name for field in fields(_Row)).iter_rows(named=True)]
    windows = [
        _window(row, arms[row.cell_id], samples[row.trial_id], conditions.get(row.trial_id, []))
        for row in rows
        if row.cell_id in arms and finite(row.duration_s)
    ]
    order = {arm.cell_id: i for i, arm in enumerate(evidence.arms)}
    return sorted(windows, key=lambda w: (order[w.arm.cell_id], w.trial_id))


def bands(seconds: Mapping[str, float], duration_s: float, calls: int) -> tuple[Band, ...]:
    """Lay the phases of `calls` equal pipeline calls end to end over a window; empty without seconds."""
    if not seconds or duration_s <= 0 or calls < 1:
        return ()
    call_s = duration_s / calls
    lengths = {name: seconds[name] for name in (*FIRST, *_between(seconds), *LAST) if name in seconds}
    rest_s = call_s - sum(lengths.values())
    if rest_s < 0:  # phases overlap, or clocks disagree
        lengths = {name: s * call_s / sum(lengths.values()) for name, s in lengths.items()}
    elif REST in lengths:
        lengths[REST] += rest_s
    else:
        lengths |= {"rest": rest_s}
    laid, now_s = [], 0.0
    for _ in range(calls):
        for name, length_s in lengths.items():
            laid.append(Band(phase=name, begin_s=now_s, end_s=now_s + length_s))
            now_s += length_s
    return tuple(laid)


def phase_energies(window: PowerWindow) -> dict[str, PhaseEnergy]:
    """Divide the joules of a window among its phases by the samples.

    A sample covers the refresh before it. The bound is found by moving each end of a phase by one refresh.
    """
    if not window.bands:
        return {}
    total_j = _integral(window, 0.0, window.duration_s)
    if total_j <= 0:
        return {}
    scale = 1.0 if window.energy_j is None else window.energy_j / total_j
    slip_s = window.refresh_s
    costs: dict[str, PhaseEnergy] = {}
    for band in window.bands:
        energy_j = scale * _integral(window, band.begin_s, band.end_s)
        bound_j = 0.0
        for end_s, inner in ((band.begin_s, 0.0), (band.end_s, window.duration_s)):
            if end_s == inner:
                continue  # the ends of the window itself are known
            around = _integral(window, end_s - slip_s, end_s), _integral(window, end_s, end_s + slip_s)
            bound_j += scale * abs(around[1] - around[0])
        before = costs.get(band.phase, PhaseEnergy(seconds=0.0, energy_j=0.0, bound_j=0.0))
        costs[band.phase] = PhaseEnergy(
            seconds=before.seconds + band.end_s - band.begin_s,
            energy_j=before.energy_j + energy_j,
            bound_j=before.bound_j + bound_j,
        )
    return costs


def thinned(t_s: Floats, power_w: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """Return at most `most` points in order of time, keeping the lowest and the highest of every interval."""
    count = len(t_s)
    if count <= most:
        return t_s, power_w
    places = []
    for stretch in np.array_split(np.arange(count), most // 2):
        low, high = stretch[np.argmin(power_w[stretch])], stretch[np.argmax(power_w[stretch])]
        places += sorted({int(low), int(high)})
    return t_s[places], power_w[places]


def _between(seconds: Mapping[str, float]) -> list[str]:
    return sorted((n for n in seconds if n not in (*FIRST, *LAST)), key=lambda n: (n == REST, n))


def _window(row: _Row, arm: Arm, samples: pl.DataFrame, conditions: Sequence[Conditions]) -> PowerWindow:
    t_s, power_w, source = samples.select("t_s", "power_w", "source").get_columns()
    return PowerWindow(
        trial_id=row.trial_id,
        arm=arm,
        t_s=t_s.to_numpy(),
        power_w=power_w.to_numpy(),
        source=str(source[0] or "unknown source"),
        duration_s=row.duration_s,
        image_count=row.images or 0,
        idle_w=finite(row.idle_power_w),
        energy_j=finite(row.energy_j),
        bands=bands(_phases(row.phases_s), row.duration_s, row.iterations or 1),
        conditions=tuple(conditions),
    )


def _phases(stored: str | None) -> dict[str, float]:
    """Return the seconds per pipeline phase of a trial."""
    seconds = {clean(name): finite(value) for name, value in json.loads(stored or "{}").items()}
    return {name: value for name, value in seconds.items() if value}


def _integral(window: PowerWindow, begin_s: float, end_s: float) -> float:
    """Return the joules of the samples between two times; a sample covers the time since the previous one."""
    begin_s, end_s = max(begin_s, 0.0), min(end_s, window.duration_s)
    if end_s <= begin_s:
        return 0.0
    edges = np.concatenate(([0.0], window.t_s[:-1], [window.duration_s])).clip(begin_s, end_s)
    return float(np.sum(np.diff(edges) * window.power_w))
