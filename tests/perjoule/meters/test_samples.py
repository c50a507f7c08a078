from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.samples import Sample, SensorTiming, integrate, refresh_period
from perjoule.testing import SquareWave
from perjoule.types import IdlePower

IDLE = IdlePower(power_w=60.0, spread_w=0.5, lowest_w=59.0, highest_w=61.0, gap_count=11)
POLL_S = 0.02
INSTANT = SensorTiming(poll_s=POLL_S, period_s=0.1, late_s=POLL_S / 2)
AVERAGE = SensorTiming(poll_s=POLL_S, period_s=0.1, averaging_s=1.0, late_s=POLL_S / 2)


def poll(power_w: float, until_s: float, skip: Collection[int] = ()) -> list[Sample]:
    count = round(until_s / POLL_S) + 1
    return [Sample(t_s=i * POLL_S, power_w=None if i in skip else power_w) for i in range(count)]


def work(begin_s: float, end_s: float, power_w: float = 300.0) -> Callable[[float], float]:
    """Energy in J since 0 of work on 60 W of idle."""
    return lambda t_s: 60.0 * t_s + (power_w - 60.0) * min(max(t_s - begin_s, 0.0), end_s - begin_s)


def shown(
    total_j: Callable[[float], float], begin_s: float, end_s: float, box_s: float, offset_s: float = 0.013
) -> list[Sample]:
    """Polls of a sensor that is refreshed every 0.1 s with the mean over the last `box_s`."""

    def power_w(t_s: float) -> float:
        refreshed_s = (t_s - offset_s) // 0.1 * 0.1 + offset_s
        return (total_j(refreshed_s) - total_j(refreshed_s - box_s)) / box_s

    count = int((end_s - begin_s) / POLL_S) + 1
    return [Sample(t_s=begin_s + i * POLL_S, power_w=power_w(begin_s + i * POLL_S)) for i in range(count)]


def test_constant_power_counts_every_equal_sample() -> None:
    """A meter that drops equal neighbours reads 0 J here; one that stops at the last sample reads low."""
    result = integrate(poll(200.0, 5.0), 0.003, 4.995, INSTANT, IDLE)
    assert result.energy_j == pytest.approx(200.0 * 4.992, rel=1e-9)
    assert result.uncertainty_j is not None
    assert result.uncertainty_j < 0.01 * 200.0 * 5


@pytest.mark.parametrize("box_s", [0.025, 0.1])
@given(begin_s=st.floats(2.0, 2.1), window_s=st.floats(0.3, 3.0))
def test_steady_work_between_rests_is_exact_whatever_the_sensor_sees(
    box_s: float, begin_s: float, window_s: float
) -> None:
    """Refreshes that straddle the ends would pull the mean down; they are left out."""
    end_s = begin_s + window_s
    samples = shown(work(begin_s, end_s), begin_s - 0.05, end_s, box_s)
    result = integrate(samples, begin_s, end_s, INSTANT, IDLE)
    assert result.energy_j == pytest.approx(300.0 * window_s, rel=1e-6)


@given(
    window_s=st.floats(0.3, 6.0),
    offset_s=st.floats(0.0, 0.1),
    load_period_s=st.floats(0.25, 3.0),
    duty=st.floats(0.2, 0.8),
)
def test_the_bound_holds_for_a_sensor_that_sees_all(
    window_s: float, offset_s: float, load_period_s: float, duty: float
) -> None:
    wave = SquareWave(low_w=60.0, high_w=300.0, period_s=load_period_s, duty=duty)

    def total_j(t_s: float) -> float:
        """Idle around a window of square waves that begins at 10 s."""
        inside_s = min(max(t_s - 10.0, 0.0), window_s)
        return 60.0 * (t_s - inside_s) + wave.energy_j(0.0, inside_s)

    stopped_s = 10.0 + window_s
    samples = shown(total_j, 10.0, stopped_s, 0.1, offset_s)
    result = integrate(samples, 10.0, stopped_s, INSTANT, IDLE, swing_w=240.0)
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - wave.energy_j(0.0, window_s)) <= result.uncertainty_j
    assert result.uncertainty_j <= 240.0 * (window_s + 0.2) + 1.0


@pytest.mark.parametrize("window_s", [0.05, 0.4, 2.35])
def test_an_average_is_followed_until_it_has_shown_all(window_s: float) -> None:
    begin_s, end_s = 3.03, 3.03 + window_s
    assert AVERAGE.follow_s(window_s) == pytest.approx(1.1)
    samples = shown(work(begin_s, end_s), begin_s, end_s + 1.1, 1.0)
    result = integrate(samples, begin_s, end_s, AVERAGE, IDLE)
    assert result.energy_j == pytest.approx(300.0 * window_s, rel=0.02, abs=0.4)
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - 300.0 * window_s) < result.uncertainty_j
    # one that stops with the work has seen half a second of it at most
    naive_j = sum(POLL_S * (one.power_w or 0) for one in samples if one.t_s <= end_s)
    assert naive_j < 0.85 * 300.0 * window_s


