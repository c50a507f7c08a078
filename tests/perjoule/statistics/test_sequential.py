from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perjoule.errors import UsageError
from perjoule.statistics.designs import DESIGNS, Design
from perjoule.statistics.sequential import (
    bounds,
    corrected_quantile,
    corrected_statistic,
    crossing_probabilities,
    nominal_levels,
    sequence_width,
    skewness_of_mean,
    spent,
)

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
EIGHTHS = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
SPENDING: tuple[Design, ...] = ("pocock", "obrien-fleming")
shares = st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True).map(
    lambda parts: tuple(part / 40 for part in sorted(parts))
)


@pytest.mark.parametrize(
    ("looks", "pocock", "obrien_fleming"),
    [(1, 1.960, 1.960), (2, 2.178, 1.977), (3, 2.289, 2.004), (4, 2.361, 2.024), (5, 2.413, 2.040), (10, 2.555, 2.087)],
)
def test_the_constants_of_jennison_and_turnbull_cost_five_per_cent(
    looks: int, pocock: float, obrien_fleming: float
) -> None:
    """Tables 2.1 and 2.3 of Jennison and Turnbull (2000): two-sided tests at 5 %, equal groups."""
    at = [(k + 1) / looks for k in range(looks)]
    for upper in ([pocock] * looks, [obrien_fleming / np.sqrt(share) for share in at]):
        error = sum(crossing_probabilities(at, upper, [-bound for bound in upper]))
        assert error == pytest.approx(0.05, abs=1.5e-4)  # the tables have three decimals


@pytest.mark.parametrize(
    ("design", "published"),
    [
        ("obrien-fleming", (4.8769, 3.3570, 2.6803, 2.2898, 2.0310)),
        ("pocock", (2.4380, 2.4268, 2.4102, 2.3966, 2.3860)),
    ],
)
def test_bounds_of_spending_functions_are_those_of_gsdesign(design: Design, published: tuple[float, ...]) -> None:
    """gsDesign (R), sfLDOF and sfLDPocock, one-sided 2.5 %, five equal looks; also in the literature."""
    assert bounds(design, FIFTHS, 0.025) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize("design", SPENDING)
def test_the_error_agrees_with_the_multivariate_normal_of_scipy(design: Design) -> None:
    at = np.array([0.125, 0.25, 0.5, 1.0])
    correlation = np.sqrt(np.minimum.outer(at, at) / np.maximum.outer(at, at))
    inside = stats.multivariate_normal(cov=correlation).cdf(np.minimum(bounds(design, tuple(at), 0.05), 8))
    assert 1 - inside == pytest.approx(0.05, abs=5e-5)


