"""Sessions are balanced."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perjoule.people.design import extras, main_pairs, most_pairs, tournament
from perjoule.people.records import NOISE, OTHER_PROMPT, Study, StudyIndex


@given(st.integers(2, 15))
def test_a_tournament_has_every_pair_once_and_every_arm_once_a_round(arms: int) -> None:
    rounds = tournament(arms)
    assert Counter(frozenset(pair) for one in rounds for pair in one) == Counter(
        frozenset((a, b)) for a in range(arms) for b in range(a)
    )
    for one in rounds:
        seen = [arm for pair in one for arm in pair]
        assert len(seen) == len(set(seen)) == arms - arms % 2


@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 1_000))
def test_pairs_prompts_and_sides_are_balanced(arms: int, prompts: int, seed: int) -> None:
    most = most_pairs(arms, prompts)
    sequence = main_pairs(arms, prompts, np.random.default_rng(seed))
    drawn = list(islice(sequence, most))
    # a full sequence has each pair once for each prompt
    assert len({(prompt, frozenset((a, b))) for prompt, a, b in drawn}) == most
    lefts = Counter((a, b) for _, a, b in drawn)
    assert all(abs(lefts[a, b] - lefts[b, a]) <= 1 for a in range(arms) for b in range(a))


def test_a_session_has_practice_first_then_checks_and_repeats_among_the_pairs(made: tuple[Study, Path]) -> None:
    study, _ = made
    index, extra = StudyIndex(study), extras(40)
    assert len(study.sessions) == study.planned.observers == 8
    lefts: Counter[str] = Counter()
    rights: Counter[str] = Counter()
    for session in study.sessions:
        trials = [index.trial_of(trial_id) for trial_id in session]
        kinds = Counter(trial.kind for trial in trials)
        assert kinds == {
            "practice": extra.practice, "check": extra.checks, "repeat": extra.repeats, "main": 40,
        }  # fmt: skip
        assert {trial.kind for trial in trials[:3]} == {"practice"}
        mains = {t.trial_id: i for i, t in enumerate(trials) if t.kind == "main"}
        assert len({frozenset((t.left, t.right)) for t in trials if t.kind == "main"}) == 40
        for place, trial in enumerate(trials):
            if trial.kind == "repeat":
                earlier = mains[f"main-{trial.right}-{trial.left}"]
                assert place - earlier >= 5
            if trial.kind in ("check", "practice"):
                foils = {trial.left_arm, trial.right_arm} & {NOISE, OTHER_PROMPT}
                assert len(foils) == 1
                assert (trial.left_arm in foils) == (trial.expected == "right")
        # every arm is shown about equally often to each observer
        shown = Counter(arm for t in trials if t.kind == "main" for arm in (t.left_arm, t.right_arm))
        assert max(shown.values()) - min(shown.values()) <= 3
        lefts.update(t.left_arm for t in trials if t.kind == "main")
        rights.update(t.right_arm for t in trials if t.kind == "main")
    assert all(abs(lefts[arm] - rights[arm]) <= len(study.arms) for arm in study.arms)


def test_checks_show_both_kinds_of_foils_and_both_sides(made: tuple[Study, Path]) -> None:
    checks = [trial for trial in made[0].trials if trial.kind == "check"]
    assert {NOISE, OTHER_PROMPT} <= {arm for t in checks for arm in (t.left_arm, t.right_arm)}
    assert {trial.expected for trial in checks} == {"left", "right"}
