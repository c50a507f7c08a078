from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import EvidenceError, SuiteError, UnknownNameError
from perjoule_suites.budgetfusion.rules import (
    COMBINATIONS,
    RULES,
    Calibration,
    CurveForecast,
    EnergyBudget,
    EqualMarginal,
    Plateau,
    QualityFloor,
    make_rule,
)

GRID = np.array([1, 2, 4, 8, 16])
ENERGY = 1.0 + GRID


def forecast(values: np.ndarray) -> CurveForecast:
    return CurveForecast(grid=GRID, energy_j=ENERGY, metrics=("q",), values=np.asarray(values, float)[..., None])


def saturating(hardness: list[float]) -> np.ndarray:
    return 1 - np.exp(-GRID / np.array(hardness)[:, None])


def exact(values: np.ndarray) -> Calibration:
    return Calibration(
        forecast=forecast(values), truth=np.asarray(values, float)[..., None], prompts=np.arange(len(values))
    )


def test_equal_marginal_is_the_best_buy_by_hand() -> None:
    curves = np.array([[0.0, 0.5, 0.6, 0.61, 0.62], [0.0, 0.1, 0.5, 0.9, 1.0]])
    # λ = 10: worths are λq − E; row 0: -2 2 1 …, row 1: -2 -2 0 0 -7 → the first of a tie
    rule = EqualMarginal(metric="q", joules_per_unit=10)
    assert rule.choose(forecast(curves), exact(curves)).tolist() == [1, 2]
    assert EqualMarginal(metric="q", joules_per_unit=1e6).choose(forecast(curves), exact(curves)).tolist() == [4, 4]


@given(st.floats(0.01, 1e4), st.floats(1.001, 100.0))
def test_a_higher_price_never_means_fewer_steps(price: float, factor: float) -> None:
    curves = saturating([0.5, 1, 2, 4, 9])
    low = EqualMarginal(metric="q", joules_per_unit=price).choose(forecast(curves), exact(curves))
    high = EqualMarginal(metric="q", joules_per_unit=price * factor).choose(forecast(curves), exact(curves))
    assert (high >= low).all()


@given(st.floats(2.0, 17.0))
def test_a_budget_is_kept_and_nearly_used(mean_j: float) -> None:
    curves = saturating(list(np.geomspace(0.5, 10, 40)))
    chosen = EnergyBudget(metric="q", mean_j=mean_j).choose(forecast(curves), exact(curves))
    spent = ENERGY[chosen].mean()
    assert spent <= mean_j + 1e-9
    # one image more by one rung would cost at most 8/40 J on average, and curves flatten out at the end
    assert spent > mean_j - 1.0 or mean_j > 10


def test_a_budget_below_the_fewest_steps_is_an_error() -> None:
    curves = saturating([1, 2])
    with pytest.raises(EvidenceError, match=r"1\.5 J/image is less than 1 steps cost \(2 J\)"):
        EnergyBudget(metric="q", mean_j=1.5).choose(forecast(curves), exact(curves))


def test_plateau_divides_difficulty_out() -> None:
    # the same shape at another height reaches its own plateau at the same place
    curves = np.stack([saturating([2.0])[0], 0.1 * saturating([2.0])[0] + 0.5])
    assert len(set(Plateau(tolerance=0.05).choose(forecast(curves), exact(curves)))) == 1


def test_plateau_waits_for_the_slowest_metric_that_speaks() -> None:
    fast, slow = saturating([0.5])[0], saturating([8.0])[0]
    values = np.stack([fast, slow], axis=-1)[None]
    both = CurveForecast(grid=GRID, energy_j=ENERGY, metrics=("fast", "slow"), values=values)
    sure = Calibration(forecast=both, truth=values, prompts=None)
    assert Plateau(tolerance=0.05).choose(both, sure).tolist() == [4]
    # forecasts of `slow` are off by more than its whole range, so it abstains
    unsure = Calibration(forecast=both, truth=values + np.array([0.0, 5.0]), prompts=None)
    assert Plateau(tolerance=0.05).choose(both, unsure).tolist() == [2]


@pytest.mark.parametrize(
    ("metrics", "combine", "steps"),
    [
        ((), "max", 16),
        ((), "median", 8),
        # (2 + 8 + 16)/3 = 8.7 lies between 8 and 16 steps
        ((), "mean", 16),
        (("a", "b"), "median", 8),  # 5 lies between 4 and 8
        (("a", "b"), "mean", 8),
        (("a",), "max", 2),
        (("c", "a"), "max", 16),
    ],
)
def test_plateaus_are_combined_by_hand(metrics: tuple[str, ...], combine: str, steps: int) -> None:
    """Curves that jump to their last value at 2, 8 and 16 steps."""
    values = np.stack([(at <= GRID).astype(float) for at in (2, 8, 16)], axis=-1)[None]
    three = CurveForecast(grid=GRID, energy_j=ENERGY, metrics=("a", "b", "c"), values=values)
    sure = Calibration(forecast=three, truth=values, prompts=None)
    (index,) = Plateau(tolerance=0.05, metrics=metrics, combine=combine).choose(three, sure)
    assert GRID[index] == steps


def test_metrics_that_are_ignored_do_not_vote() -> None:
    values = np.stack([(at <= GRID).astype(float) for at in (2, 16)], axis=-1)[None]
    two = CurveForecast(grid=GRID, energy_j=ENERGY, metrics=("a", "b"), values=values)
    for wrong, steps in (((0.0, 5.0), 2), ((5.0, 0.0), 16), ((5.0, 5.0), 1)):
        known = Calibration(forecast=two, truth=values + np.array(wrong), prompts=None)
        for combine in COMBINATIONS:
            (index,) = Plateau(tolerance=0.05, combine=combine).choose(two, known)
            assert GRID[index] == steps


