"""Scales of simulated observers whose JOD is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perjoule.errors import EvidenceError
from perjoule.people.choices import Choices
from perjoule.people.records import Screening
from perjoule.people.scaling import fit, scale
from perjoule.people.screening import screen
from tests.support import observers

OPEN = Screening(honest_probability=1e-9, log_likelihood_ratio=-1e9)


def simulated(seed: int, *, careless: float = 0.1, answers: int = 80, **more: float) -> tuple[observers.World, Choices]:
    chance = np.random.default_rng(seed)
    truth = observers.world(chance, careless=careless, **more)  # type: ignore[arg-type]
    return truth, observers.choices(truth, chance, answers)


@pytest.mark.slow
def test_known_scores_are_recovered_with_their_uncertainty() -> None:
    rms, covered, order = [], [], []
    for seed in range(12):
        truth, choices = simulated(seed)
        found = fit(choices, Screening(), resamples=500)
        estimates = [found.estimate(row) for row in np.eye(8)]
        rms.append(np.sqrt(((found.jod - truth.jod) ** 2).mean()))
        covered += [e.low <= jod <= e.high for e, jod in zip(estimates, truth.jod, strict=True)]
        order.append((np.argsort(found.jod) == np.argsort(truth.jod)).all())
    assert np.sqrt(np.mean(np.square(rms))) < 0.15
    assert np.mean(covered) > 0.88  # 96 intervals
    assert np.mean(order) > 0.7


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_careless_observers_are_found_and_honest_ones_are_kept(share: float) -> None:
    careless, honest, found, lost = 0, 0, 0, 0
    for seed in range(6):
        truth, choices = simulated(seed, careless=share)
        _, excluded = screen(choices, Screening())
        names = {one.observer for one in excluded}
        bad = {f"o{i}" for i in np.flatnonzero(truth.careless)}
        careless, honest = careless + len(bad), honest + 15 - len(bad)
        found, lost = found + len(names & bad), lost + len(names - bad)
    assert found >= 0.9 * careless
    assert lost <= 0.05 * honest


def test_careless_observers_shrink_the_scale_unless_they_are_excluded() -> None:
    truth, choices = simulated(3, careless=0.3)
    slopes = [
        fit(choices, rule, resamples=10).jod @ truth.jod / (truth.jod @ truth.jod) for rule in (OPEN, Screening())
    ]
    assert slopes[0] < 0.85
    assert slopes[1] == pytest.approx(1, abs=0.15)


def test_nobody_is_excluded_where_the_arms_do_not_differ() -> None:
    """Random answers do no harm there, and nobody can tell them from careful ones."""
    lost = sum(len(screen(simulated(seed, careless=0.3, spread=0.0)[1], Screening())[1]) for seed in range(8))
    assert lost <= 0.05 * 8 * 15


def test_contributions_of_prompts_have_the_scale_as_mean_and_its_scatter() -> None:
    _, choices = simulated(1, careless=0.0)
    found = fit(choices, Screening(), resamples=2_000)
    assert found.by_prompt.mean(0) == pytest.approx(found.jod, abs=1e-9)
    by_contributions = found.by_prompt.std(0, ddof=1) / np.sqrt(len(found.by_prompt))
    by_resampling = (found.draws - found.common).std(0)
    assert by_contributions == pytest.approx(by_resampling, rel=0.15)


def test_observers_who_differ_widen_the_intervals() -> None:
    """What observers have in common with themselves does not average out over prompts."""
    widths, shares = [], []
    for spread in (0.0, 0.8):
        _, choices = simulated(2, careless=0.0, observer_sd=spread)
        found = fit(choices, OPEN, resamples=500)
        estimate = found.estimate(np.eye(8)[0])
        widths.append(estimate.high - estimate.low)
        shares.append(found.common.std())
    assert widths[1] > 1.4 * widths[0]
    assert shares[1] > 3 * shares[0]


def test_repeated_prompts_are_not_counted_as_independent() -> None:
    """The same answers once more, under the same prompts and observers, leave the interval as it is."""
    _, choices = simulated(4, careless=0.0)
    twice: dict[str, Any] = {
        name: np.tile(getattr(choices, name), 2) for name in ("observer", "prompt", "first", "second", "won")
    }
    doubled = replace(choices, **twice)
    one, two = (fit(c, OPEN, resamples=1_000).estimate(np.eye(8)[0]) for c in (choices, doubled))
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.25)


def test_the_record_says_who_answered() -> None:
    truth, choices = simulated(5)
    result = scale(choices, Screening(), resamples=200)
    assert result.provenance == "simulated"
    assert result.unit == "JOD of SIMULATED observers"
    assert [arm.jod for arm in result.arms] == sorted((arm.jod for arm in result.arms), reverse=True)
    assert result.answers == 80 * result.observers
    assert result.observers + len(result.excluded) == 15
    assert {one.observer for one in result.excluded} >= {f"o{i}" for i in np.flatnonzero(truth.careless)}
    assert all("random choices" in one.reason for one in result.excluded)
    for arm in result.arms:
        assert arm.low < arm.jod < arm.high
        assert arm.bradley_terry == pytest.approx(arm.jod, abs=0.25)
    assert scale(choices, Screening(), resamples=200) == result  # the same answers, the same numbers


def test_scores_of_single_prompts_need_enough_answers() -> None:
    _, few = simulated(6, answers=20)
    assert scale(few, OPEN, resamples=10).per_prompt == ()
    _, many = simulated(6, answers=120, prompt_sd=0.6)
    result = scale(many, OPEN, resamples=10)
    assert result.per_prompt
    assert all(len(one.jod) == 8 for one in result.per_prompt)


def test_prompts_that_differ_have_scales_of_their_own() -> None:
    chance = np.random.default_rng(0)
    truth = observers.world(chance, careless=0.0, prompts=4, prompt_sd=1.0)
    choices = observers.choices(truth, chance, 400)
    result = scale(choices, OPEN, resamples=10)
    own = np.array([one.jod for one in result.per_prompt])
    expected = truth.jod + truth.by_prompt
    expected -= expected.mean(1, keepdims=True)
    assert np.sqrt(((own - own.mean(1, keepdims=True) - expected) ** 2).mean()) < 0.25
    assert len(own) == 4


def test_a_few_answers_that_agree_are_not_certain() -> None:
    """6 answers, 5 for the same arm: the interval is at least as wide as that of independent answers."""
    won = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    few = Choices(
        arms=("a", "b"), prompts=("p", "q"), observers=("o1", "o2", "o3"), observer=np.array([0, 0, 1, 1, 2, 2]),
        prompt=np.array([0, 1, 0, 1, 0, 1]), first=np.zeros(6, np.intp), second=np.ones(6, np.intp), won=won,
        provenance="simulated",
    )  # fmt: skip
    result = scale(few, OPEN, resamples=500)
    best = result.arms[0]
    # an exact binomial interval of 5 of 6 reaches from 0.36 to 1.00
    assert best.low < 0 < best.jod < best.high


def test_an_arm_without_answers_is_an_error() -> None:
    _, choices = simulated(0)
    without = choices.of((choices.first != 2) & (choices.second != 2))
    with pytest.raises(EvidenceError, match="arm 'arm-2' has no answers"):
        fit(without, Screening())


def test_too_many_arms_are_an_error() -> None:
    _, choices = simulated(0)
    with pytest.raises(EvidenceError, match="300 arms and 24 prompts are too many"):
        fit(replace(choices, arms=tuple(map(str, range(300)))), Screening())


def test_no_answer_is_an_error() -> None:
    _, choices = simulated(0)
    with pytest.raises(EvidenceError, match="no answers are left"):
        fit(choices.of(np.zeros(len(choices), bool)), Screening())


def test_one_observer_or_one_prompt_is_noted() -> None:
    _, choices = simulated(0, careless=0.0)
    result = scale(choices.of(choices.observer == 0), OPEN, resamples=50)
    assert any("one observer" in note for note in result.notes)
    one = choices.of(choices.prompt == 0)
    result = scale(replace(one, prompts=one.prompts[:1]), OPEN, resamples=50)
    assert any("one prompt" in note for note in result.notes)
    assert all(arm.low < arm.high for arm in result.arms)


def test_arms_that_were_never_connected_are_noted() -> None:
    _, choices = simulated(0, careless=0.0)
    apart = (choices.first < 4) == (choices.second < 4)
    assert any("never compared" in note for note in scale(choices.of(apart), OPEN, resamples=10).notes)
