"""perjoule's own claims, tried on simulated boards on virtual time: thousands of windows in seconds.

Everything but time is as in the comparison with other tools: the ordinary binding, the compiled library, noise, and a
cost for each call. What is missing is the scheduler of a real machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean, median
from typing import Any

from perjoule.meters.nvml import open_nvml
from perjoule.testing import Bursts, ConstantPower, NvmlSimulator, SimulatedBoard, SquareWave, StepLog
from perjoule.types import EnergyReading

IDLE_W, WORK_W = 60.0, 300.0
CALL_S = 2e-5  # 2 to 20 us are usual
PERIODS_S = (0.01, 0.02, 0.05, 0.1, 0.2)
WAVES: dict[str, Any] = {
    "idle-work-idle": StepLog(start_w=IDLE_W),
    "constant": ConstantPower(200.0),
    "square 1 s": SquareWave(low_w=IDLE_W, high_w=WORK_W, period_s=1.0),
    "square 200 ms": SquareWave(low_w=IDLE_W, high_w=WORK_W, period_s=0.2),
    "square 37 ms": SquareWave(low_w=IDLE_W, high_w=WORK_W, period_s=0.037),
    "bursts 15 ms": Bursts(low_w=IDLE_W, high_w=WORK_W, burst_s=0.015, slot_s=0.3, seed=7),
}


def summary(folder: Path, quick: bool) -> dict[str, Any]:
    """All of it in numbers, for the page."""
    cells = coverage(folder, 10 if quick else 100)
    every = [one for found in cells.values() for one in found]
    claimed = claims(folder, 20 if quick else 200)
    sure = [one for one in claimed if not any(said.startswith("W201") for said in one.reading.warnings)]
    return {
        **_held(every),
        "no_number": sum(one.reading.energy_j is None for one in every),
        "cells": [{"period_s": period_s, "wave": wave, **_held(found)} for (period_s, wave), found in cells.items()],
        "accuracy": [
            {"length_s": length_s, "windows": len(found), **_relative(found)}
            for length_s in (0.05, 0.1, 0.2, 1.0, 5.0, 30.0)
            for found in [accuracy(folder, length_s, 20 if quick else 200)]
        ],
        "claims": {
            "windows": len(claimed),
            "claimed": len(sure),
            "false": sum(abs(one.error_j) > 0.01 * one.truth_j for one in sure),
        },
    }


def _held(found: Sequence[Tried]) -> dict[str, Any]:
    errors = sorted(abs(one.error_j) for one in found)
    return {
        "windows": len(found),
        "covered": sum(one.covered for one in found) / len(found),
        "median_bound_j": median(one.reading.uncertainty_j for one in found if one.reading.uncertainty_j is not None),
        "p95_j": errors[ceil(0.95 * len(errors)) - 1],
    }


def _relative(found: Sequence[Tried]) -> dict[str, float]:
    errors = [100 * one.error_j / one.truth_j for one in found]
    return {"mean": fmean(errors), "largest": max(map(abs, errors))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A window beside its truth."""

    truth_j: float
    reading: EnergyReading

    @property
    def error_j(self) -> float:
        """Energy less truth; all of it if there is no energy."""
        return (self.reading.energy_j or 0.0) - self.truth_j

    @property
    def covered(self) -> bool:
        """Whether the truth lies within the stated bound."""
        bound_j = self.reading.uncertainty_j
        return self.reading.energy_j is not None and bound_j is not None and abs(self.error_j) <= bound_j


class Bench:
    """A simulated board with an open meter."""

    def __init__(self, simulator: NvmlSimulator, meter: Any, chance: random.Random) -> None:
        self.simulator, self.meter, self._chance = simulator, meter, chance
        self._works = isinstance(simulator.boards[0].wave, StepLog)

    def window(self, length_s: float, **options: Any) -> Tried:
        """A rest, and a window of exactly that length; on a board that rests, work fills it."""
        simulator = self.simulator
        simulator.sleep(self._chance.uniform(0.3, 0.5))
        with self.meter.window(**options) as window:
            begun_s = simulator.set_power(0, WORK_W) if self._works else simulator.now()
            simulator.sleep(length_s)
            ended_s = simulator.set_power(0, IDLE_W) if self._works else simulator.now()
        return Tried(truth_j=simulator.energy_j(0, begun_s, ended_s), reading=window.reading)


@contextmanager
def bench(folder: Path, wave: str = "idle-work-idle", seed: int = 1, **board: Any) -> Iterator[Bench]:
    """Open a meter on a board that draws `wave`; its counter's phase, and that of the wave, are drawn by `seed`."""
    chance = random.Random(seed)
    period_s = board.get("counter_period_s", 0.1)
    board = {
        "noise_w": 1.5,
        "seed": seed,
        "counter_phase_s": chance.uniform(0, period_s),
        "power_phase_s": chance.uniform(0, 0.1),
        "wave_phase_s": chance.uniform(0, 1),
    } | board
    simulated = SimulatedBoard(wave=WAVES[wave], **board)
    with (
        NvmlSimulator([simulated], folder, virtual=True, call_cost_s=CALL_S) as simulator,
        open_nvml(nvml=simulator.load(), clock=simulator, environ={}, chance=random.Random(seed)) as meter,
    ):
        yield Bench(simulator, meter, chance)


def accuracy(folder: Path, length_s: float, count: int, seed: int = 1) -> list[Tried]:
    """Work between rests, 60 and 300 W, counter refreshed every 100 ms, idle noise 1.5 W, windows W + U(0, 100 ms)."""
    chance = random.Random(seed)
    with bench(folder, seed=seed) as opened:
        return [opened.window(length_s + chance.uniform(0, 0.1)) for _ in range(count)]


def coverage(folder: Path, count: int, seed: int = 1) -> dict[tuple[float, str], list[Tried]]:
    """(counter period, wave) -> `count` windows of 50 ms to 5 s, evenly drawn on a logarithmic scale."""
    chance = random.Random(seed)
    found = {}
    for number, period_s in enumerate(PERIODS_S):
        for place, wave in enumerate(WAVES):
            with bench(folder, wave, seed=seed + 100 * number + place, counter_period_s=period_s) as opened:
                found[period_s, wave] = [opened.window(0.05 * 100 ** chance.random()) for _ in range(count)]
    return found


def claims(folder: Path, count: int, seed: int = 1) -> list[Tried]:
    """Windows of about 200 ms that are asked for 1 %, on all waves in turn."""
    chance = random.Random(seed)
    found = []
    for place, wave in enumerate(WAVES):
        with bench(folder, wave, seed=seed + place) as opened:
            for _ in range(-(-count // len(WAVES))):
                found.append(opened.window(0.2 + chance.uniform(0, 0.1), max_uncertainty=0.01))
    return found[:count]
