"""Windows on the recorded power of real boards: what the meter says next to what an external meter saw.

A recording (see `load`) has the power of a board at rest, at work and at rest again, at 4.9 kHz. It is played by a
simulated board, whose counter the meter reads through the ordinary binding. A window is work of its length, cut out of
the middle of the recorded work, so that rise and fall are the recorded ones, and so is the rest that follows.

    python -m tests.benchmarks.meters.recorded [--windows N] [--lag S] [--box S] [BOARD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import polars as pl

from perjoule.meters.nvml import open_nvml
from perjoule.testing import NvmlSimulator, SimulatedBoard, StepLog
from tests.benchmarks.meters.virtual import CALL_S, Tried

BOARDS = Path(os.environ.get("PERJOULE_BOARDS") or Path(__file__).resolve().parents[3].parent / "shared/data/boards")
PERIODS_S = (0.02, 0.05, 0.1)
LENGTHS_S = (0.05, 5.0)
RESTS_S = (0.2, 4.0)  # between windows: some boards come to rest only after two seconds
FINE_S, WORK_S, REST_S = 0.0002, 0.005, 0.02  # resolution of what is played: near jumps, in work, in rest
NEAR_S = 0.015
Trace = tuple[list[float], list[float]]  # times in s, and powers in W from each time on
TRAIN = 10  # bursts, from which a clock's drift can be seen
REST_PLAYED_S = 4.5


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded board: power over time, and the times between which the host kept it busy."""

    name: str
    t_s: np.ndarray
    power_w: np.ndarray
    total_j: np.ndarray
    busy_s: tuple[tuple[float, float], ...]

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Energy between two times of the recording."""
        return float(np.diff(np.interp([begin_s, end_s], self.t_s, self.total_j))[0])

    def cut(self, length_s: float) -> tuple[list[tuple[float, float]], float]:
        """Stretches of the recording with work of about `length_s` and the rest after it, and the work's exact length.

        Work of one stretch loses its middle; of a train of bursts, the bursts in the middle are left out.
        """
        begin_s, end_s = self.busy_s[0][0], self.busy_s[-1][1]
        if len(self.busy_s) == 1:
            length_s = min(length_s, end_s - begin_s)
            cut = [(begin_s, begin_s + length_s / 2), (end_s - length_s / 2, self.t_s[-1])]
        else:
            cycle_s = (self.busy_s[-1][0] - begin_s) / (len(self.busy_s) - 1)
            count = min(max(round(length_s / cycle_s), 1), len(self.busy_s))
            first = count // 2
            begun_s = self.busy_s[len(self.busy_s) - (count - first)][0]
            cut = [(begin_s, self.busy_s[first][0])] if first else []
            cut += [(begun_s, self.t_s[-1])]
            length_s = sum(end - start for start, end in cut) - (self.t_s[-1] - end_s)
        return cut, float(length_s)

    def rest(self) -> list[tuple[float, float]]:
        """The rest before the work."""
        return [(float(self.t_s[0]), self.busy_s[0][0])]


@cache
def load(folder: Path, drift: float | None = None) -> Recording:
    """Read `meter.parquet` (t_s, power_w) and `load.json` (host times before and after each stretch of work).

    `drift`: relative rate of the meter's clock against the host's; None to take it from a train of bursts.
    """
    table = pl.read_parquet(folder / "meter.parquet")
    t_s, power_w = table["t_s"].to_numpy().astype(float), table["power_w"].to_numpy().astype(float)
    steps_j = (power_w[1:] + power_w[:-1]) / 2 * np.diff(t_s)
    stamps = json.loads((folder / "load.json").read_text())["host_timestamps_s"]
    # begin, begin, end, end of work, then the same of the rest after it, and so on
    busy = [(stamps[i + 1], stamps[i + 2]) for i in range(0, len(stamps) - 2, 4)]
    rate = _drift(t_s, power_w, busy) if drift is None else drift
    busy = [(begin * (1 + rate), end * (1 + rate)) for begin, end in busy]
    return Recording(folder.name, t_s, power_w, np.concatenate([[0.0], np.cumsum(steps_j)]), tuple(busy))


def _drift(t_s: np.ndarray, power_w: np.ndarray, busy: Sequence[tuple[float, float]]) -> float:
    """How much faster the clock of the external meter runs than the host's: from the rises of a train of bursts, or 0.

    In the recorded train, rises and falls alike come 1 ms after the host's times at first, and 8 ms after 8 s.
    """
    if len(busy) < TRAIN:
        return 0.0
    middle_w = (power_w.min() + power_w.max()) / 2
    rises = []
    for begin_s, _ in busy:
        near = np.flatnonzero((t_s > begin_s - 0.02) & (t_s < begin_s + 0.03))
        rises.append(t_s[near[np.argmax(power_w[near] > middle_w)]] - begin_s)
    return float(np.polyfit([begin_s for begin_s, _ in busy], rises, 1)[0])


def boards(folder: Path = BOARDS, drift: float | None = None) -> list[Recording]:
    """All recordings of a folder; empty if there is none."""
    return [load(file.parent, drift) for file in sorted(folder.glob("*/meter.parquet"))]


def played(recording: Recording, cut: Sequence[tuple[float, float]], work_s: float) -> Trace:
    """Times and mean powers of a cut, fine near its begin and the end of its work; no energy is lost."""
    offsets = np.concatenate([[0.0], np.cumsum([end - begin for begin, end in cut])])
    until_s = min(float(offsets[-1]), work_s + REST_PLAYED_S)
    near = [np.arange(max(at - NEAR_S, 0.0), at + NEAR_S, FINE_S) for at in (0.0, work_s)]
    grid: list[Any] = [
        np.arange(0.0, work_s, WORK_S),
        np.arange(work_s, until_s, REST_S),
        *near,
        offsets,
        [work_s, until_s],
    ]
    times = np.unique(np.round(np.concatenate(grid), 7))
    times = times[times <= until_s]
    starts = np.array([begin for begin, _ in cut])
    part = np.clip(np.searchsorted(offsets, times[:-1], side="right") - 1, 0, len(cut) - 1)
    begins = starts[part] + times[:-1] - offsets[part]
    joules = np.interp(begins + np.diff(times), recording.t_s, recording.total_j)
    joules -= np.interp(begins, recording.t_s, recording.total_j)
    powers = np.maximum(joules / np.diff(times), 0.0)
    # afterwards, the board stays at the mean of its last rest
    rest_w = float(powers[-20:].mean())
    return [*times[:-1].tolist(), until_s], [*powers.tolist(), rest_w]


def split(trace: Trace, at_s: float) -> tuple[Trace, Trace]:
    """A trace until a time, and from then on."""
    times, powers = trace
    first = next(i for i, t_s in enumerate(times) if t_s >= at_s - 1e-6)
    return (times[:first], powers[:first]), ([max(t_s - at_s, 0.0) for t_s in times[first:]], powers[first:])


class RecordedBench:
    """A board that plays a recording, with an open meter."""

    def __init__(self, recording: Recording, simulator: NvmlSimulator, meter: Any, chance: random.Random) -> None:
        """Keep what is open."""
        self.recording, self.simulator, self.meter, self.chance = recording, simulator, meter, chance

    def work(self, length_s: float) -> tuple[float, float]:
        """Let the board do recorded work of about that length; begin and end on the simulator's clock."""
        cut, work_s = self.recording.cut(length_s)
        begun_s = self.simulator.play(0, *played(self.recording, cut, work_s))
        self.simulator.sleep(begun_s + work_s - self.simulator.now())
        return begun_s, begun_s + work_s

    def window(self, length_s: float, rest_s: float | None = None) -> Tried:
        """A rest, and a window around work."""
        low, high = RESTS_S
        self.simulator.sleep(low * (high / low) ** self.chance.random() if rest_s is None else rest_s)
        with self.meter.window() as window:
            begun_s, ended_s = self.work(length_s)
        return Tried(truth_j=self.simulator.energy_j(0, begun_s, ended_s), reading=window.reading)


