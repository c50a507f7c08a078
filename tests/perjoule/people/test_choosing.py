"""Active choice of pairs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from perjoule.people.choosing import Chooser, expected_gain
from perjoule.people.records import Answer, Study, StudyIndex
from perjoule.people.thurstone import information, scores
from tests.support.observers import answers


def test_the_gain_is_the_reduction_of_the_variances() -> None:
    """Against the posterior with one answer more, whose information is averaged over samples of the posterior."""
    wins = np.random.default_rng(0).integers(0, 8, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)
    at = scores(wins[None])[0]
    before = information(wins, at)
    drawn = np.random.default_rng(1).multivariate_normal(at, np.linalg.inv(before), 200_000)
    gain = expected_gain(wins)
    slope = norm.ppf(0.75)
    for i, j in ((0, 1), (1, 3), (2, 0)):
        x = slope * (drawn[:, i] - drawn[:, j])
        added = (slope**2 * norm.pdf(x) ** 2 / (norm.cdf(x) * norm.cdf(-x))).mean()
        pair = np.zeros(4)
        pair[i], pair[j] = 1, -1
        after = before + added * np.outer(pair, pair)
        assert gain[i, j] == pytest.approx(np.trace(np.linalg.inv(before) - np.linalg.inv(after)), rel=0.01)
    assert gain == pytest.approx(gain.T)
    assert np.diag(gain) == pytest.approx(0)


def test_what_is_known_is_not_asked_again() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = 200  # two equal arms, well known
    wins[2, :2] = 5
    wins[:2, 2] = 5
    gain = expected_gain(wins)
    assert gain[0, 1] == gain[np.triu_indices(4, 1)].min()
    assert gain[3].max() == gain.max()  # nothing is known of the last arm


def scores_of(study: Study) -> dict[str, float]:
    return {arm: 0.4 * place for place, arm in enumerate(study.arms)}


def test_an_observer_is_asked_the_session_with_informative_pairs(made: tuple[Study, Path]) -> None:
    """As `serve` uses it: after each answer, the trials that are still to come."""
    study, index = made[0], StudyIndex(made[0])
    session = study.sessions[0]
    given: list[Answer] = answers(study, scores_of(study))[len(session) :]  # of the other observers
    asked: list[str] = []
    mine: list[Answer] = []
    while len(asked) < len(session):
        coming = Chooser(study, [*given, *mine], seed=len(asked)).remaining("me", session)
        assert len(coming) == len(session) - len(asked)
        trial = coming[0]
        asked.append(trial.trial_id)
        mine.append(
            Answer(
                study_id=study.study_id, observer="me", trial_id=trial.trial_id, left=trial.left_arm,
                right=trial.right_arm, choice="left", shown_at_ms=0.0, response_ms=900.0, provenance="simulated",
            )
        )  # fmt: skip
        index.check(mine[-1])
    kinds = Counter(trial_id.split("-")[0] for trial_id in asked)
    planned = Counter(trial_id.split("-")[0] for trial_id in session)
    assert kinds == planned
    assert len(set(asked)) == len(asked)
    trials = [index.trial_of(trial_id) for trial_id in asked]
    mains = {frozenset((t.left, t.right)) for t in trials if t.kind == "main"}
    assert len(mains) == planned["main"]  # no pair twice, whatever the sides
    for trial in trials:
        if trial.kind == "repeat":
            assert f"main-{trial.right}-{trial.left}" in asked
    assert set(asked) - set(session)  # some were chosen


def test_sides_and_prompts_stay_balanced(made: tuple[Study, Path]) -> None:
    study = made[0]
    chooser = Chooser(study)
    lefts: Counter[tuple[str, str]] = Counter()
    prompts: Counter[str] = Counter()
    for number in range(60):
        trial = chooser.next_main(f"observer-{number}")
        assert trial is not None
        lefts[trial.left_arm, trial.right_arm] += 1
        prompts[trial.prompt_id] += 1
    assert all(abs(n - lefts[b, a]) <= 1 for (a, b), n in lefts.items())
    assert set(prompts) == {prompt.prompt_id for prompt in study.prompts}


def test_an_observer_who_has_seen_everything_is_asked_nothing_new(made: tuple[Study, Path]) -> None:
    chooser = Chooser(made[0])
    seen = [chooser.next_main("me") for _ in range(90)]  # 15 pairs for each of 6 prompts
    assert None not in seen
    assert len({frozenset((t.left, t.right)) for t in seen if t}) == 90
    assert chooser.next_main("me") is None
    assert chooser.next_main("you") is not None
