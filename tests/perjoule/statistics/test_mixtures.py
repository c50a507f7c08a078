from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from perjoule.statistics.mixtures import (
    Part,
    best_buys,
    cheapest_mixture,
    choice_at,
    parts_of_mixture,
)

COSTS = np.array([1.0, 2.5, 8.0])
# in the first half of the prompts the cheapest arm suffices
EASY_AND_HARD = np.array([[0.9, 0.6, 0.9], [0.4, 0.5, 0.9]])


def least(energy: list[float], quality: list[float], at: float) -> float:
    return float(cheapest_mixture(np.array([energy]), np.array([quality]), np.array([[at]]))[0, 0])


def test_between_two_arms_the_mixture_is_a_straight_line() -> None:
    assert least([1, 8], [0.5, 0.9], 0.7) == pytest.approx(4.5)
    # an arm above the line is not used, one below it is
    assert least([1, 6, 8], [0.5, 0.7, 0.9], 0.7) == pytest.approx(4.5)
    assert least([1, 2, 8], [0.5, 0.7, 0.9], 0.8) == pytest.approx(5.0)


def test_the_ends_of_the_range() -> None:
    assert least([1, 8], [0.5, 0.9], 0.1) == 1  # the cheapest arm has more than that
    assert least([1, 8], [0.5, 0.9], 0.9) == 8
    assert least([1, 8], [0.5, 0.9], 0.91) == np.inf
    assert least([1, np.nan, 8], [0.5, 0.8, 0.9], 0.8) == pytest.approx(1 + 0.75 * 7)


# no smaller differences than the oracle tolerates in its constraints
hundredths = st.integers(0, 100).map(lambda n: n / 100)
arms = st.integers(2, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.1, 50), min_size=n, max_size=n), st.lists(hundredths, min_size=n, max_size=n)
    )
)


@given(arms, hundredths)
def test_two_arms_are_as_good_as_any_mixture(world: tuple[list[float], list[float]], place: float) -> None:
    """A linear programme over all mixtures is the oracle."""
    energy, quality = world
    at = min(quality) + place * (max(quality) - min(quality))
    best = linprog(energy, A_ub=[[-q for q in quality]], b_ub=[-at], A_eq=[[1.0] * len(energy)], b_eq=[1.0])
    assert best.success
    assert least(energy, quality, at) == pytest.approx(best.fun, rel=1e-6, abs=1e-6)
    parts = parts_of_mixture(np.array(energy), np.array(quality), at)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert sum(part.share * energy[part.arm] for part in parts) == pytest.approx(best.fun, rel=1e-6, abs=1e-6)
    assert sum(part.share * quality[part.arm] for part in parts) >= at - 1e-6


def test_it_is_the_lower_hull() -> None:
    chance = np.random.default_rng(0)
    energy, quality = chance.uniform(1, 9, 30), chance.uniform(0, 1, 30)
    hull = ConvexHull(np.stack([quality, energy], axis=1)).vertices
    found = [i for i in range(30) if least(list(energy), list(quality), quality[i]) >= energy[i] - 1e-9]
    assert set(found) <= set(hull)
    assert energy.argmin() in found
    assert quality.argmax() in found


def test_a_mixture_names_its_arms() -> None:
    assert parts_of_mixture(COSTS, EASY_AND_HARD.mean(0), 0.9) == (Part(arm=2, share=1.0),)
    good, poor = parts_of_mixture(COSTS, EASY_AND_HARD.mean(0), 0.775)
    assert (good.arm, poor.arm) == (2, 0)
    assert (good.share, poor.share) == (pytest.approx(0.5), pytest.approx(0.5))
    assert parts_of_mixture(COSTS, EASY_AND_HARD.mean(0), 0.95) == ()


def test_of_equal_arms_the_cheapest_is_bought() -> None:
    prices = np.array([1.0, np.inf, 0.0])
    assert best_buys(EASY_AND_HARD, COSTS, prices).T.tolist() == [[0, 0], [0, 2], [0, 0]]
    assert best_buys(EASY_AND_HARD[:, ::-1], COSTS[::-1], prices).T.tolist() == [[2, 2], [2, 0], [2, 2]]


def test_an_arm_without_a_number_is_not_bought() -> None:
    holed = np.array([[np.nan, 0.5, -np.inf], [-3.0, np.nan, -2.0]])
    assert best_buys(holed, COSTS, np.array([0.0, 1.0, np.inf])).tolist() == [[1, 1, 1], [0, 0, 2]]


def test_a_choice_at_a_quality_by_hand() -> None:
    prompts = np.repeat(EASY_AND_HARD, 50, axis=0)
    shares = choice_at(prompts, prompts, COSTS, 0.9)
    assert shares is not None
    assert (shares @ COSTS).mean() == pytest.approx(4.5)  # the best mixture of fixed arms needs 8
    # half of the hard prompts get the expensive arm
    shares = choice_at(prompts, prompts, COSTS, 0.775)
    assert shares is not None
    assert (shares @ COSTS).mean() == pytest.approx(2.75)
    assert (shares * prompts).sum(1).mean() == pytest.approx(0.775)
    assert choice_at(prompts, prompts, COSTS, 0.91) is None


@given(st.integers(0, 10_000), st.floats(0.02, 0.98))
def test_a_choice_has_the_quality_exactly_and_pays_no_more_than_a_mixture(seed: int, place: float) -> None:
    chance = np.random.default_rng(seed)
    quality, costs = chance.uniform(size=(20, 4)), chance.uniform(1, 9, 4)
    means = quality.mean(0)
    at = means[costs.argmin()] + place * (means.max() - means[costs.argmin()])
    shares = choice_at(quality, quality, costs, at)
    assert shares is not None
    assert shares.sum(1) == pytest.approx(np.ones(20))
    reached = (shares * quality).sum(1).mean()
    assert reached >= at - 1e-9
    # who knows every prompt's quality is never worse than who knows only the means
    assert (shares @ costs).mean() <= least(list(costs), list(means), reached) + 1e-6


def test_a_forecast_that_knows_nothing_is_a_mixture() -> None:
    chance = np.random.default_rng(1)
    quality = np.array([0.2, 0.7, 0.9]) + 0.1 * chance.normal(size=(400, 3))
    same = np.tile(quality.mean(0), (400, 1))
    shares = choice_at(same, quality, COSTS, 0.6)
    assert shares is not None
    assert (shares @ COSTS).mean() == pytest.approx(least(list(COSTS), list(quality.mean(0)), 0.6))
