"""What looking costs the gate of a pytest test: wrong verdicts, decided tests and rounds, compared with a fixed number.

    nice python -m tests.benchmarks.statistics.looking [TESTS]

ln J of a round scatters by 2 %; the baseline has 8 rounds, a test at most 20; the margin is 5 %.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perjoule.pytest_energy.looking import ALPHA, Look, looks
from perjoule.pytest_energy.records import Measured, judge

MARGIN, ROUND_SD, BASELINE_ROUNDS, MOST_ROUNDS = 0.05, 0.02, 8, 20
Shares = dict[str, float]


def measured(logs: NDArray[np.float64], method: str = "m") -> Measured:
    """Return the record of rounds with these ln J."""
    return Measured(
        nodeid="t", energy_j=tuple(np.exp(logs).tolist()), uncertainty_j=(None,) * len(logs),
        duration_s=(1.0,) * len(logs), iterations=1, boundary="gpu-board", provenance="measured", method=method,
    )  # fmt: skip


def shares(change: float, session_sd: float, plan: Sequence[Look], tests: int) -> tuple[Shares, float]:
    """Shares of verdicts, and mean rounds, if the energy has truly changed by the factor exp(`change`)."""
    chance = np.random.default_rng(0)
    verdicts: list[str] = []
    rounds: list[int] = []
    for _ in range(tests):
        sessions = chance.normal(0, session_sd, 2)
        before = measured(sessions[0] + chance.normal(0, ROUND_SD, BASELINE_ROUNDS))
        now = change + sessions[1] + chance.normal(0, ROUND_SD, MOST_ROUNDS)
        for look in plan:
            outcome = judge(measured(now[: look.rounds]), before, MARGIN, session_sd, look.alpha).outcome
            if outcome != "inconclusive":
                break
        verdicts.append(outcome)
        rounds.append(look.rounds)
    return {name: verdicts.count(name) / tests for name in ("pass", "fail", "inconclusive")}, float(np.mean(rounds))


def main(tests: int = 2_000) -> None:
    """Print the table."""
    print(f"{tests} tests each, alpha {ALPHA:.0%}, at most {MOST_ROUNDS} rounds")
    print("session sd   change   rounds     pass    fail    open    mean rounds")
    plans = {"looking": looks(MOST_ROUNDS), "fixed": (Look(rounds=MOST_ROUNDS, alpha=ALPHA),)}
    for session_sd in (0.0, 0.01):
        for change in (0.0, 0.02, MARGIN, 0.1, 0.2):
            for name, plan in plans.items():
                found, rounds = shares(np.log1p(change), session_sd, plan, tests)
                text = " ".join(f"{share:7.1%}" for share in found.values())
                print(f"{session_sd:10.0%} {change:8.0%}   {name:8} {text} {rounds:10.1f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
