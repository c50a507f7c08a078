from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.pytest_energy.looking import ALPHA, FEWEST_ROUNDS, looks
from perjoule.pytest_energy.records import judge
from perjoule.types import COUNTED
from tests.benchmarks.statistics.looking import MARGIN, MOST_ROUNDS, measured, shares

PLAN = looks(MOST_ROUNDS)


@given(st.integers(2, 10_000))
def test_levels_of_all_looks_add_up(most: int) -> None:
    plan = looks(most)
    assert sum(look.alpha for look in plan) == pytest.approx(ALPHA)
    rounds = [look.rounds for look in plan]
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == most
    assert rounds[0] == min(most, FEWEST_ROUNDS)
    assert all(look.alpha > 0 for look in plan)


def test_the_looks_that_the_documentation_names() -> None:
    assert [look.rounds for look in looks(20)] == [3, 5, 8, 13, 20]
    assert [look.alpha for look in looks(20)] == pytest.approx([0.001] * 4 + [0.046])


@pytest.mark.parametrize("session_sd", [0.0, 0.01])
def test_errors_stay_below_alpha_in_spite_of_looking(session_sd: float) -> None:
    # at the margin itself both verdicts are wrong; 5 % of 400 are 20, and 32 or more have a chance of 0.6 %
    at_margin, _ = shares(np.log1p(MARGIN), session_sd, PLAN, 400)
    assert at_margin["pass"] < 32 / 400
    assert at_margin["fail"] < 32 / 400


def test_clear_verdicts_take_few_rounds() -> None:
    same, rounds = shares(0.0, 0.0, PLAN, 200)
    assert same["pass"] > 0.9
    assert rounds < 10
    worse, rounds = shares(np.log(1.2), 0.0, PLAN, 200)
    assert worse["fail"] > 0.98
    assert rounds < 5


def test_counted_work_has_no_session_sd() -> None:
    before = measured(np.zeros(5), method=f"{COUNTED}, cpu")
    same = measured(np.zeros(3), method=f"{COUNTED}, cpu")
    assert judge(same, before, MARGIN, 0.03, 0.001).outcome == "pass"
    more = measured(np.full(3, np.log(1.051)), method=f"{COUNTED}, cpu")
    assert judge(more, before, MARGIN, 0.03, 0.001).outcome == "fail"
    assert judge(measured(np.zeros(3)), measured(np.zeros(5)), MARGIN, 0.03, 0.001).outcome == "inconclusive"