def test_a_window_that_a_part_time_sensor_may_have_missed_says_so() -> None:
    """50 ms between two looks of 25 ms: nothing is seen, and the bound is what the board could have drawn."""
    begin_s, end_s = 2.02, 2.07
    samples = shown(work(begin_s, end_s), begin_s, end_s + INSTANT.follow_s(0.05), 0.025)
    assert [one.power_w for one in samples] == pytest.approx([60.0] * len(samples))
    blind = integrate(samples, begin_s, end_s, INSTANT, IDLE)
    assert blind.energy_j is not None
    assert blind.uncertainty_j is None
    result = integrate(samples, begin_s, end_s, INSTANT, IDLE, limit_w=400.0)
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert 12.0 <= 15.0 - result.energy_j <= result.uncertainty_j


def test_missing_samples_raise_the_bound_and_not_the_bias() -> None:
    """Power that differs from idle, with 30 % of the samples gone in one piece."""
    whole = integrate(poll(200.0, 5.0), 0.0, 5.0, INSTANT, IDLE, swing_w=140.0)
    holed = integrate(poll(200.0, 5.0, range(30, 105)), 0.0, 5.0, INSTANT, IDLE, swing_w=140.0)
    assert whole.energy_j is not None
    assert holed.energy_j is not None
    assert holed.energy_j == pytest.approx(whole.energy_j)
    assert whole.uncertainty_j is not None
    assert holed.uncertainty_j is not None
    assert holed.uncertainty_j > whole.uncertainty_j + 0.4 * 1.5 * 140
    assert [said[:4] for said in holed.warnings] == ["W207"]


def test_a_hole_over_a_step_is_shared_by_both_sides() -> None:
    """Whatever the power in the hole was, at 60 to 300 W it is covered."""
    samples = [one for one in shown(work(0.0, 3.0), 0.0, 6.0, 0.1) if not 2.0 < one.t_s < 4.0]
    result = integrate(samples, 0.0, 6.0, INSTANT, IDLE)
    assert result.energy_j == pytest.approx(300 * 3 + 60 * 3, abs=0.1 * 240)
    assert result.uncertainty_j is not None
    assert result.uncertainty_j > 240 * 1.9 / 2


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        ([], "W207"),
        ([Sample(t_s=0.0, power_w=None)], "W207"),
        (poll(200.0, 1.0, [i for i in range(40) if i % 4]), "W207"),
        (poll(500.0, 1.0), "W212"),
    ],
)
def test_no_number_without_evidence(samples: list[Sample], code: str) -> None:
    result = integrate(samples, 0.0, 0.8, INSTANT, IDLE, limit_w=400.0)
    assert result.energy_j is None
    assert result.uncertainty_j is None
    assert result.warnings[0].startswith(code)


@pytest.mark.parametrize(("timing", "box_s"), [(INSTANT, 0.025), (INSTANT, 0.1), (AVERAGE, 1.0)])
@pytest.mark.parametrize("lost_after_s", [0.05, 0.85, 1.0, 2.62])
def test_what_was_seen_until_the_source_was_lost_is_kept(
    timing: SensorTiming, box_s: float, lost_after_s: float
) -> None:
    begin_s, end_s = 2.0371, 6.0
    samples = [
        one if one.t_s < begin_s + lost_after_s else Sample(t_s=one.t_s, power_w=None, problem="the GPU is lost")
        for one in shown(work(begin_s, end_s), begin_s - 0.05, end_s, box_s)
    ]
    result = integrate(samples, begin_s, end_s, timing, IDLE)
    assert result.energy_j is None
    assert result.uncertainty_j is None
    assert [said[:4] for said in result.warnings] == ["W220"]
    assert "the GPU is lost" in result.warnings[0]
    assert result.partial_s == pytest.approx(lost_after_s, abs=POLL_S + 1e-9)
    assert result.partial_energy_j == pytest.approx(300.0 * lost_after_s, abs=300.0 * 0.1)  # a refresh at most


def test_a_source_that_was_lost_before_the_window_has_nothing_to_give() -> None:
    samples = [Sample(t_s=0.0, power_w=60.0), *(Sample(t_s=0.1 * i, power_w=None, problem="off") for i in range(1, 30))]
    result = integrate(samples, 1.0, 2.9, INSTANT, IDLE)
    assert (result.energy_j, result.partial_energy_j, result.partial_s) == (None, None, None)
    assert result.warnings == ("W220: off; there are no samples of the last 1.900 s",)


def test_the_refresh_period_is_seen_through_equal_values_and_missing_samples() -> None:
    values = [61.0, 60.0, 60.0, 61.0, 62.0, 60.0]  # W, one refresh each
    samples = [Sample(t_s=i * 0.005, power_w=values[int(i * 0.005 / 0.1)]) for i in range(120)]
    assert refresh_period(samples) == pytest.approx(0.1, abs=0.006)
    holed = [Sample(t_s=one.t_s, power_w=None) if i % 7 == 3 else one for i, one in enumerate(samples)]
    assert refresh_period(holed) == pytest.approx(0.1, abs=0.006)
    assert refresh_period(poll(60.0, 1.0)) is None
