"""Scores against an independent likelihood, against choix, and in closed form."""

from __future__ import annotations

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm

from perjoule.people.thurstone import PRIOR_SD_JOD, Model, chance, gradient, information, log_chance, predicted, scores


def tables(seed: int, arms: int = 6, ties: bool = True) -> np.ndarray:
    chance_of = np.random.default_rng(seed)
    wins = chance_of.integers(0, 12, (arms, arms)).astype(float)
    np.fill_diagonal(wins, 0)
    return wins + (0.5 * np.triu(np.ones_like(wins), 1) + 0.5 * np.tril(np.ones_like(wins), -1) if ties else 0)


def independent(wins: np.ndarray) -> np.ndarray:
    """The maximum by scipy's own normal distribution and a general optimiser, written out pair by pair."""
    slope = norm.ppf(0.75)

    def cost(q: np.ndarray) -> float:
        total = 0.5 * float(q @ q) / PRIOR_SD_JOD**2
        for i in range(len(q)):
            for j in range(len(q)):
                if i != j:
                    total -= wins[i, j] * norm.logcdf(slope * (q[i] - q[j]))
        return total

    found = minimize(cost, np.zeros(len(wins)), method="BFGS", options={"gtol": 1e-9})
    return minimize(cost, found.x, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 20_000}).x


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_an_independent_likelihood(seed: int) -> None:
    wins = tables(seed, arms=4)
    assert scores(wins[None])[0] == pytest.approx(independent(wins), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_bradley_terry_is_that_of_choix(seed: int) -> None:
    wins = tables(seed, ties=False)
    data = [(i, j) for i, j in np.ndindex(wins.shape) for _ in range(int(wins[i, j]))]
    log3 = np.log(3)
    # its penalty is of the logits, ours of JOD
    theirs = choix.opt_pairwise(len(wins), data, alpha=0.5 / (PRIOR_SD_JOD * log3) ** 2, method="Newton-CG", tol=1e-10)
    assert scores(wins[None], model="bradley-terry")[0] == pytest.approx((theirs - theirs.mean()) / log3, abs=1e-6)


def test_one_jod_is_75_percent() -> None:
    models: tuple[Model, ...] = ("thurstone", "bradley-terry")
    for model in models:
        assert chance(np.array([0.0, 1.0, -1.0]), model) == pytest.approx([0.5, 0.75, 0.25])
    wins = np.array([[0.0, 75_000.0], [25_000.0, 0.0]])
    assert np.diff(scores(wins[None])[0])[0] == pytest.approx(-1.0, abs=1e-4)  # the prior pulls a little


def test_an_arm_that_always_wins_has_a_finite_score() -> None:
    wins = np.zeros((3, 3))
    wins[0, 1:] = 20
    wins[1, 2] = wins[2, 1] = 10
    best, *others = scores(wins[None])[0]
    assert best > max(others) + 1
    assert best < 4 * PRIOR_SD_JOD
    # nothing is known: all are equal
    assert scores(np.zeros((1, 3, 3)))[0] == pytest.approx([0, 0, 0])


@given(st.integers(0, 10_000), st.integers(2, 7))
def test_properties(seed: int, arms: int) -> None:
    wins = tables(seed, arms)
    found = scores(np.stack([wins, wins.T]))
    assert found.mean(1) == pytest.approx(0, abs=1e-9)
    assert found[0] == pytest.approx(-found[1], abs=1e-7)  # who wins loses
    order = np.random.default_rng(seed).permutation(arms)
    assert scores(wins[np.ix_(order, order)][None])[0] == pytest.approx(found[0][order], abs=1e-7)
    assert gradient(wins, found[0]) == pytest.approx(found[0] / PRIOR_SD_JOD**2, abs=1e-6)


def test_information_is_the_second_derivative() -> None:
    wins, at = tables(1, 4), np.array([0.3, -0.8, 0.1, 0.4])

    def posterior(q: np.ndarray) -> float:
        value: float = (wins * log_chance(q[:, None] - q[None])).sum() - q @ q / (2 * PRIOR_SD_JOD**2)
        return value

    step = 1e-3 * np.eye(4)
    found = [
        [
            -(
                posterior(at + a + b) - posterior(at + a - b) - posterior(at - a + b) + posterior(at - a - b)
            ) / 4e-6
            for b in step
        ]
        for a in step
    ]  # fmt: skip
    assert information(wins, at) == pytest.approx(np.array(found), abs=1e-4)


def test_an_uncertain_difference_predicts_its_mean_chance() -> None:
    draws = np.random.default_rng(0).normal(1.2, 0.8, 400_000)
    assert chance(predicted(np.array(1.2), np.array(0.64))) == pytest.approx(chance(draws).mean(), abs=1e-3)
