from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from perjoule.statistics.resampling import bootstrap_weights, percentile_estimate, ratio_of_sums


def test_the_interval_agrees_with_scipy() -> None:
    chance = np.random.default_rng(3)
    joules, images = chance.normal(100, 20, (60, 1)), np.full((60, 1), 8.0)
    value, samples = ratio_of_sums(joules, images, bootstrap_weights(60, 20_000))
    ours = percentile_estimate(value[0], samples[:, 0], 60, "x")
    theirs = bootstrap(
        (joules[:, 0] / 8,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert ours.value == pytest.approx(joules.mean() / 8)
    assert (ours.low, ours.high) == pytest.approx(
        (theirs.low, theirs.high), abs=0.04
    )  # four standard errors of two quantiles


def test_missing_units_are_left_out_not_zero() -> None:
    joules = np.array([[10.0, 10.0], [np.nan, 30.0]])
    value, _ = ratio_of_sums(joules, np.ones_like(joules), bootstrap_weights(2))
    assert value.tolist() == [10.0, 20.0]


def test_no_interval_from_one_unit_and_no_number_from_none() -> None:
    one = percentile_estimate(5.0, np.full(2000, 5.0), 1, "x")
    assert (one.value, one.low, one.high) == (5.0, None, None)
    none = percentile_estimate(float("nan"), np.full(2000, np.nan), 0, "x")
    assert none.value is None


def test_weights_are_the_same_for_all_cells_and_runs() -> None:
    assert np.array_equal(bootstrap_weights(7), bootstrap_weights(7))
    assert (bootstrap_weights(7).sum(1) == 7).all()