@settings(max_examples=15, deadline=None)
@given(at=shares, design=st.sampled_from(SPENDING), alpha=st.sampled_from([0.05, 0.025, 0.005]))
def test_each_look_spends_its_share(at: tuple[float, ...], design: Design, alpha: float) -> None:
    crossing = np.cumsum(crossing_probabilities(at, bounds(design, at, alpha)))
    assert crossing == pytest.approx([spent(design, share, alpha) for share in at], rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("design", DESIGNS)
def test_more_tests_share_the_error_at_every_look(design: Design) -> None:
    """Holm's method needs levels that do not increase with the number of tests; a single look is a plain test."""
    levels = np.array([nominal_levels(design, EIGHTHS, 0.05 / n) for n in (1, 2, 3, 8, 40)])
    assert (np.diff(levels, axis=0) < 0).all()
    assert (levels <= 0.05).all()
    if design in SPENDING:
        assert nominal_levels(design, (1.0,), 0.05) == pytest.approx((0.05,))
        # half the nominal levels would spend more than half the error
        halved = stats.norm.isf(levels[0] / 2)
        assert sum(crossing_probabilities(EIGHTHS, list(halved))) > 0.0255


def test_pocock_stops_early_and_obrien_fleming_late() -> None:
    early, late = (nominal_levels(design, EIGHTHS, 0.05) for design in SPENDING)
    assert early[0] > 0.009
    assert late[0] < 1e-4
    assert late[-1] > early[-1]


@pytest.mark.parametrize("at", [(), (0.0, 1.0), (0.5, 0.5), (0.5, 1.1), (0.7, 0.3)])
def test_shares_increase_from_above_zero_to_one(at: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="shares"):
        nominal_levels("pocock", at, 0.05)


def test_a_confidence_sequence_spends_no_error() -> None:
    with pytest.raises(UsageError, match="spends no error"):
        spent("confidence-sequence", 0.5, 0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_a_confidence_sequence_covers_at_all_times_together(alpha: float) -> None:
    """Brownian paths cross the one-sided limit with at most alpha, although every one of 200 times is looked at."""
    steps = np.random.default_rng(0).normal(size=(8_000, 200)) / np.sqrt(200)
    at = np.arange(1, 201) / 200
    z = np.cumsum(steps, 1) / np.sqrt(at)
    crossed = (z > [sequence_width(share, alpha) for share in at]).any(1).mean()
    assert crossed < alpha
    assert crossed > alpha / 8  # not uselessly wide


def test_a_confidence_sequence_is_narrowest_where_it_was_planned() -> None:
    widths = [sequence_width(share, 0.05) / np.sqrt(share) * np.sqrt(0.25) for share in (0.25, 1.0)]
    assert widths[0] < 2.8
    assert sequence_width(0.25, 0.05) < min(sequence_width(share, 0.05) for share in (0.05, 1.0))
    # the mixture of Robbins: √(r + 1) exp(−z² r/(2 (r + 1))) = 2 alpha at the limit of the two-sided sequence
    assert sequence_width(4.0, 0.05) > sequence_width(1.0, 0.05)


class TestSkewness:
    @staticmethod
    def errors(skew: float, n: int, level: float) -> tuple[float, float]:
        """Shares of false rejections of Student's t and of the corrected one, at the mean of a log-normal."""
        x = np.random.default_rng(1).lognormal(0, skew, size=(20_000, n)) - np.exp(skew**2 / 2)
        t = -x.mean(1) / (x.std(1, ddof=1) / np.sqrt(n))
        a = -stats.skew(x, axis=1) / np.sqrt(n)
        limit = stats.t.ppf(1 - level, n - 1)
        return (t > limit).mean(), (corrected_statistic(t, a) > limit).mean()

    @pytest.mark.parametrize("n", [16, 32, 64])
    def test_the_error_of_skewed_data_is_closer_to_its_level(self, n: int) -> None:
        plain, corrected = self.errors(0.5, n, 0.02)
        assert plain > 0.035
        assert corrected < 0.7 * plain

    @given(t=st.floats(-30, 30), a=st.floats(-0.9, 0.9))
    def test_it_is_never_larger_than_t(self, t: float, a: float) -> None:
        assert corrected_statistic(np.array(t), np.array(a)) <= t

    @given(q=st.floats(0.1, 8), a=st.floats(-0.9, 0.9).filter(lambda a: abs(a) > 1e-3))
    def test_the_quantile_is_where_the_statistic_reaches_it(self, q: float, a: float) -> None:
        limit = corrected_quantile(q, a)
        assert limit >= q
        assert float(corrected_statistic(np.array(limit), np.array(a))) == pytest.approx(q, rel=1e-6, abs=1e-6)

    def test_symmetric_data_are_not_corrected(self) -> None:
        assert corrected_quantile(2.0, 0.0) == 2.0
        assert skewness_of_mean(np.array([-1.0, 0.0, 1.0])) == 0
        assert skewness_of_mean(np.ones(4)) == 0

    @given(st.lists(st.floats(-5, 5), min_size=4, max_size=30))
    def test_the_skewness_is_that_of_scipy(self, values: Sequence[float]) -> None:
        x = np.array(values)
        if x.std() < 1e-3:
            return
        assert skewness_of_mean(x) == pytest.approx(stats.skew(x) / np.sqrt(len(x)), rel=1e-6, abs=1e-9)
