from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.edges import IdlePower
from perjoule.meters.samples import Sample, SensorTiming, integrate, refresh_period
from perjoule.testing import SquareWave

IDLE = IdlePower(power_w=60.0, spread_w=0.5)
TIMING = SensorTiming(poll_s=0.02, period_s=0.1, settle_s=0.2)


def poll(power_w: float, until_s: float, skip: set[int] = frozenset()) -> list[Sample]:  # type: ignore[assignment]
    count = round(until_s / 0.02) + 1
    return [Sample(t_s=i * 0.02, power_w=None if i in skip else power_w) for i in range(count)]


def test_constant_power_counts_every_equal_sample() -> None:
    """A meter that drops equal neighbours reads 0 J here; one that stops at the last sample reads low."""
    idle = IdlePower(power_w=200.0, spread_w=0.0)
    result = integrate(poll(200.0, 5.2), 0.003, 4.995, TIMING, idle)
    assert result.energy_j == pytest.approx(200.0 * 4.992, rel=1e-9)
    assert result.uncertainty_j is not None
    assert result.uncertainty_j < 0.01


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
        return 60.0 * (t_s - min(max(t_s - 10.0, 0.0), window_s)) + wave.energy_j(
            0.0, min(max(t_s - 10.0, 0.0), window_s)
        )

    def shown_w(t_s: float) -> float:
        refreshed_s = (t_s - offset_s) // 0.1 * 0.1 + offset_s
        return (total_j(refreshed_s) - total_j(refreshed_s - 0.1)) / 0.1

    stopped_s = 10.0 + window_s
    times = [10.0 + 0.02 * i for i in range(int((window_s + 0.2) / 0.02) + 1)]
    samples = [Sample(t_s=t_s, power_w=shown_w(t_s)) for t_s in times]
    result = integrate(samples, 10.0, stopped_s, TIMING, IDLE)
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    truth_j = wave.energy_j(0.0, window_s)
    assert abs(result.energy_j - truth_j) <= result.uncertainty_j
    assert result.uncertainty_j <= 240.0 * (window_s + 0.2) + 1.0


def test_missing_samples_raise_the_bound_and_not_the_bias() -> None:
    """Power that differs from idle, with 30 % of the samples gone in one piece."""
    timing, hole = TIMING, set(range(30, 105))
    whole = integrate(poll(200.0, 5.2), 0.0, 5.0, timing, IDLE)
    holed = integrate(poll(200.0, 5.2, hole), 0.0, 5.0, timing, IDLE)
    assert whole.energy_j is not None
    assert holed.energy_j is not None
    assert holed.energy_j == pytest.approx(whole.energy_j)
    assert whole.uncertainty_j is not None
    assert holed.uncertainty_j is not None
    assert holed.uncertainty_j > whole.uncertainty_j + 0.4 * 1.5 * 140
    assert [said[:4] for said in holed.warnings] == ["W207"]


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        ([], "W207"),
        ([Sample(t_s=0.0, power_w=None)], "W207"),
        (poll(200.0, 1.0, set(range(0, 40))), "W207"),
        (poll(500.0, 1.0), "W212"),
    ],
)
def test_no_number_without_evidence(samples: list[Sample], code: str) -> None:
    result = integrate(samples, 0.0, 0.8, TIMING, IDLE, limit_w=400.0)
    assert result.energy_j is None
    assert result.uncertainty_j is None
    assert result.warnings[0].startswith(code)


def test_the_refresh_period_is_seen_through_equal_values() -> None:
    values = [61.0, 60.0, 60.0, 61.0, 62.0, 60.0]  # W, one refresh each
    samples = [Sample(t_s=i * 0.005, power_w=values[int(i * 0.005 / 0.1)]) for i in range(120)]
    assert refresh_period(samples) == pytest.approx(0.1, abs=0.006)
    assert refresh_period(poll(60.0, 1.0)) is None
