from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.perjoule.meters.conftest import NOT_SUPPORTED, OTHER_UUID, UUID

from perjoule.errors import MeterError
from perjoule.meters.edges import bracket
from perjoule.meters.nvml import open_nvml
from perjoule.text import board_digest
from perjoule.types import CounterLog

FIRST, OTHER = board_digest(UUID), board_digest(OTHER_UUID)


@pytest.fixture
def two(rig: Any) -> Any:
    rig.nvml.boards = [(UUID, "Fake A"), (OTHER_UUID, "Fake A")]
    return rig


def open_on(rig: Any, selector: str, **environ: str) -> Any:
    return open_nvml(selector, nvml=rig.nvml, clock=rig.clock, environ=environ)


@pytest.mark.parametrize("selector", ["all", f"{OTHER_UUID},{UUID}", "GPU-2222,GPU-1111"])
def test_rows_and_their_sum(two: Any, selector: str) -> None:
    with open_on(two, selector) as meter, meter.window() as window:
        truth_j = two.work(0.53)
    reading = window.reading
    assert [row.device for row in reading.devices] == ([FIRST, OTHER] if selector == "all" else [OTHER, FIRST])
    for row in reading.devices:
        assert row.energy_j == pytest.approx(truth_j, abs=row.uncertainty_j)
    assert reading.energy_j == pytest.approx(sum(row.energy_j for row in reading.devices))
    assert reading.uncertainty_j == pytest.approx(sum(row.uncertainty_j for row in reading.devices))
    assert reading.idle_power_w == pytest.approx(120.0, abs=1.2)
    assert meter.name == "nvml:" + ",".join(row.device for row in reading.devices)


def test_all_means_all_that_cuda_sees(two: Any) -> None:
    with open_on(two, "all", CUDA_VISIBLE_DEVICES="1") as meter, meter.window() as window:
        two.work(0.3)
    assert [row.device for row in window.reading.devices] == [OTHER]


def test_a_board_that_fails_leaves_the_others_and_no_sum(two: Any) -> None:
    healthy = two.nvml.nvmlDeviceGetTotalEnergyConsumption
    with open_on(two, "all") as meter, meter.window() as window:
        truth_j = two.work(0.5)

        def lost(handle: int) -> int:
            if handle == 1:
                raise two.nvml.NVMLError(15)
            return int(healthy(handle))

        two.nvml.nvmlDeviceGetTotalEnergyConsumption = lost
        two.nvml.failing["nvmlDeviceGetFieldValues"] = 15
        two.work(0.5)
    reading = window.reading
    assert reading.energy_j is None
    assert reading.uncertainty_j is None
    assert reading.devices[0].energy_j == pytest.approx(300.0, rel=0.02)
    assert reading.devices[1].energy_j is None
    assert reading.partial_energy_j == pytest.approx(300.0 + truth_j, abs=31)
    assert reading.partial_s == pytest.approx(0.5, abs=0.06)
    assert all(said.endswith(f"({OTHER})") for said in reading.warnings)


def test_a_board_without_a_counter_is_not_measured_together_with_others(two: Any) -> None:
    two.nvml.failing["nvmlDeviceGetTotalEnergyConsumption"] = NOT_SUPPORTED
    with pytest.raises(MeterError, match="one by one"):
        open_on(two, "all")
    assert two.nvml.sessions == 0


@pytest.mark.parametrize("selector", ["GPU-1,GPU-1", "GPU-11,GPU-1111"])
def test_a_board_named_twice_is_refused(two: Any, selector: str) -> None:
    with pytest.raises(MeterError, match="twice"):
        open_on(two, selector)


def test_the_stored_log_gives_the_same_joules(rig: Any) -> None:
    with open_on(rig, "") as meter, meter.window() as window:
        rig.work(0.53)
    (row,) = window.reading.devices
    stored = TypeAdapter(CounterLog).validate_json(TypeAdapter(CounterLog).dump_json(row.counter))
    again = bracket(stored)
    assert row.energy_j is not None
    assert again.energy_j == pytest.approx(row.energy_j, abs=0.001)
    assert again.uncertainty_j == row.uncertainty_j
    assert asdict(stored) == asdict(row.counter)
