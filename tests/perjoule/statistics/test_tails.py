from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from perjoule.statistics.resampling import resample_means
from perjoule.statistics.tails import at_or_below, tail_estimates


def tails(quality: np.ndarray, resamples: int = 4_000) -> list:  # type: ignore[type-arg]
    return tail_estimates(quality, resample_means(at_or_below(quality), resamples=resamples))


def test_the_percentile_is_an_order_statistic_and_so_are_its_limits() -> None:
    n = 200
    values = np.random.default_rng(1).permutation(n).astype(float)
    (found,) = tails(values[:, None, None], 10_000)
    assert found.value == 19  # the 20th of 200
    low, high = binom.ppf([0.025, 0.975], n, 0.1) - 1
    assert found.low == pytest.approx(low, abs=1)
    assert found.high == pytest.approx(high, abs=1)


def test_seeds_share_the_weight_of_their_prompt() -> None:
    quality = np.full((10, 4, 1), 5.0)
    quality[0, :2, 0] = 1.0, np.nan  # one of three images of one prompt in ten: a share of 1/30
    assert tails(quality)[0].value == 5.0
    quality[0, :, 0] = 1.0
    assert tails(quality)[0].value == 1.0


def test_too_few_prompts_leave_the_lower_limit_open() -> None:
    (found,) = tails(np.arange(12.0)[:, None, None])
    assert found.low is None
    assert found.high is not None
    (alone,) = tails(np.ones((1, 3, 1)))
    assert (alone.value, alone.low, alone.high) == (1.0, None, None)
    (nothing,) = tails(np.full((3, 1, 1), np.nan))
    assert (nothing.value, nothing.n) == (None, 0)


def test_intervals_cover_the_percentile_of_prompts_with_correlated_seeds() -> None:
    chance = np.random.default_rng(3)
    truth, worlds = norm.ppf(0.1) * np.sqrt(2), 400
    quality = chance.normal(size=(100, 1, worlds)) + chance.normal(size=(100, 3, worlds))
    hit = [e.low is not None and e.high is not None and e.low <= truth <= e.high for e in tails(quality, 1_000)]
    assert 0.92 <= np.mean(hit) <= 0.985
