from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.pytest_energy.looking import ALPHA, FEWEST_ROUNDS, looks
from perjoule.pytest_energy.records import Measured, judge
from perjoule.types import COUNTED

MARGIN = 0.05


def measured(logs: np.ndarray, method: str = "m") -> Measured:
    energies = tuple(np.exp(logs).tolist())
    return Measured(
        nodeid="t", energy_j=energies, uncertainty_j=(None,) * len(logs), duration_s=(1.0,) * len(logs), iterations=1,
        boundary="gpu-board", provenance="measured", method=method,
    )  # fmt: skip


def sequential(now: np.ndarray, before: Measured, session_sd: float) -> tuple[str, int]:
    """Verdict of the first look that decides, and its rounds."""
    for look in looks(len(now)):
        outcome = judge(measured(now[: look.rounds]), before, MARGIN, session_sd, look.alpha).outcome
        if outcome != "inconclusive":
            break
    return outcome, look.rounds


@given(st.integers(2, 10_000))
def test_levels_of_all_looks_add_up(most: int) -> None:
    plan = looks(most)
    assert sum(look.alpha for look in plan) == pytest.approx(ALPHA)
    rounds = [look.rounds for look in plan]
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == most
    assert rounds[0] == min(most, FEWEST_ROUNDS)
    assert all(look.alpha > 0 for look in plan)


def shares(true: float, session_sd: float, count: int = 400, sd: float = 0.02) -> tuple[dict[str, float], float]:
    """Shares of verdicts, and mean rounds, where the energy has truly changed by the factor exp(true)."""
    chance = np.random.default_rng(0)
    verdicts, rounds = [], []
    for _ in range(count):
        sessions = chance.normal(0, session_sd, 2)
        before = measured(sessions[0] + chance.normal(0, sd, 8))
        verdict, needed = sequential(true + sessions[1] + chance.normal(0, sd, 20), before, session_sd)
        verdicts.append(verdict)
        rounds.append(needed)
    return {name: verdicts.count(name) / count for name in ("pass", "fail", "inconclusive")}, float(np.mean(rounds))


@pytest.mark.parametrize("session_sd", [0.0, 0.01])
def test_errors_stay_below_alpha_in_spite_of_looking(session_sd: float) -> None:
    # at the margin itself both verdicts are wrong; 5 % of 400 are 20, and 32 or more have a chance of 0.6 %
    at_margin, _ = shares(np.log1p(MARGIN), session_sd)
    assert at_margin["pass"] < 32 / 400
    assert at_margin["fail"] < 32 / 400


def test_clear_verdicts_take_few_rounds() -> None:
    same, rounds = shares(0.0, 0.0)
    assert same["pass"] > 0.9
    assert rounds < 14
    worse, rounds = shares(np.log(1.2), 0.0)
    assert worse["fail"] > 0.99
    assert rounds < 9


def test_counted_work_has_no_session_sd() -> None:
    before = measured(np.zeros(5), method=f"{COUNTED}, cpu")
    same = measured(np.zeros(3), method=f"{COUNTED}, cpu")
    assert judge(same, before, MARGIN, 0.03, 0.001).outcome == "pass"
    more = measured(np.full(3, np.log(1.051)), method=f"{COUNTED}, cpu")
    assert judge(more, before, MARGIN, 0.03, 0.001).outcome == "fail"
    assert judge(measured(np.zeros(3)), measured(np.zeros(5)), MARGIN, 0.03, 0.001).outcome == "inconclusive"
