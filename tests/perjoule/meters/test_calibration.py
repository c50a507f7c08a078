"""Logs of real boards against an external meter, and calibration with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.recordings import BOARDS, PRESENT, Truth

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
