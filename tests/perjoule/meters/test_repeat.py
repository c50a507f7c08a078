"""`window.repeat`: work is repeated inside one window until the bound that was asked for is in reach."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from perjoule.meters.nvml import open_nvml
from perjoule.testing import SyntheticMeter, VirtualClock


def open_on(rig: Any) -> Any:
    return open_nvml(nvml=rig.nvml, clock=rig.clock, environ={})


def test_short_work_is_repeated_until_one_per_cent_is_reached(make_rig: Callable[..., Any]) -> None:
    rig = make_rig(ripple_w=2.1)
    chance = random.Random(11)
    with open_on(rig) as meter:
        for _ in range(20):
            rig.clock.advance(chance.uniform(0.2, 0.4))
            truth_j, runs = 0.0, 0
            with meter.window(max_uncertainty=0.01) as window:
                for number in window.repeat():
                    assert number == runs
                    truth_j += rig.work(chance.uniform(0.02, 0.05))
                    runs += 1
            reading = window.reading
            assert reading.iterations == runs > 1
            assert reading.uncertainty_j <= 0.01 * reading.energy_j
            assert abs(reading.energy_j - truth_j) <= reading.uncertainty_j
            assert reading.warnings == ()
            assert reading.duration_s < 2.0  # and not for longer than it takes


def test_without_a_wish_the_work_runs_as_often_as_it_is_told(rig: Any) -> None:
    with open_on(rig) as meter:
        for at_least in (1, 3):
            with meter.window() as window:
                runs = [rig.work(0.02) for _ in window.repeat(at_least)]
            assert window.reading.iterations == len(runs) == at_least


def test_there_is_an_end_to_it_and_it_is_told(rig: Any) -> None:
    with open_on(rig) as meter, meter.window(max_uncertainty=1e-6) as window:
        for _ in window.repeat(most_s=0.5):
            rig.work(0.02)
    assert 0.5 <= window.reading.duration_s < 0.6
    assert [said[:4] for said in window.reading.warnings] == ["W201"]


def test_the_device_is_synchronised_before_it_is_asked(rig: Any) -> None:
    calls: list[str] = []
    with open_on(rig) as meter, meter.window(sync=lambda: calls.append("sync"), max_uncertainty=0.01) as window:
        for _ in window.repeat():
            rig.work(0.06)
            calls.append("work")
    assert calls[0] == calls[-1] == "sync"
    assert "".join(call[0] for call in calls[1:-1]) == "ws" * (len(calls) // 2 - 1)


def test_sources_that_cannot_tell_run_the_work_once() -> None:
    clock = VirtualClock()
    with SyntheticMeter(200.0, clock, uncertainty_j=5.0).window(max_uncertainty=0.01) as window:
        for _ in window.repeat():
            clock.advance(0.1)
    assert window.reading.iterations == 1
    assert [said[:4] for said in window.reading.warnings] == ["W201"]


def test_work_that_raises_ends_the_repetition(rig: Any) -> None:
    with open_on(rig) as meter:
        window = meter.window(max_uncertainty=1e-6)

        def failing() -> None:
            with window:
                for number in window.repeat():
                    rig.work(0.02)
                    1 / (3 - number)

        with pytest.raises(ZeroDivisionError):
            failing()
    assert window.reading.energy_j is not None
