from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.testing import ConstantPower, LateWave, SquareWave, SyntheticMeter, VirtualClock, WorkBetweenRests


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


SHAPE = WorkBetweenRests(
    rest_w=60.0, work_w=300.0, begin_s=1.0, end_s=1.5, rise_s=0.004, fall_s=0.01, settle_w=20.0, settle_s=0.3
)


def test_a_board_rises_falls_and_settles() -> None:
    assert SHAPE(0.999) == 60.0
    assert SHAPE(1.002) == pytest.approx(180.0)  # half of the rise
    assert SHAPE(1.2) == 300.0
    assert SHAPE(1.505) == pytest.approx(180.0 + 10.0, abs=0.3)  # half of the fall, to a rest that is 20 W higher
    assert SHAPE(1.8) == pytest.approx(60.0 + 20.0 / math.e)
    assert SHAPE(9.0) == pytest.approx(60.0, abs=1e-6)


@given(begin_s=st.floats(0.5, 2.0), length_s=st.floats(0.0, 1.5))
def test_the_energy_of_a_shape_is_the_integral_of_its_power(begin_s: float, length_s: float) -> None:
    panels = 20_000
    steps = (begin_s + length_s * (i + 0.5) / panels for i in range(panels))
    by_sum_j = sum(SHAPE(t_s) for t_s in steps) * length_s / panels
    assert SHAPE.energy_j(begin_s, begin_s + length_s) == pytest.approx(by_sum_j, abs=2e-4)


def test_without_ramps_a_shape_is_a_step() -> None:
    step = WorkBetweenRests(rest_w=60.0, work_w=300.0, begin_s=1.0, end_s=1.5)
    assert step.energy_j(0.0, 2.0) == pytest.approx(60.0 * 2 + 240.0 * 0.5)


@pytest.mark.parametrize("wrong", [{"end_s": 1.001}, {"fall_s": -1.0}, {"settle_s": 0.0}])
def test_an_impossible_shape_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SHAPE, **wrong)


def test_what_a_sensor_shows_late_is_late() -> None:
    late = LateWave(wave=SHAPE, lag_s=0.2)
    assert late(1.4) == SHAPE(1.2)
    assert late.energy_j(1.2, 1.7) == SHAPE.energy_j(1.0, 1.5)


def test_a_box_spreads_power_and_keeps_its_energy() -> None:
    late = LateWave(wave=SHAPE, box_s=0.4)
    assert late(1.2) == pytest.approx(SHAPE.energy_j(0.8, 1.2) / 0.4)
    assert late.energy_j(0.5, 1.2) < SHAPE.energy_j(0.5, 1.2) - 10.0
    whole_j = SHAPE.energy_j(0.0, 20.0) - 60.0 * 20.0
    assert late.energy_j(0.0, 20.0) - 60.0 * 20.0 == pytest.approx(whole_j, abs=1e-3)
