from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from perjoule.statistics.resampling import SEED, _weights, bca_limits, resample_means, summable


def mean(rows: np.ndarray) -> np.ndarray:
    return rows[:, 0]


def test_one_level_is_scipys_bca_with_the_same_draws() -> None:
    sample = np.random.default_rng(1).lognormal(size=40)
    means = resample_means(sample[:, None, None], resamples=4_000)
    found = bca_limits(sample.mean(), mean(means.resamples), mean(means.jackknife))
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=4_000, method="BCa", rng=np.random.default_rng(SEED)
    ).confidence_interval
    assert means.point[0, 0] == pytest.approx(sample.mean(), abs=1e-12)
    assert found == pytest.approx(tuple(theirs), abs=1e-9)


def test_one_level_ratio_is_scipys_paired_bootstrap() -> None:
    chance = np.random.default_rng(2)
    a, b = chance.lognormal(size=60), chance.lognormal(1, size=60)
    means = resample_means(np.stack([a, b], 1)[:, None], resamples=4_000)

    def ratio(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[:, 0] / rows[:, 1])

    found = bca_limits(a.mean() / b.mean(), ratio(means.resamples), ratio(means.jackknife))
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis=-1: x.mean(axis) / y.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=4_000,
        method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    assert found == pytest.approx(tuple(theirs), abs=1e-9)


def test_expansion_makes_a_mean_of_normals_cover_as_students_t_does() -> None:
    n = 20
    sample = np.random.default_rng(6).normal(size=n)
    found = resample_means(sample[:, None, None], resamples=50_000).estimate(mean)
    assert found.low is not None
    assert found.high is not None
    t = stats.t.interval(0.95, n - 1, sample.mean(), sample.std(ddof=1) / np.sqrt(n))
    assert found.high - found.low == pytest.approx(t[1] - t[0], rel=0.05)


@pytest.mark.parametrize("prompt_sd", [0.0, 1.0])
def test_the_scatter_of_seeds_counts_once(prompt_sd: float) -> None:
    """Var of the mean is that of the prompts' means over P, whether prompts or seeds make them scatter."""
    chance = np.random.default_rng(3)
    values = prompt_sd * chance.normal(size=(40, 1, 1)) + chance.normal(size=(40, 3, 1))
    means = resample_means(values, resamples=20_000)
    assert means.resamples.var() == pytest.approx(values.mean(1).var() / 40, rel=0.05)
    assert means.point[0, 0] == pytest.approx(values.mean())


def test_arms_share_their_draws() -> None:
    values = np.random.default_rng(4).normal(size=(20, 2, 1)) + np.array([0.0, 1.0])
    rows = resample_means(values, resamples=500).resamples
    assert rows[:, 1] - rows[:, 0] == pytest.approx(1.0)
    assert rows[:, 0].std() > 0.05


@given(st.integers(0, 1_000))
def test_holes_are_left_out_and_prompts_count_alike(seed: int) -> None:
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(9, 3, 2))
    values[chance.random(values.shape) < 0.3] = np.nan
    means = resample_means(values, resamples=50)
    for column in range(2):
        known = values[np.isfinite(values[..., column]).any(1), :, column]
        if len(known):
            assert means.point[0, column] == pytest.approx(np.nanmean(np.nanmean(known, axis=1)))


@given(st.integers(0, 1_000), st.integers(2, 70), st.sampled_from([1e-300, 1e-3, 1.0, 1e9]))
def test_sums_are_exact_whatever_their_order(seed: int, prompts: int, scale: float) -> None:
    """What holds on every BLAS: each resampled mean is the exact sum, rounded once by the division."""
    values = scale * np.random.default_rng(seed).normal(size=(prompts, 1, 3)) ** 3
    means = resample_means(values, resamples=20)
    rounded = summable(values[:, 0])
    assert rounded == pytest.approx(values[:, 0], abs=prompts * 2**-52 * float(np.abs(values).max()))
    (_, weights), *_ = _weights(prompts, 20, SEED)
    exact = [[math.fsum(w * x for w, x in zip(row, column, strict=True)) for column in rounded.T] for row in weights]
    assert np.array_equal(means.resamples, np.array(exact) / prompts)
    assert np.array_equal(means.point[0], [math.fsum(column) / prompts for column in rounded.T])


def test_portions_and_neighbours_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=(33, 3, 2))
    whole = resample_means(values, resamples=100).resamples
    alone = resample_means(values[..., 1:], resamples=100).resamples
    monkeypatch.setattr("perjoule.statistics.resampling._CHUNK_BYTES", 8 * 33 * 7)
    assert np.array_equal(resample_means(values, resamples=100).resamples, whole)
    assert np.array_equal(whole[:, 1:], alone)


def test_nothing_to_sum() -> None:
    assert summable(np.empty((0, 2))).shape == (0, 2)
    assert summable(np.zeros((3, 2))).tolist() == np.zeros((3, 2)).tolist()


def test_no_interval_from_one_prompt_and_no_number_from_none() -> None:
    one = resample_means(np.ones((1, 5, 1))).estimate(mean)
    assert (one.value, one.low, one.high, one.n) == (1.0, None, None, 1)
    none = resample_means(np.full((3, 2, 1), np.nan)).estimate(mean)
    assert (none.value, none.low, none.high, none.n) == (None, None, None, 0)


def test_open_ends_and_missing_rows() -> None:
    rows = np.linspace(0, 1, 1_000)
    half_open = np.where(rows < 0.1, -np.inf, rows)
    low, high = bca_limits(0.5, half_open, np.zeros(0))
    assert low == -np.inf
    assert high == pytest.approx(0.975, abs=0.01)
    assert np.isnan(bca_limits(0.5, np.where(rows < 0.1, np.nan, rows), np.zeros(0))).all()


def test_a_constant_has_an_interval_of_no_width() -> None:
    found = resample_means(np.full((40, 2, 1), 0.1 + 0.2)).estimate(mean)
    assert (found.low, found.high) == pytest.approx((0.3, 0.3), abs=1e-12)
