from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.statistics.risk_control import calibrated_margin, cheapest_safe, prompts_needed


def test_the_cheapest_safe_arm_by_hand() -> None:
    lead = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.2], [-2.0, -1.0, -3.0]])
    assert cheapest_safe(lead, 0.5, 2).tolist() == [0, 1, 2]
    assert cheapest_safe(lead, 2.5, 1).tolist() == [2, 1, 1]
    assert cheapest_safe(lead, math.inf, 0).tolist() == [0, 0, 0]


def slow_margin(lead: np.ndarray, missed: np.ndarray, fallback: int, miss_rate: float) -> float | None:
    """Every margin in turn, from the largest, by the definition."""
    n = len(lead)

    def promised(margin: float) -> bool:
        risk = missed[np.arange(n), cheapest_safe(lead, margin, fallback)].mean()
        return bool(n / (n + 1) * risk + 1 / (n + 1) <= miss_rate + 1e-12)

    if not promised(math.inf):
        return None
    kept = math.inf
    for margin in np.unique(lead)[::-1]:
        if not promised(float(margin)):
            break
        kept = float(margin)
    return kept


@given(st.integers(0, 100_000), st.integers(1, 25), st.integers(1, 5), st.integers(1, 3), st.floats(0.02, 0.9))
def test_the_margin_is_that_of_the_definition(seed: int, n: int, arms: int, seeds: int, miss_rate: float) -> None:
    chance = np.random.default_rng(seed)
    lead = chance.integers(-3, 4, (n, arms)).astype(float)  # with ties
    missed = chance.integers(0, seeds + 1, (n, arms)) / seeds
    fallback = int(chance.integers(arms))
    fast, slow = (f(lead, missed, fallback, miss_rate) for f in (calibrated_margin, slow_margin))
    if fast is None or slow is None:
        assert fast == slow
        return
    # two margins are the same if they choose the same arms
    assert np.array_equal(cheapest_safe(lead, fast, fallback), cheapest_safe(lead, slow, fallback))


@pytest.mark.parametrize("miss_rate", [0.05, 0.1, 0.2, 0.5])
def test_how_many_prompts_a_promise_needs(miss_rate: float) -> None:
    needed = prompts_needed(miss_rate)
    assert needed is not None
    for n, enough in ((needed, True), (needed - 1, False)):
        lead, missed = np.ones((n, 2)), np.zeros((n, 2))
        assert (calibrated_margin(lead, missed, 1, miss_rate) is not None) == enough
    assert prompts_needed(0.1) == 9
    assert prompts_needed(0.05) == 19


@given(st.floats(0.01, 0.5), st.floats(0.0, 0.6))
def test_how_many_prompts_a_promise_needs_at_a_risk(miss_rate: float, risk: float) -> None:
    needed = prompts_needed(miss_rate, risk)
    if risk >= miss_rate:
        assert needed is None
        return
    assert needed is not None
    if needed < 1e9:
        assert (needed * risk + 1) / (needed + 1) <= miss_rate + 1e-9
        assert ((needed - 1) * risk + 1) / needed >= miss_rate - 1e-9


@pytest.mark.parametrize("promised", [0.05, 0.1, 0.2])
def test_the_promise_is_kept_over_200_calibrations(promised: float) -> None:
    """Each calibration has its own prompts, whose 4 seeds miss together; forecasts are noisy and arms cross."""
    chance, costs = np.random.default_rng(8), np.arange(6)

    def world(count: int) -> tuple[np.ndarray, np.ndarray]:
        # each arm suffices up to a hardness of its own; the last nearly always does
        hardness = chance.uniform(0, 1, (count, 1))
        slack = (costs + 1) / 6 + 0.25 - hardness + 0.05 * chance.normal(size=(count, 6))
        images = slack[:, None] + 0.05 * chance.normal(size=(count, 4, 6))
        return slack + 0.1 * chance.normal(size=(count, 1)) + 0.03 * chance.normal(size=(count, 6)), images < 0

    rates, spent = [], []
    for _ in range(200):
        lead, missed = world(150)
        margin = calibrated_margin(lead, missed.mean(1), 5, promised)
        assert margin is not None
        new, misses = world(2_000)
        arms = cheapest_safe(new, margin, 5)
        rates.append(misses.mean(1)[np.arange(2_000), arms].mean())
        spent.append(costs[arms].mean())
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= promised + 2 * error
    assert np.mean(rates) >= promised - 0.01 - 2 * error  # at most a point above: it does not waste joules
    assert np.mean(spent) < 4


def test_the_promise_in_closed_form() -> None:
    """Prompts that take the cheap arm miss. Leads are random, so the margin is an order statistic of the calibration's.

    Of n = 24 prompts one may miss: (1 + 1) / 25 = 8 % ≤ 10 %. The margin is thus just above the second largest lead,
    and another prompt's lead exceeds the second largest of 24 with a chance of 2 / 25.
    """
    chance, rates = np.random.default_rng(5), []
    for _ in range(4_000):
        lead = np.stack([chance.uniform(size=24), np.full(24, 2.0)], axis=1)
        missed = np.tile([1.0, 0.0], (24, 1))
        margin = calibrated_margin(lead, missed, 1, 0.1)
        assert margin is not None
        rates.append(1 - margin)  # the chance that another prompt has a larger lead
    assert np.mean(rates) == pytest.approx(2 / 25, abs=0.003)