@contextmanager
def recorded_bench(recording: Recording, folder: Path, seed: int = 1, **board: Any) -> Iterator[RecordedBench]:
    """Open a meter, on virtual time, on a board that plays the recording; the counter's phase is drawn by `seed`."""
    chance = random.Random(seed)
    period_s = board.get("counter_period_s", 0.1)
    options = {
        "counter_phase_s": chance.uniform(0, period_s),
        "power_phase_s": chance.uniform(0, 0.1),
        "limit_w": 500.0,
    }
    simulated = SimulatedBoard(wave=StepLog(start_w=rest_w(recording)), **(options | board))
    with NvmlSimulator([simulated], folder, virtual=True, call_cost_s=CALL_S) as simulator:
        simulator.play(0, *played(recording, recording.rest(), 0.0))
        with open_nvml(nvml=simulator.load(), clock=simulator, environ={}, chance=random.Random(seed)) as meter:
            yield RecordedBench(recording, simulator, meter, chance)


def rest_w(recording: Recording) -> float:
    """Mean power of the rest before the work."""
    (begin_s, end_s), *_ = recording.rest()
    return recording.energy_j(begin_s, end_s) / (end_s - begin_s)


def lengths(count: int, chance: random.Random) -> list[float]:
    """Lengths of 50 ms to 5 s, evenly drawn on a logarithmic scale."""
    low, high = LENGTHS_S
    return [low * (high / low) ** chance.random() for _ in range(count)]


