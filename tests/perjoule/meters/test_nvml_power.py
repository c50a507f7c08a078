from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from perjoule.errors import MeterError
from perjoule.meters.clock import SystemClock
from perjoule.meters.nvml import open_nvml
from perjoule.meters.power import PowerMeter, PowerSource
from perjoule.meters.samples import Sample
from perjoule.types import EnergyReading

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
NOT_SUPPORTED = 3


def codes(reading: EnergyReading) -> list[str]:
    return [said[:4] for said in reading.warnings]


class VirtualSampler:
    """Samples on a virtual clock instead of in a thread."""

    def __init__(self, clock: Any, sample: Callable[[], Sample], poll_s: float) -> None:
        self._clock, self._sample, self._poll_s = clock, sample, poll_s
        self._samples: list[Sample] = []
        self._cancel: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._samples.append(self._sample())
        self._cancel = self._clock.every(self._poll_s, lambda: self._samples.append(self._sample()))

    def stop(self) -> list[Sample]:
        self._cancel()
        return self._samples


def open_on(rig: Any) -> Any:
    def sampler(sample: Callable[[], Sample], poll_s: float) -> VirtualSampler:
        return VirtualSampler(rig.clock, sample, poll_s)

    return open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}, sampler=sampler)


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
        assert window.reading.energy_j is None
        assert codes(window.reading)[-1] == "W207"
        assert meter.learn_idle(0.5) is None


def test_the_trace_lies_inside_the_window(rig: Any) -> None:
    rig.nvml.failing = {COUNTER: NOT_SUPPORTED}
    with open_on(rig) as meter, meter.window() as window:
        rig.work(1.0)
    trace = window.reading.trace
    assert trace is not None
    assert len(trace.t_s) == len(trace.power_w) > 40
    assert trace.t_s[0] >= 0
    assert trace.t_s[-1] <= 1.0
    assert trace.averaging_window_s is None
    assert trace.poll_interval_s == pytest.approx(0.02)


def real_meter() -> PowerMeter:
    """On the real clock and in a real thread; the reading flickers, so that its period can be seen."""
    source = PowerSource(
        words="made-up power", read=lambda: 50.0 + time.perf_counter() // 0.01 % 2, averaging_s=0.0, scope="GPU"
    )
    return PowerMeter(name="made-up", why="", source="made-up", power=source, clock=SystemClock())


def test_a_real_thread_ends_with_the_window_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perjoule.meters.power.LEARN_S", 0.15)
    before = threading.active_count()
    with real_meter() as meter:
        with meter.window() as window:
            assert threading.active_count() == before + 1
            time.sleep(0.1)
        assert threading.active_count() == before
        reading = window.reading
        assert reading.energy_j == pytest.approx(50.5 * reading.duration_s, rel=0.1)

        def fail_at_the_end() -> None:
            if threading.active_count() > before:
                raise RuntimeError("device-side assert")

        with pytest.raises(RuntimeError, match="device-side"), meter.window(sync=fail_at_the_end):
            pass
        assert threading.active_count() == before
