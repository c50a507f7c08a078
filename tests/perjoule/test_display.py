"""Numbers for people."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.display import duration, quantity

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
