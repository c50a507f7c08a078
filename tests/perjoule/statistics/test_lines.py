from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.statistics.lines import fit_line, line_through


@given(
    base=st.floats(0.0, 100.0),
    step=st.floats(0.01, 100.0),
    steps=st.lists(st.integers(1, 100), min_size=3, max_size=8, unique=True),
)
def test_points_on_a_line_give_the_line(base: float, step: float, steps: list[int]) -> None:
    values = base + step * np.array(steps, float)
    line = line_through(np.array(steps), values)
    for wanted in (1, 50):
        assert line.at(wanted) == pytest.approx(base + step * wanted, rel=1e-6)
    assert line.half_width(50, 0.95) == pytest.approx(0.0, abs=1e-4 * line.at(50))


def test_covariance_is_that_of_numpy_under_the_same_weights() -> None:
    chance = np.random.default_rng(3)
    steps = np.repeat([2, 8, 20, 50], 4)
    values = (5 + 3.0 * steps) * (1 + 0.05 * chance.normal(size=len(steps)))
    line = line_through(steps, values)
    (slope, base), covariance = np.polyfit(steps, values, 1, w=1 / values, cov=True)
    assert (line.base, line.step) == pytest.approx((base, slope))
    assert (line.base, line.step) == pytest.approx(fit_line(steps, values))
    assert line.covariance == pytest.approx(covariance[::-1, ::-1])
    assert line.freedom == 14


def test_a_base_below_nothing_is_none() -> None:
    steps = np.array([10, 20, 40])
    line = line_through(steps, np.array([5.0, 21.0, 52.0]))
    assert line.base == 0.0
    assert line.at(1) > 0
    assert line.freedom == 2
    # -0.5 + 0.5 N, without the base: least squares in units of the values
    slight = line_through(steps, np.array([4.5, 9.5, 19.5]))
    assert slight.base == 0.0
    relative = steps / np.array([4.5, 9.5, 19.5])
    assert slight.step == pytest.approx(relative.sum() / (relative**2).sum())


def test_two_points_say_nothing_of_their_scatter() -> None:
    assert math.isinf(line_through(np.array([1, 4]), np.array([2.0, 5.0])).half_width(2, 0.95))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    chance = np.random.default_rng(1)
    steps = np.repeat([5, 20, 50], 3)
    held = 0
    for _ in range(1_000):
        values = (20 + 17.0 * steps) * (1 + 0.04 * chance.normal(size=len(steps)))
        line = line_through(steps, values)
        held += abs(line.at(30) - (20 + 17.0 * 30)) <= line.half_width(30, 0.95)
    # three standard deviations of a share of 1,000 around 0.95
    assert 0.93 <= held / 1_000 <= 0.97
