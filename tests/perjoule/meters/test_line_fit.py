"""A line through points whose errors drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from perjoule.meters.line_fit import Points, fit_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def points(reading_w: Floats, external_w: Floats, visit: Floats, step_s: float = 0.5) -> Points:
    count = len(reading_w)
    return Points(
        reading_w=reading_w, external_w=external_w, slope_w=np.zeros(count), visit=visit, size=np.ones(count),
        t_s=step_s * np.arange(count, dtype=np.float64),
    )  # fmt: skip


def visits(count: int, each: int) -> Floats:
    return np.repeat(np.arange(count, dtype=np.float64), each)


def test_without_drift_it_is_least_squares() -> None:
    chance = np.random.default_rng(2)
    visit = visits(6, 10)
    reading_w = np.where(visit % 2 == 0, 60.0, 300.0) + chance.normal(0, 1, 60)
    external_w = 1.05 * reading_w - 3 + chance.normal(0, 0.5, 60)
    line = fit_line(points(reading_w, external_w, visit))
    gain, offset_w = np.polyfit(reading_w, external_w, 1)
    assert line.gain.value == pytest.approx(gain, abs=3e-4)
    assert line.offset_w.value == pytest.approx(offset_w, abs=0.06)
    spread_w = float(np.std(external_w - gain * reading_w - offset_w, ddof=2))
    least = 1.96 * spread_w / np.sqrt(60) / reading_w.std()
    assert least < line.gain.half < 4 * least


@pytest.mark.parametrize("keeps", [0.0, 0.6, 0.9])
def test_the_intervals_contain_the_truth_under_drift(keeps: float) -> None:
    """Errors of which a share lasts from point to point."""
    chance, visit = np.random.default_rng(4), visits(4, 5)
    shown_w = np.where(visit % 2 == 0, 120.0, 400.0)
    inside = []
    for _ in range(80):
        errors_w = np.zeros(20)
        errors_w[0] = chance.normal()
        for i in range(1, 20):
            errors_w[i] = keeps * errors_w[i - 1] + np.sqrt(1 - keeps**2) * chance.normal()
        line = fit_line(points(shown_w + chance.normal(0, 0.5, 20), shown_w + errors_w, visit))
        inside += [line.gain.low <= 1 <= line.gain.high, line.offset_w.low <= 0 <= line.offset_w.high]
    assert np.mean(inside) >= 0.93


def test_an_error_of_each_visit_is_not_averaged_over_its_points() -> None:
    """Least squares contains the gain in half of the cases, as its interval counts every point."""
    chance, inside, independent = np.random.default_rng(5), [], []
    visit = visits(6, 8)
    shown_w = np.where(visit % 2 == 0, 120.0, 400.0)
    for _ in range(100):
        of_visits_w = chance.normal(0, 1.0, 6)[visit.astype(int)]
        errors_w = of_visits_w + chance.normal(0, 0.3, 48)
        line = fit_line(points(shown_w, shown_w + errors_w, visit))
        inside.append(line.gain.low <= 1 <= line.gain.high)
        least = 2.01 * errors_w.std(ddof=2) / np.sqrt(48) / shown_w.std()
        independent.append(abs(np.polyfit(shown_w, errors_w, 1)[0]) <= least)
    assert np.mean(inside) >= 0.87
    assert np.mean(independent) <= 0.6


def test_a_shift_between_the_logs_does_not_move_the_gain() -> None:
    chance = np.random.default_rng(6)
    visit = visits(6, 8)
    reading_w = np.where(visit % 2 == 0, 120.0, 400.0) + chance.normal(0, 0.3, 48)
    slope_w = np.where(np.arange(48) % 8 == 7, 20.0 * (-1) ** visit, 0.0)
    given = points(reading_w, 1.1 * reading_w + 5 + 0.8 * slope_w, visit)
    line = fit_line(Points(**{**{name: getattr(given, name) for name in given.__slots__}, "slope_w": slope_w}))
    assert line.gain.value == pytest.approx(1.1, abs=1e-4)


def test_points_at_one_power_are_an_error() -> None:
    with pytest.raises(ValueError, match="do not determine"):
        fit_line(points(np.full(9, 100.0), np.full(9, 105.0), visits(3, 3)))