def coverage(
    folder: Path, recordings: Sequence[Recording], count: int, meters: int = 3, seed: int = 1, **board: Any
) -> dict[tuple[str, float], list[Tried]]:
    """(board, counter period) -> `count` windows, by `meters` meters opened one after the other."""
    chance = random.Random(seed)
    found: dict[tuple[str, float], list[Tried]] = {}
    for place, recording in enumerate(recordings):
        for number, period_s in enumerate(PERIODS_S):
            windows = found.setdefault((recording.name, period_s), [])
            for again in range(meters):
                options = {"counter_period_s": period_s} | board
                own = seed + 1000 * place + 100 * number + again
                with recorded_bench(recording, folder, own, **options) as bench:
                    windows += [bench.window(length_s) for length_s in lengths(ceil(count / meters), chance)]
    return found


def figures(found: Sequence[Tried]) -> dict[str, Any]:
    """Share of windows inside the bound, errors, bounds, share with W208."""
    errors = [one.error_j for one in found]
    sizes = sorted(map(abs, errors))
    bounds = [one.reading.uncertainty_j for one in found if one.reading.uncertainty_j is not None]
    return {
        "windows": len(found),
        "covered": fmean(one.covered for one in found),
        "mean_j": fmean(errors),
        "p95_j": sizes[ceil(0.95 * len(sizes)) - 1],
        "largest_j": sizes[-1],
        "median_bound_j": median(bounds) if bounds else float("nan"),
        "mean_relative": fmean(one.error_j / one.truth_j for one in found),
        "w208": fmean(any(said.startswith("W208") for said in one.reading.warnings) for one in found),
        "no_number": sum(one.reading.energy_j is None for one in found),
    }


def summary(folder: Path, quick: bool) -> dict[str, Any]:
    """Figures of every board and period, for the page; nothing without recordings."""
    found = coverage(folder, boards(), 18 if quick else 264)
    every = [one for cell in found.values() for one in cell]
    if not every:
        return {}
    names = dict.fromkeys(name for name, _ in found)
    return {
        "recorded": {
            "all": figures(every),
            "boards": {name: figures([t for (of, _), ts in found.items() if of == name for t in ts]) for name in names},
            "cells": [{"board": name, "period_s": at, **figures(found[name, at])} for name, at in found],
        }
    }


def main() -> None:
    """Print a line per board and period."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("boards", nargs="*", help="names of recordings; all by default")
    parser.add_argument("--windows", type=int, default=261, help="windows per board and period")
    parser.add_argument("--folder", type=Path, default=BOARDS, help="folder of recordings")
    parser.add_argument("--meters", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lag", type=float, default=0.0)
    parser.add_argument("--box", type=float, default=0.0)
    parser.add_argument("--drift", type=float, help="of the external meter's clock, for all recordings")
    options = parser.parse_args()
    recordings = [
        one for one in boards(options.folder, options.drift) if not options.boards or one.name in options.boards
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = coverage(
            Path(folder),
            recordings,
            options.windows,
            options.meters,
            options.seed,
            counter_lag_s=options.lag,
            counter_box_s=options.box,
        )
    every = [one for cell in found.values() for one in cell]
    cells = [(f"{name} {1000 * period_s:.0f} ms", cell) for (name, period_s), cell in found.items()]
    for one in recordings:
        cells.append((one.name, [t for (name, _), cell in found.items() if name == one.name for t in cell]))
    for words, cell in [*cells, ("all", every)]:
        print(f"{words:22}", *(f"{key}={value:.4g}" for key, value in figures(cell).items()))


if __name__ == "__main__":
    main()
