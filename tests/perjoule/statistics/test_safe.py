"""Safe ends: what at least nine in ten resamples keep."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from perjoule.statistics.safe import kept, least_kept

VALUES = arrays.arrays(np.float64, st.tuples(st.integers(1, 60), st.just(1)), elements=st.integers(-5, 5).map(float))


@given(VALUES, st.sampled_from((0.5, 0.9, 0.975, 1.0)))
def test_the_least_is_kept_by_enough_and_no_larger_value_is(values: np.ndarray, share: float) -> None:
    least = least_kept(values, share)[0]
    assert (values >= least).mean() >= share
    above = values[values > least]
    assert not len(above) or (values >= above.min()).mean() < share


@given(VALUES, st.integers(-5, 5), st.integers(-5, 5), st.sampled_from((0.5, 0.9, 0.975)))
def test_a_demand_is_kept_if_the_point_and_enough_resamples_meet_it(
    values: np.ndarray, point: int, demand: int, share: float
) -> None:
    keeps = kept(np.array([float(point)]), values, share)[0]
    assert (keeps >= demand) == (point >= demand and (values >= demand).mean() >= share)


def test_what_is_absent_keeps_nothing() -> None:
    assert np.isnan(least_kept(np.empty((0, 2)))).all()
    few, many = np.full((20, 1), 1.0), np.full((20, 1), 1.0)
    few[:2], many[:3] = np.nan, np.nan
    assert least_kept(few)[0] == 1.0
    assert np.isnan(least_kept(many)[0])
    assert np.isnan(kept(np.array([np.nan]), few)[0])
