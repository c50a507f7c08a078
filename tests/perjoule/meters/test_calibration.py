"""Logs of real boards against an external meter, and calibration with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.perjoule.test_cli import call
from tests.support.recordings import BOARDS, PRESENT, Truth
from tests.support.simulated_logs import pair

from perjoule.errors import MeterError
from perjoule.meters.calibration import calibrate
from perjoule.meters.log_energy import learn_response, window_energy
from perjoule.meters.logs import PowerLog, read_log
from perjoule.meters.samples import Sample
from perjoule.meters.sensor import Sensor

pytestmark = pytest.mark.slow

recorded = pytest.mark.skipif(not PRESENT, reason="the recordings of boards are not here")
PUBLISHED = {"3090": (1.053, -0.1), "4090": (0.956, 20.8), "k40m": (0.974, -0.2)}


def cut(log: PowerLog, begin_s: float, end_s: float) -> PowerLog:
    return replace(log, samples=tuple(one for one in log.samples if begin_s <= one.t_s <= end_s))


@recorded
@pytest.mark.parametrize("name", PUBLISHED)
def test_joules_of_unseen_stretches(name: str) -> None:
    """Gain and offset of the first 4 s; windows of 0.5 to 5 s of the rest."""
    truth = Truth(name)
    external, log = (read_log(BOARDS / name / file) for file in ("meter.parquet", "nvidia-smi.csv"))
    found = calibrate(cut(external, -9, 4), cut(log, -9, 4))
    response, sensor = learn_response(log), found.sensor
    chance = np.random.default_rng(5)
    inside = 0
    for _ in range(100):
        length_s = float(np.exp(chance.uniform(np.log(0.5), np.log(5))))
        begin_s = float(chance.uniform(4.0, truth.t_s[-1] - length_s))
        result = window_energy(log, response, begin_s, begin_s + length_s)
        assert result.energy_j is not None
        assert result.uncertainty_j is not None
        energy_j = sensor.gain * result.energy_j + sensor.offset_w * length_s
        bound_j = sensor.gain * result.uncertainty_j + sensor.uncertainty_w(result.energy_j / length_s) * length_s
        inside += abs(energy_j - truth.energy_j(begin_s, begin_s + length_s)) <= bound_j
    assert inside >= 98


@recorded
def test_work_in_step_with_the_sensor_is_calibrated_or_refused() -> None:
    """The 3090 at 50 % duty: its instant reading had a gain of 1.06 ± 0.51, its average has too little rest."""
    folder = BOARDS / "3090-half-duty"
    external = read_log(folder / "meter.parquet")
    found = calibrate(external, read_log(folder / "nvidia-smi.csv", column="power_draw_instant_w"))
    assert found.gain_low <= PUBLISHED["3090"][0] <= found.gain_high
    assert found.gain_high - found.gain_low < 0.03
    with pytest.raises(MeterError, match=r"2 steady stretches near 126\.9 W .* at least 3 of each"):
        calibrate(external, read_log(folder / "nvidia-smi.csv", column="power_draw_average_w"))


@recorded
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_gain_and_offset_are_inside_the_intervals(name: str) -> None:
    found = calibrate(*(read_log(BOARDS / name / file) for file in ("meter.parquet", "nvidia-smi.csv")))
    gain, offset_w = PUBLISHED[name]
    assert found.gain_interval[0] <= gain <= found.gain_interval[1]
    assert found.offset_interval_w[0] <= offset_w <= found.offset_interval_w[1]
    assert abs(found.shift_s) < 0.1


# -- made logs, with a known answer --------------------------------------------------------------------------------


def made(gain: float, offset_w: float, shift_s: float, noise_w: float = 0.3) -> tuple[PowerLog, PowerLog]:
    """A board that works and rests for 3 s in turn, seen every 100 ms, and an external meter with another clock."""
    chance = np.random.default_rng(7)
    levels_w = [70.0, 300.0, 72.0, 250.0, 71.0, 310.0, 70.5]

    def log(times: np.ndarray, powers: list[float]) -> PowerLog:
        samples = tuple(Sample(t_s=float(t), power_w=w) for t, w in zip(times, powers, strict=True))
        return PowerLog(
            samples=samples, column="power.draw.instant", columns=("power.draw.instant",), board=None,
            begins_utc_s=None, source="made", boundary="gpu-board", provenance="simulated",
        )  # fmt: skip

    def true_w(t_s: float) -> float:
        return levels_w[int(t_s / 3) % len(levels_w)]

    own = np.arange(0.2, 20.9, 0.1)
    readings = [
        round(
            (np.mean([true_w(t - x) for x in np.linspace(0, 0.099, 10)]) - offset_w) / gain + chance.normal(0, noise_w),
            2,
        )
        for t in own
    ]
    other = np.arange(0.0, 20.9, 0.02)
    powers = [true_w(t) + float(chance.normal(0, 0.5)) for t in other]
    return log(other + shift_s, powers), log(own, [float(reading) for reading in readings])


@pytest.mark.parametrize(("gain", "offset_w", "shift_s"), [(1.05, -0.1, 0.0), (0.956, 20.8, 3.3), (0.9, -9.4, -2.25)])
def test_gain_offset_and_shift_are_found(gain: float, offset_w: float, shift_s: float) -> None:
    found = calibrate(*made(gain, offset_w, shift_s))
    assert found.gain == pytest.approx(gain, abs=0.004)
    assert found.gain_interval[0] <= gain <= found.gain_interval[1]
    assert found.offset_interval_w[0] <= offset_w <= found.offset_interval_w[1]
    assert found.shift_s == pytest.approx(shift_s, abs=0.05)


def test_logs_that_do_not_fit_are_refused() -> None:
    external, own = made(1.0, 0.0, 0.0)
    with pytest.raises(MeterError, match="one level of power"):
        calibrate(cut(external, 0.0, 2.9), cut(own, 0.0, 2.9))
    with pytest.raises(MeterError, match="do not overlap"):
        calibrate(cut(external, 18.0, 21.0), cut(own, 0.0, 4.0))
    frozen = replace(own, samples=tuple(replace(one, power_w=232.4) for one in own.samples))
    with pytest.raises(MeterError, match="never changes"):
        calibrate(external, frozen)


def test_impossible_gains_are_refused() -> None:
    external, own = made(1.0, 0.0, 0.0)
    milliwatts = replace(own, samples=tuple(replace(one, power_w=1000 * (one.power_w or 0)) for one in own.samples))
    with pytest.raises(MeterError, match=r"fitted gain is 0\.001, which no board has.*check units"):
        calibrate(external, milliwatts)


def test_work_that_repeats_is_matched_where_the_logs_overlap_most() -> None:
    """One log has a wall clock and the other has not, so any shift is possible; the next work looks much the same."""
    levels_w = [60.0, 300.0, 62.0, 250.0, 61.0]
    times = np.arange(0.0, 24.9, 0.05)
    true_w = np.array([levels_w[int(t_s / 5)] for t_s in times])
    external, own = made(1.0, 0.0, 0.0)
    noise_w = np.random.default_rng(3).normal(0, 0.3, (2, len(times)))
    logs = [
        replace(log, samples=tuple(Sample(t_s=float(t), power_w=float(w)) for t, w in zip(times, powers, strict=True)))
        for log, powers in ((external, true_w + noise_w[0]), (own, (true_w - 5) / 1.04 + noise_w[1]))
    ]
    found = calibrate(logs[0], replace(logs[1], begins_utc_s=1.7e9))
    assert found.gain == pytest.approx(1.04, abs=0.003)
    assert found.overlap_s > 24


@pytest.mark.parametrize("where", ["external", "own"])
def test_samples_next_to_a_gap_do_not_count(where: str) -> None:
    logs = dict(zip(("external", "own"), made(1.05, -0.1, 0.0), strict=True))
    kept = tuple(one for one in logs[where].samples if not 4.0 < one.t_s < 8.0)
    logs[where] = replace(logs[where], samples=kept)
    found = calibrate(logs["external"], logs["own"])
    assert found.gain == pytest.approx(1.05, abs=0.004)
    assert found.residual_w < 1.0


def test_intervals_contain_the_truth_of_simulated_pairs() -> None:
    """`tests.benchmarks.boards` has more pairs; here are as many as fit a test."""
    inside, halves, refused = [], [], 0
    for seed in range(20):
        logs = pair(seed)
        try:
            found = calibrate(logs.external, logs.board)
        except MeterError:
            refused += 1
            continue
        inside.append(found.gain_low <= logs.gain <= found.gain_high)
        inside.append(found.offset_low_w <= logs.offset_w <= found.offset_high_w)
        halves.append((found.gain_high - found.gain_low) / 2)
    assert refused <= 6
    assert np.mean(inside) >= 0.93
    assert np.median(halves) < 0.01


def test_the_command_names_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, log in zip(("wall.csv", "board.csv"), made(1.05, -0.1, 0.0), strict=True):
        files.append(str(tmp_path / name))
        rows = "".join(f"{one.t_s:.3f},{one.power_w}\n" for one in log.samples)
        (tmp_path / name).write_text("t_s,power_w\n" + rows)
    _, by_place, _ = call("calibrate", *files, "--json", capsys=capsys)
    _, by_name, _ = call("calibrate", "--reference", files[0], "--sensor", files[1], "--json", capsys=capsys)
    assert json.loads(by_place) == json.loads(by_name)
    assert json.loads(by_name)["gain_low"] <= 1.05 <= json.loads(by_name)["gain_high"]
    status, _, message = call("calibrate", files[0], capsys=capsys)
    assert status == 2
    assert "give two logs" in message
    late = tmp_path / "late.csv"
    late.write_text("t_s,power_w\n" + "".join(f"{1000 + i / 10},{60 + i % 3}\n" for i in range(100)))
    status, _, message = call("calibrate", str(late), files[1], capsys=capsys)
    assert status == 4
    assert f"{late} and {files[1]}: the logs do not overlap" in message
    assert "read as UTC" in message


def test_a_sensor_that_freezes_in_the_work_is_no_measurement() -> None:
    _, own = made(1.0, 0.0, 0.0)
    stuck = replace(own, samples=tuple(replace(one, power_w=232.4) if one.t_s > 4 else one for one in own.samples))
    result = window_energy(stuck, learn_response(stuck), 6.0, 12.0)
    assert result.energy_j is None
    assert result.warnings[-1].startswith("W225")


def test_uncertainty_grows_away_from_the_calibrated_powers() -> None:
    sensor = Sensor(gain=1.0, offset_w=0.0, gain_uncertainty=0.01, level_uncertainty_w=1.0, centre_w=200.0)
    assert sensor.uncertainty_w(200.0) == 1.0
    assert sensor.uncertainty_w(400.0) == pytest.approx(3.0)
