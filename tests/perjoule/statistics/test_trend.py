from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from perjoule.statistics import trend
from tests.benchmarks.statistics.trend_power import flagged, flagged_at_a_look, four_cells, located, normal, one_cell


def weeks(count: int) -> np.ndarray:
    return np.arange(count, dtype=float)


def test_a_stable_history_is_rarely_flagged_at_any_of_its_looks() -> None:
    # 5 % at most are promised for 20 weekly looks; 80 histories have 9 or more with a chance of 2 % then
    anywhere, _ = flagged_at_a_look(one_cell, normal(0.015), 20, 80)
    assert anywhere <= 8 / 80


def test_a_slow_drift_is_flagged() -> None:
    assert flagged(one_cell, 0.01 * weeks(11), normal(0.01), 40) >= 0.9
    assert flagged(four_cells, 0.01 * np.maximum(0, weeks(21) - 10), normal(0.015), 20) >= 0.9


def test_a_step_is_located_within_a_week() -> None:
    found, steps, near = located(np.where(weeks(20) < 10, 0.0, 0.05), 10, normal(0.01), 40)
    assert found >= 0.95
    assert steps >= 0.9
    assert near >= 0.9


def test_the_p_value_is_that_of_all_orders() -> None:
    # the largest of few runs in the first rows, where all orders can be counted
    values = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])[:, None]
    contrasts = np.stack([trend._contrast("step", 3, weeks(6))])
    scaled, _ = trend._scaled(values)
    p = trend._p_values(contrasts, scaled, level=1.0)
    exact = stats.permutation_test(
        (values[:3, 0], values[3:, 0]), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
    ).pvalue
    assert p[0] == pytest.approx(exact, abs=0.02)


def test_the_evidence_is_the_mean_bayes_factor() -> None:
    """Of two shapes, by numerical integration over the size of the change; the noise is integrated out by hand."""
    chance = np.random.default_rng(2)
    series, count = 0.2 * weeks(12) + chance.normal(size=12), 12
    contrasts = np.stack([trend._contrast("step", 6, weeks(count)), trend._contrast("drift", 2, weeks(count))])
    centred = series - series.mean()

    def factor(shape: np.ndarray) -> float:
        def at(size: float) -> float:
            rest = ((centred - size * shape) ** 2).sum() + size**2 / count  # with the prior's own term, 1/g of the data
            return float((rest / (centred**2).sum()) ** (-count / 2))

        constant = np.exp(special.gammaln(count / 2) - special.gammaln((count - 1) / 2)) / np.sqrt(np.pi * count)
        area = integrate.quad(at, -np.inf, np.inf)[0]
        return float(constant * area / np.linalg.norm(centred))

    found = trend._evidence(contrasts, trend._scaled(series[:, None])[0])
    assert found == pytest.approx(np.log(np.mean([factor(shape) for shape in contrasts])), rel=1e-6)


def test_a_drift_is_found_almost_as_often_as_by_a_test_that_knows_its_shape() -> None:
    """The largest correlation with any shape finds 66 % of these, the test of the slope 91 %."""
    assert flagged(one_cell, 0.01 * weeks(11), normal(0.02), 120) >= 0.72


def test_sizes_and_intervals_are_those_of_a_regression() -> None:
    chance = np.random.default_rng(1)
    series = 2.0 + 0.03 * weeks(12) + chance.normal(0, 0.01, 12)
    (change,) = trend.changes(series[:, None], weeks(12))
    fit = stats.linregress(weeks(12), series)
    half = stats.t.ppf(0.975, 10) * fit.stderr
    assert change.kind == "drift"
    assert change.start == 0
    assert change.per_week == pytest.approx(fit.slope)
    assert (change.size, change.low, change.high) == pytest.approx(
        (11 * fit.slope, 11 * (fit.slope - half), 11 * (fit.slope + half))
    )


def test_a_step_has_the_interval_of_a_t_test() -> None:
    chance = np.random.default_rng(2)
    series = np.where(weeks(20) < 8, 1.0, 1.2) + chance.normal(0, 0.01, 20)
    (change,) = trend.changes(series[:, None], weeks(20))
    test = stats.ttest_ind(series[8:], series[:8])
    low, high = test.confidence_interval(0.95)
    assert (change.kind, change.start, change.end) == ("step", 8, 20)
    assert (change.size, change.low, change.high) == pytest.approx(
        (series[8:].mean() - series[:8].mean(), low, high)
    )  # fmt: skip


def test_two_steps_are_both_found() -> None:
    chance = np.random.default_rng(3)
    series = 0.1 * (weeks(40) >= 12) + 0.1 * (weeks(40) >= 28) + chance.normal(0, 0.01, 40)
    found = trend.changes(series[:, None], weeks(40))
    assert [(change.kind, change.start) for change in found] == [("step", 12), ("step", 28)]
    assert [change.size for change in found] == pytest.approx([0.1, 0.1], abs=0.012)
    assert trend.residual_sd(series, weeks(40), found) == pytest.approx(0.01, rel=0.4)


def test_a_drift_has_its_own_clock() -> None:
    # two runs a day, then a month without any
    times = np.concatenate([np.arange(10) / 14, 5 + np.arange(10) / 14])
    chance = np.random.default_rng(4)
    (change,) = trend.changes((0.02 * times + chance.normal(0, 0.002, 20))[:, None], times)
    assert change.size == pytest.approx(0.02 * times[-1], rel=0.15)


def test_only_the_series_that_changes_is_named() -> None:
    chance = np.random.default_rng(5)
    table = chance.normal(0, 0.01, (20, 3))
    table[12:, 1] += 0.1
    assert [change.series for change in trend.changes(table, weeks(20))] == [1]


@pytest.mark.parametrize("count", [0, 1, trend.FEWEST_RUNS - 1])
def test_a_short_history_has_no_changes(count: int) -> None:
    assert trend.changes(weeks(count)[:, None], weeks(count)) == []


def test_equal_runs_have_no_changes() -> None:
    assert trend.changes(np.full((20, 2), 0.1 + 0.2), weeks(20)) == []
    assert trend.changes(np.random.default_rng(0).normal(size=(20, 1)), np.zeros(20)) == []  # all at one time


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0), st.floats(-5, 5))
def test_units_do_not_matter(seed: int, factor: float, offset: float) -> None:
    chance = np.random.default_rng(seed)
    series = (0.06 * (weeks(16) >= 8) + chance.normal(0, 0.01, 16))[:, None]
    ours = trend.changes(series, weeks(16))
    theirs = trend.changes(factor * series + offset, weeks(16))
    assert [(c.kind, c.start, c.p) for c in ours] == [(c.kind, c.start, c.p) for c in theirs]
    assert [factor * c.size for c in ours] == pytest.approx([c.size for c in theirs], rel=1e-6)
