"""Numbers for people."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.display import before_after, bounded, change, changes, duration, percent_interval, quantity
from perjoule.types import Estimate, Interval

SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (4.16, "4.2 s"),
        (40.0, "40 s"),
        (59.7, "1 min"),
        (401.0, "6 min 41 s"),
        (3599.6, "1 h"),
        (4546.0, "1 h 16 min"),
        (86_399.0, "1 d"),
        (100_000.0, "1 d 4 h"),
    ],
)
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(10, 1e7))
def test_a_duration_is_right_to_half_of_its_smaller_unit(seconds: float) -> None:
    parts = re.findall(r"(\d+) (d|h|min|s)", duration(seconds))
    units = [unit for _, unit in parts]
    assert [unit for unit in SECONDS if unit in units] == units
    order = list(SECONDS)
    smaller = order[min(order.index(units[0]) + 1, len(order) - 1)]
    assert abs(sum(int(count) * SECONDS[unit] for count, unit in parts) - seconds) <= SECONDS[smaller] / 2 + 0.5


def test_a_quantity_has_a_prefix() -> None:
    assert [quantity(j, "J") for j in (0.0, 0.25, 8500.0, None)] == ["0 J", "250 mJ", "8.50 kJ", "–"]


@pytest.mark.parametrize(
    ("value", "bound", "text"),
    [
        (8512.3, 31.0, "8.512 kJ ± 0.031 kJ (0.4 %)"),
        (0.0421, 0.0032, "42.10 mJ ± 3.2 mJ (7.6 %)"),
        (0.0, 2.5, "0 J ± 2.5 J"),
        (240.0, None, "240.0 J, bound unknown"),
    ],
)
def test_a_bound_has_the_unit_of_its_quantity(value: float, bound: float | None, text: str) -> None:
    assert bounded(value, bound, "J") == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.1332, 0.0815, None, "13.3 % [8.2, open]"),
        (-0.05, -0.1, 0.0, "-5.0 % [-10.0, 0.0]"),
    ],
)
def test_an_interval_may_be_open(value: float, low: float | None, high: float | None, text: str) -> None:
    assert percent_interval(Estimate(value=value, low=low, high=high, level=0.95, n=9, method="none")) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "percent", "text"),
    [
        (0.1223, 0.1163, 0.1283, True, "+12.2 % [+11.6, +12.8]"),
        (-0.3026, -0.3167, -0.2889, False, "−0.303 [−0.317, −0.289]"),
        (-0.0743, -0.46, None, True, "−7 % [−46, open]"),
        (0.125, None, None, True, "+12.5 %"),
        (0.0, 0.0, 0.0, True, "no difference"),
        (0.0, 0.0, 0.0, False, "no difference"),
        (0.0, -0.01, 0.01, True, "0.0 % [−1.0, +1.0]"),
        (None, None, None, True, "–"),
    ],
)
def test_a_change_has_its_unit_once(
    value: float | None, low: float | None, high: float | None, percent: bool, text: str
) -> None:
    assert change(Interval(value=value, low=low, high=high), percent=percent) == text


def test_the_changes_of_a_column_have_as_many_decimals_each() -> None:
    column = [Interval(value=v, low=v - w, high=v + w) for v, w in ((-0.29, 0.04), (-0.318, 0.0386), (1.0, 0.039))]
    decimals = {len(part) for text in changes(column, percent=False) for part in re.findall(r"\.(\d+)", text)}
    assert len(decimals) == 1


@given(st.floats(1e-6, 1e12), st.floats(1e-3, 1e3))
def test_energies_before_and_after_share_a_unit(joules: float, factor: float) -> None:
    text = before_after((joules, joules * factor))
    assert text.count("J per image") == 1
    assert ("→" in text) == (joules * factor != joules)
