from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.testing import ConstantPower, SquareWave, SyntheticMeter, VirtualClock


def test_constant_power_is_power_times_time() -> None:
    clock = VirtualClock(5.0)
    with SyntheticMeter(40.0, clock, idle_w=10.0) as meter:
        assert meter.learn_idle(1.0) == 10.0
        with meter.window("a") as window:
            clock.advance(2.5)
    reading = window.reading
    assert (reading.energy_j, reading.uncertainty_j, reading.net_energy_j) == (100.0, 0.0, 75.0)
    assert reading.provenance == "simulated"
    assert meter.truths_j == [100.0]


@given(
    begin_s=st.floats(0, 50),
    length_s=st.floats(0.01, 20),
    period_s=st.floats(0.05, 3),
    duty=st.floats(0, 1),
)
def test_square_waves_agree_with_their_own_power(begin_s: float, length_s: float, period_s: float, duty: float) -> None:
    wave = SquareWave(low_w=60.0, high_w=300.0, period_s=period_s, duty=duty)
    count = 20_000
    step_s = length_s / count
    summed_j = 0.0
    for i in range(0, count, 10):  # every tenth of the midpoints is close enough for the bound below
        summed_j += wave(begin_s + (i + 5) * step_s) * 10 * step_s
    jumps = 2 * length_s / period_s + 2
    assert wave.energy_j(begin_s, begin_s + length_s) == pytest.approx(summed_j, abs=240 * 10 * step_s * jumps + 1e-6)


def test_smooth_functions_are_integrated() -> None:
    clock = VirtualClock()
    with SyntheticMeter(lambda t_s: 100 + 50 * math.sin(t_s), clock) as meter, meter.window() as window:
        clock.advance(3.0)
    assert window.reading.energy_j == pytest.approx(300 + 50 * (1 - math.cos(3.0)), rel=1e-9)


def test_errors_stay_within_the_stated_bound_and_repeat_with_the_seed() -> None:
    def errors(seed: int) -> list[float]:
        clock = VirtualClock()
        found = []
        with SyntheticMeter(ConstantPower(100.0), clock, uncertainty_j=3.0, seed=seed) as meter:
            for _ in range(200):
                with meter.window() as window:
                    clock.advance(1.0)
                assert window.reading.energy_j is not None
                found.append(window.reading.energy_j - 100.0)
        return found

    one = errors(1)
    assert max(map(abs, one)) <= 3.0
    assert max(one) > 2.0
    assert min(one) < -2.0
    assert errors(1) == one != errors(2)


def test_windows_fail_on_request() -> None:
    clock = VirtualClock()
    readings = []
    with SyntheticMeter(10.0, clock, failing=lambda window: window == 1) as meter:
        for _ in range(3):
            with meter.window() as window:
                clock.advance(1.0)
            readings.append(window.reading)
    assert [r.energy_j for r in readings] == [10.0, None, 10.0]
    assert readings[1].warnings[0].startswith("W220")


def test_the_clock_does_what_falls_due_in_order() -> None:
    clock, seen = VirtualClock(), []
    cancel = clock.every(0.25, lambda: seen.append(clock.now()))
    clock.sleep(0.6)
    clock.sleep(-1.0)
    assert seen == [0.25, 0.5]
    assert clock.now() == 0.6
    cancel()
    clock.advance(5.0)
    assert len(seen) == 2
