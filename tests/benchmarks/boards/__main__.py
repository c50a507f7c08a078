"""Prints the errors and bounds of power logs of real boards: `python -m tests.benchmarks.boards`.

Each recording is integrated over random windows of 0.5 to 5 s, with gain and offset fitted to its first 4 s and the
windows in the rest, and the other way round; the truth is an external meter. Then pairs of simulated logs, whose gain
and offset are known: how often the intervals contain them, and how wide they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from perjoule.errors import MeterError
from perjoule.meters.calibration import calibrate
from perjoule.meters.log_energy import learn_response, window_energy
from perjoule.meters.logs import PowerLog, read_log
from perjoule.meters.nvml import open_nvml
from perjoule.meters.sensor import Sensor
from tests.perjoule.meters.conftest import NOT_SUPPORTED, Rig
from tests.support.recordings import BOARDS, NAMES, Truth
from tests.support.simulated_logs import pair

WINDOWS, SPLIT_S, PAIRS = 500, 4.0, 240


def cut(log: PowerLog, keep: Callable[[float], bool]) -> PowerLog:
    """Return the part of a log."""
    return replace(log, samples=tuple(one for one in log.samples if keep(one.t_s)))


def board(folder: Path, column: str, fallback: dict[str, Sensor]) -> None:
    """Print the rows of one board and column."""
    external, log, truth = read_log(folder / "meter.parquet"), read_log(folder / "nvidia-smi.csv", column=column), None
    truth = Truth(folder.name)
    try:
        whole = calibrate(external, log)
        fallback.setdefault(folder.name, whole.sensor)
        low, high = whole.gain_low, whole.gain_high
        print(
            f"{folder.name} {column}: gain {whole.gain:.4f} [{low:.4f}, {high:.4f}], offset {whole.offset_w:+.2f} W "
            f"[{whole.offset_low_w:+.2f}, {whole.offset_high_w:+.2f}], shift {whole.shift_s:+.3f} s"
        )
    except MeterError as error:
        print(f"{folder.name} {column}: not calibrated: {error}")
    halves: dict[str, Callable[[float], bool]] = {
        "first": lambda t_s: t_s < SPLIT_S,
        "second": lambda t_s: t_s >= SPLIT_S,
    }
    for fit, test in (("first", "second"), ("second", "first")):
        try:
            sensor, words = calibrate(cut(external, halves[fit]), cut(log, halves[fit])).sensor, f"fit on {fit} half"
        except MeterError:
            name = folder.name.removesuffix("-half-duty")
            if name not in fallback:
                continue
            sensor, words = fallback[name], f"fit on the whole {name}"
        windows(log, truth, sensor, halves[test], f"  {words}, tested on {test}")


def windows(log: PowerLog, truth: Truth, sensor: Sensor, keep: Callable[[float], bool], words: str) -> None:
    """Print the errors over random windows."""
    chance, response = np.random.default_rng(3), learn_response(log)
    times = truth.t_s[[keep(t_s) for t_s in truth.t_s]]
    errors, bounds, inside, total, true_total = [], [], [], 0.0, 0.0
    for _ in range(WINDOWS):
        length_s = min(float(np.exp(chance.uniform(np.log(0.5), np.log(5)))), 0.98 * float(np.ptp(times)))
        begin_s = float(chance.uniform(times[0], times[-1] - length_s))
        result = window_energy(log, response, begin_s, begin_s + length_s)
        assert result.energy_j is not None
        assert result.uncertainty_j is not None
        energy_j = sensor.gain * result.energy_j + sensor.offset_w * length_s
        bound_j = sensor.gain * result.uncertainty_j + sensor.uncertainty_w(result.energy_j / length_s) * length_s
        true_j = truth.energy_j(begin_s, begin_s + length_s)
        errors.append((energy_j - true_j) / true_j)
        bounds.append(bound_j / true_j)
        inside.append(abs(energy_j - true_j) <= bound_j)
        total, true_total = total + energy_j, true_total + true_j
    print(
        f"{words}: inside {np.mean(inside):.1%} of {WINDOWS}, rms {np.sqrt(np.mean(np.square(errors))):.2%}, median "
        f"|error| {np.median(np.abs(errors)):.2%}, all joules {total / true_total - 1:+.2%}, median bound "
        f"{np.median(bounds):.2%}"
    )


def simulated() -> None:
    """Print coverage and width of the intervals of simulated pairs, and the error of joules."""
    inside, halves, errors, refused = [], [], [], 0
    for seed in range(PAIRS):
        logs, chance = pair(seed), np.random.default_rng(seed)
        try:
            found = calibrate(logs.external, logs.board)
        except MeterError:
            refused += 1
            continue
        inside.append(
            (
                found.gain_low <= logs.gain <= found.gain_high,
                found.offset_low_w <= logs.offset_w <= found.offset_high_w,
            )
        )
        halves.append((found.gain_high - found.gain_low, found.offset_high_w - found.offset_low_w))
        length_s = float(chance.uniform(2, 6))
        begin_s = float(chance.uniform(1, logs.t_s[-1] - length_s - 1.5))
        result = window_energy(logs.board, learn_response(logs.board), begin_s, begin_s + length_s)
        if result.energy_j is not None:
            energy_j = found.gain * result.energy_j + found.offset_w * length_s
            errors.append(abs(energy_j / logs.energy_j(begin_s, begin_s + length_s) - 1))
    gain, offset = np.mean(inside, axis=0)
    half, half_w = np.median(halves, axis=0) / 2
    print(
        f"{PAIRS} simulated pairs, {refused} refused: inside {gain:.1%} (gain), {offset:.1%} (offset), median half "
        f"width {half:.4f}, {half_w:.2f} W, joules {np.mean(errors):.2%} on average"
    )


def working_on() -> None:
    """Print the errors of power meters whose board goes on working after the window, on virtual time."""
    for instant in (False, True):
        for length_s in (0.1, 0.2, 0.5, 1.0, 3.0):
            errors, inside, warned = [], 0, 0
            for seed in range(40):
                rig = Rig(ripple_w=1.0)
                rig.clock.advance(0.0137 * seed)
                rig.nvml.failing = {"nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED}
                if not instant:
                    rig.nvml.failing["field 186"] = NOT_SUPPORTED
                with open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}) as meter, meter.window() as window:
                    begin_s = rig.clock.now()
                    rig.load.add(begin_s, begin_s + length_s + 5, 300.0)
                    rig.clock.advance(length_s)
                true_j, reading = rig.load.energy_j(begin_s, begin_s + length_s), window.reading
                warned += any(str(said).startswith("W224") for said in reading.warnings)
                if reading.energy_j is not None and reading.uncertainty_j is not None:
                    errors.append((reading.energy_j - true_j) / true_j)
                    inside += abs(reading.energy_j - true_j) <= reading.uncertainty_j
            print(
                f"{'instant' if instant else 'average'} {length_s:g} s, work goes on: "
                f"mean error {np.mean(errors):+.1%}, "
                f"inside {inside} of 40, warned {warned} of 40"
            )


if __name__ == "__main__":
    known: dict[str, Sensor] = {}
    for name in NAMES:
        for power in pl.read_csv(BOARDS / name / "nvidia-smi.csv").columns[1:]:
            board(BOARDS / name, power, known)
    simulated()
    working_on()
