"""Pairs of simulated logs, of a board's own sensor and of an external meter, with a known gain and offset.

Nothing of a pair is like the model of `calibrate`: drift lasts for 0.3 to 20 s, sensors average by a box, by a filter
or see a quarter of the time, readings are rounded, and the meter has noise, another clock and steps of up to 1 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perjoule.meters.logs import PowerLog
from perjoule.meters.samples import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STEP_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two logs and what is true of them."""

    external: PowerLog
    board: PowerLog
    gain: float
    offset_w: float
    shift_s: float
    averaging_s: float
    t_s: Floats
    total_j: Floats

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the true energy between two times of the board's log."""
        return float(np.diff(np.interp([begin_s, end_s], self.t_s, self.total_j))[0])


def drifting(chance: np.random.Generator, count: int, sd: float, lasts_s: float) -> Floats:
    """Return a stationary series whose correlation falls to 1/e within `lasts_s`."""
    from scipy.signal import lfilter

    keeps = float(np.exp(-STEP_S / lasts_s))
    noise = chance.normal(0, sd * np.sqrt(1 - keeps**2), count)
    noise[0] = chance.normal(0, sd)
    series: Floats = lfilter([1.0], [1.0, -keeps], noise)
    return series


def power_log(times: Floats, powers: Floats) -> PowerLog:
    """Return a log without names of a board."""
    samples = tuple(Sample(t_s=float(t), power_w=float(w)) for t, w in zip(times, powers, strict=True))
    return PowerLog(
        samples=samples, column="power.draw", columns=("power.draw",), board=None, begins_utc_s=None, source="made",
        boundary="gpu-board", provenance="simulated",
    )  # fmt: skip


def pair(seed: int) -> Pair:
    """Return a pair of logs: rests and works of 2 to 8 s, 15 to 60 s in all."""
    chance = np.random.default_rng(seed)
    gain, offset_w = float(chance.uniform(0.87, 1.15)), float(chance.uniform(-10, 20))
    rest_w, top_w = float(chance.uniform(30, 140)), float(chance.uniform(180, 450))
    powers: list[Floats] = []
    for i in range(int(chance.integers(3, 9))):
        level_w = chance.uniform(rest_w + 0.4 * (top_w - rest_w), top_w) if i % 2 else rest_w * chance.uniform(1, 1.1)
        powers.append(np.full(int(chance.uniform(2, 8) / STEP_S), level_w))
    true_w = np.concatenate(powers)
    true_w *= 1 + drifting(chance, len(true_w), chance.uniform(0.001, 0.01), 0.02)
    rise = max(int(chance.uniform(0.001, 0.1) / STEP_S), 1)  # boards do not rise at once
    true_w = np.convolve(np.pad(true_w, (rise, 0), mode="edge"), np.full(rise, 1 / rise))[rise:-rise]
    t_s: Floats = STEP_S * np.arange(len(true_w), dtype=np.float64)
    error_w = drifting(chance, len(t_s), chance.uniform(0.0005, 0.004) * top_w, np.exp(chance.uniform(-1.2, 3)))
    seen_w = (true_w - offset_w - error_w) / gain
    period_s = float(chance.choice([0.015, 0.02, 0.1]))
    kind = chance.choice(["instant", "part-time", "average", "filter"])
    averaging_s = {"instant": period_s, "part-time": period_s / 4, "average": float(chance.choice([0.5, 1.0]))}.get(
        kind, 0.0
    )
    if kind == "filter":
        lag = int(chance.uniform(0.03, 0.15) / STEP_S)
        kernel = np.exp(-np.arange(8 * lag) / lag)
    else:
        kernel = np.ones(max(int(averaging_s / STEP_S), 1))
    width = len(kernel)
    shown_w = np.convolve(np.pad(seen_w, (width, 0), mode="edge"), kernel / kernel.sum())[width : width + len(seen_w)]
    refresh = int(period_s / STEP_S)
    at = np.arange(int(chance.integers(0, refresh)), len(t_s), refresh)
    noise_w = chance.normal(0, chance.uniform(0.0002, 0.003) * top_w, len(at))
    quantum_w = float(chance.choice([0.01, 0.1, 0.5]))
    readings = np.round((shown_w[at] + noise_w) / quantum_w) * quantum_w
    poll_s = float(chance.choice([0.007, 0.02, 0.1]))
    polls: Floats = np.arange(at[0] * STEP_S, t_s[-1], poll_s, dtype=np.float64)
    last = np.searchsorted(at * STEP_S, polls, side="right") - 1
    shift_s = float(chance.uniform(-4, 4))
    every = round(float(chance.choice([0.001, 0.01, 0.1, 1.0])) / STEP_S)
    count = len(t_s) // every
    means_w = true_w[: count * every].reshape(count, every).mean(axis=1)
    means_w = means_w + chance.normal(0, 0.002 * top_w, count)
    middles: Floats = np.asarray(STEP_S * every * (np.arange(count) + 0.5) + shift_s, dtype=np.float64)
    return Pair(
        external=power_log(middles, means_w),
        board=power_log(polls, readings[last]),
        gain=gain,
        offset_w=offset_w,
        shift_s=shift_s,
        averaging_s=averaging_s if kind == "average" else 0.0,
        t_s=t_s,
        total_j=np.concatenate([[0.0], np.cumsum((true_w[1:] + true_w[:-1]) / 2 * STEP_S)]),
    )
