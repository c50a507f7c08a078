"""Gain and offset of a sensor, as stored and as applied."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.perjoule.meters.conftest import UUID, Rig

from perjoule.errors import MeterError, UsageError
from perjoule.meters import open_meter
from perjoule.meters.nvml import open_nvml
from perjoule.meters.sensor import Sensor, chosen, digest_of, split_name, store, stored, with_sensor
from perjoule.text import board_digest

DIGEST = board_digest(UUID)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path))
    return tmp_path


def test_a_stored_sensor_is_read_again() -> None:
    sensor = Sensor(gain=0.956, offset_w=20.8, gain_uncertainty=0.01, level_uncertainty_w=0.5, centre_w=200.0,
                    boundary="system", origin="calibrated")  # fmt: skip
    file = store(sensor, DIGEST)
    assert UUID not in file.read_text() + str(file)
    assert stored(DIGEST) == sensor == chosen("stored", DIGEST)
    file.write_text('{"schema": 1, "gain": "high"}')
    with pytest.raises(MeterError, match=r"sensor\.json is damaged"):
        stored(DIGEST)


@pytest.mark.parametrize(("digest", "message"), [(DIGEST, "no calibration of"), (None, "which board"),
                                                 (f"{DIGEST} + {DIGEST}", "several boards")])  # fmt: skip
def test_nothing_stored_is_an_error(digest: str | None, message: str) -> None:
    with pytest.raises(MeterError, match=message):
        chosen("stored", digest)


@pytest.mark.parametrize("text", ["", "1", "1,2,3,4", "1,2,-3", "1,2,inf", "nan,1", "1,inf", "7,0", "a,b"])
def test_malformed_sensors(text: str) -> None:
    with pytest.raises(UsageError, match="GAIN,OFFSET"):
        with_sensor("nvml", text)


def test_a_stated_uncertainty_is_in_the_bound_and_a_missing_one_is_named() -> None:
    sensor = chosen("0.974,-0.2,0.3", None)
    assert sensor.uncertainty_w(60.0) == sensor.uncertainty_w(300.0) == 0.3
    assert "± 0.3 W" in sensor.words
    unstated = chosen("0.974,-0.2", None)
    assert unstated.uncertainty_w(300.0) == 0.0
    assert "uncertainty of both is not in the bound" in unstated.words


def test_names() -> None:
    assert with_sensor("nvml", "1.053, -0.1") == "nvml@1.053,-0.1"
    assert split_name("nvml@1.053,-0.1") == ("nvml", "1.053,-0.1")
    assert split_name("nvml@1.053,-0.1,0.5") == ("nvml", "1.053,-0.1,0.5")
    assert split_name("replay:me@home.csv") == ("replay:me@home.csv", None)
    assert digest_of(UUID) == digest_of(DIGEST) == DIGEST
    with pytest.raises(UsageError, match="whole UUID"):
        digest_of("GPU-1")


def test_a_reading_is_corrected_in_every_part() -> None:
    readings = []
    for sensor in (None, Sensor(gain=0.9, offset_w=20.0, level_uncertainty_w=2.0, boundary="system")):
        rig = Rig()
        with open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}) as meter:
            meter.sensor = sensor
            with meter.window() as window:
                rig.work(1.0)
        readings.append(window.reading)
    raw, corrected = readings
    assert corrected.energy_j == pytest.approx(0.9 * raw.energy_j + 20.0)
    assert corrected.uncertainty_j == pytest.approx(0.9 * raw.uncertainty_j + 2.0)
    assert corrected.idle_power_w == pytest.approx(0.9 * raw.idle_power_w + 20.0)
    assert corrected.net_energy_j == pytest.approx(0.9 * raw.net_energy_j)
    assert corrected.boundary == "system"
    assert "gain 0.9 and offset +20 W" in corrected.method
    assert "not in the bound" in raw.method
    assert "not in the bound" not in corrected.method


def test_a_meter_is_opened_with_a_sensor(tmp_path: Path) -> None:
    file = tmp_path / "power.csv"
    file.write_text("t_s,power_w\n" + "".join(f"{i / 10},{100 + i % 2}\n" for i in range(100)))
    with open_meter(f"replay:{file}@1.1,5") as meter, meter.window() as window:
        pass
    assert "gain 1.1" in window.reading.method
    with pytest.raises(MeterError, match="which board"):
        open_meter(f"replay:{file}@stored")
