from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perjoule.statistics.pareto import hypervolume, non_dominated

POINTS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(float, n, elements=st.integers(1, 9).map(float)),
        hnp.arrays(float, n, elements=st.integers(0, 9).map(float)),
    )
)


@given(POINTS)
def test_non_dominated_is_its_definition(points: tuple[np.ndarray, np.ndarray]) -> None:
    energy, quality = points
    for i, on in enumerate(non_dominated(energy, quality)):
        beaten = any(
            energy[j] <= energy[i] and quality[j] >= quality[i] and (energy[j], quality[j]) != (energy[i], quality[i])
            for j in range(len(energy))
        )
        assert on == (not beaten)


def test_a_point_without_a_number_is_never_on_the_frontier() -> None:
    on = non_dominated(np.array([1.0, np.nan, 2.0]), np.array([1.0, 9.0, np.nan]))
    assert on.tolist() == [True, False, False]


@given(POINTS)
def test_hypervolume_is_the_area_on_a_grid(points: tuple[np.ndarray, np.ndarray]) -> None:
    energy, quality = np.exp2(points[0]), points[1]
    # cells of side 1: a cell counts if some point lies at or left of its left edge and at or above its upper edge
    area = sum(
        any(points[0][i] <= x and quality[i] >= y + 1 for i in range(len(energy)))
        for x in range(0, 10)
        for y in range(0, 10)
    )
    assert hypervolume(energy, quality, (2.0**10, 0.0)) == pytest.approx(area)


def test_hypervolume_of_nothing_is_zero_area() -> None:
    assert hypervolume(np.array([8.0]), np.array([1.0]), (4.0, 0.0)) == 0.0