def test_a_forecast_at_some_step_counts() -> None:
    curves = saturating([1.0, 4.0])
    known = exact(curves).at([2, 8])
    assert known.forecast.grid.tolist() == [2, 8]
    assert known.forecast.energy_j.tolist() == [3.0, 9.0]
    assert known.of("q").tolist() == known.forecast.of("q").tolist() == curves[:, [1, 3]].tolist()


@pytest.mark.parametrize("miss_rate", [0.05, 0.1, 0.3])
def test_the_floor_is_missed_as_rarely_as_promised(miss_rate: float) -> None:
    chance = np.random.default_rng(3)

    def world(count: int) -> tuple[np.ndarray, np.ndarray]:
        hardness = np.exp(chance.normal(0.5, 0.7, count))
        true = 1 - np.exp(-GRID / hardness[:, None]) + 0.03 * chance.normal(size=(count, len(GRID)))
        seen = 1 - np.exp(-GRID / (hardness * np.exp(0.4 * chance.normal(size=count)))[:, None])
        return seen, true

    rates, means = [], []
    for _ in range(60):
        seen, true = world(200)
        calibration = Calibration(forecast=forecast(seen), truth=true[..., None], prompts=np.arange(200))
        rule = QualityFloor(metric="q", floor=0.6, miss_rate=miss_rate)
        new_seen, new_true = world(500)
        chosen = rule.choose(forecast(new_seen), calibration)
        rates.append((new_true[np.arange(500), chosen] < 0.6).mean())
        means.append(GRID[chosen].mean())
    assert np.mean(rates) <= miss_rate + 0.01
    assert np.mean(rates) > miss_rate - 0.04  # not by being wasteful
    assert np.mean(means) < 16


def test_the_floor_is_calibrated_by_prompt_and_not_by_image() -> None:
    """A closed form: the 8 seeds of a prompt miss together, at random thresholds that no forecast knows.

    The rule then stops at an order statistic of the thresholds of n = 24 prompts: with m misses among them, another
    prompt misses with a chance of (m + 1) / (n + 1). By prompt m = 1 is the most with (m + 1) / 25 ≤ 10 %: 8 %. By
    image, (8 m + 1) / 193 ≤ 10 % lets m = 2 pass, which is 12 %, more than promised.
    """
    grid = np.arange(1, 201)
    chance = np.random.default_rng(5)

    def miss_rate(by_prompt: bool) -> float:
        rates = []
        for _ in range(150):
            prompt = np.repeat(np.arange(24), 8)
            true = (grid >= chance.uniform(1, 200, 24)[prompt, None]).astype(float)
            seen = np.broadcast_to(grid / 200.0, true.shape)
            known = CurveForecast(grid=grid, energy_j=grid.astype(float), metrics=("q",), values=seen[..., None])
            unit = prompt if by_prompt else np.arange(len(prompt))
            calibration = Calibration(forecast=known, truth=true[..., None], prompts=unit)
            (stop,) = QualityFloor(metric="q", floor=0.5).choose(replace(known, values=seen[:1, :, None]), calibration)
            rates.append(1 - (grid[stop] - 1) / 199)  # of another prompt, whose threshold is as random
        return float(np.mean(rates))

    assert miss_rate(by_prompt=True) == pytest.approx(0.08, abs=0.015)
    assert miss_rate(by_prompt=False) == pytest.approx(0.12, abs=0.015)


def test_a_calibration_that_does_not_tell_prompts_apart_promises_nothing() -> None:
    curves = saturating([1.0] * 50)
    unknown = replace(exact(curves), prompts=None)
    with pytest.raises(EvidenceError, match=r"only be per image.*calibration_seeds"):
        QualityFloor(metric="q", floor=0.5).choose(forecast(curves), unknown)
    EnergyBudget(metric="q", mean_j=5.0).choose(forecast(curves), unknown)  # a price needs no units


def test_a_floor_that_nothing_reaches_is_no_promise() -> None:
    curves = saturating([1.0] * 50)
    with pytest.raises(EvidenceError, match="even 16 steps miss q = 2"):
        QualityFloor(metric="q", floor=2.0).choose(forecast(curves), exact(curves))


@pytest.mark.parametrize(
    ("name", "level", "error"),
    [("plato", 0.1, UnknownNameError), ("plateau", 1.5, SuiteError), ("equal-marginal", 0.0, SuiteError),
     ("energy-budget", float("inf"), SuiteError)],
)  # fmt: skip
def test_rules_that_cannot_be(name: str, level: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        make_rule(name, "q", level, where="s.toml: variants[0].levels")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"combine": "mode"}, UnknownNameError, "unknown combination 'mode': .*known: max, mean, median"),
        ({"combine": "mean"}, SuiteError, "rule equal-marginal reads one metric"),
        ({"metrics": ("q",)}, SuiteError, "belong to the plateau rule"),
    ],
)
def test_arguments_of_the_plateau_rule_are_its_own(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make_rule("equal-marginal", "q", 1.0, where="s.toml", **arguments)


def test_every_rule_has_a_name() -> None:
    assert [type(make_rule(name, "q", 0.5)).__name__ for name in RULES] == [
        "Plateau", "EqualMarginal", "EnergyBudget", "QualityFloor",
    ]  # fmt: skip


def test_an_unknown_metric_is_named() -> None:
    curves = saturating([1.0])
    with pytest.raises(UnknownNameError, match="predicted metric 'iklip'"):
        EqualMarginal(metric="iklip", joules_per_unit=1.0).choose(forecast(curves), exact(curves))
