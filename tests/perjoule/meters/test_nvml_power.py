"""Boards without a usable energy counter: which power reading is taken, and what its readings say."""

from __future__ import annotations

from typing import Any

import pytest

from perjoule.errors import MeterError
from perjoule.meters.nvml import open_nvml
from perjoule.types import EnergyReading

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
NOT_SUPPORTED = 3


def codes(reading: EnergyReading) -> list[str]:
    return [said[:4] for said in reading.warnings]


def open_on(rig: Any) -> Any:
    return open_nvml(nvml=rig.nvml, clock=rig.clock, environ={})


@pytest.mark.parametrize(
    ("missing", "words", "notes"),
    [
        ([], "instant power (field 186, scope GPU)", ["W203", "W209"]),
        (["field 186"], "average power (field 185, scope GPU)", ["W203", "W204", "W209"]),
        (["field 186", "field 185"], "PowerUsage power", ["W203", "W204", "W209"]),
        (["nvmlDeviceGetFieldValues"], "PowerUsage power", ["W203", "W204", "W209"]),
    ],
)
def test_the_next_best_source_is_probed_for_and_named(
    rig: Any, missing: list[str], words: str, notes: list[str]
) -> None:
    rig.nvml.failing = dict.fromkeys([COUNTER, *missing], NOT_SUPPORTED)
    with open_on(rig) as meter:
        assert words in meter.why
        assert "not support" not in words
        with meter.window() as window:
            truth_j = rig.work(1.37)
    reading = window.reading
    assert words in reading.method
    assert codes(reading) == notes
    assert reading.energy_j is not None
    assert reading.uncertainty_j is not None
    assert abs(reading.energy_j - truth_j) <= reading.uncertainty_j
    # an average over 1 s that is not followed after the window loses 30 % of it
    assert reading.energy_j == pytest.approx(truth_j, rel=0.06)


def test_a_counter_that_stands_still_is_not_taken(rig: Any) -> None:
    rig.nvml.counter_fault = lambda t_s, mj: 4711
    with open_on(rig) as meter, meter.window() as window:
        rig.work(1.0)
    assert "W203" in codes(window.reading)
    assert window.reading.energy_j is not None


def test_module_scope_is_told(rig: Any) -> None:
    rig.nvml.failing = {COUNTER: NOT_SUPPORTED, "field 186/0": NOT_SUPPORTED, "field 186/1": 0}
    with open_on(rig) as meter, meter.window() as window:
        rig.work(1.0)
    assert "scope MODULE" in window.reading.method
    assert "W205" in codes(window.reading)


def test_a_board_that_tells_nothing_is_an_error(rig: Any) -> None:
    rig.nvml.failing = dict.fromkeys([COUNTER, "field 185", "field 186", "nvmlDeviceGetPowerUsage"], NOT_SUPPORTED)
    with pytest.raises(MeterError, match="neither energy nor power"):
        open_on(rig)
    assert rig.nvml.sessions == 0


def test_zero_watts_are_missing_samples_not_energy(rig: Any) -> None:
    rig.nvml.failing = {COUNTER: NOT_SUPPORTED}
    with open_on(rig) as meter:
        with meter.window() as window:
            rig.work(0.3)
            rig.nvml.power_scale = 0.0
            rig.work(1.5)
        reading = window.reading
        assert reading.energy_j is None
        assert codes(reading)[-1] == "W220"
        assert "answered 0 W" in reading.warnings[-1]
        assert reading.partial_s == pytest.approx(0.3, abs=0.03)
        assert reading.partial_energy_j == pytest.approx(90.0, abs=30.0)  # a refresh is 30 J
        assert meter.learn_idle(0.5) is None


def test_the_trace_lies_inside_the_window(rig: Any) -> None:
    rig.nvml.failing = {COUNTER: NOT_SUPPORTED}
    with open_on(rig) as meter, meter.window() as window:
        rig.work(1.0)
    trace = window.reading.trace
    assert trace is not None
    assert len(trace.t_s) == len(trace.power_w) >= 40
    assert trace.t_s[0] >= 0
    assert trace.t_s[-1] <= 1.0
    assert trace.averaging_window_s is None
    assert trace.poll_interval_s == pytest.approx(0.025)
