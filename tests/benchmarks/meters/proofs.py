"""Does `doctor --prove` pass honest boards, and name the fault of the others?

`python -m tests.benchmarks.meters.proofs [BOARDS]` proves that many honest and that many faulty simulated boards of
random properties on virtual time; about 1.5 s of one core each.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from perjoule.meters.proof import Proof
from perjoule.meters.proving import prove
from perjoule.testing import StepLog
from tests.support.odd_boards import OddBoard, honest_board

FAULTS = ("phase", "period", "sources", "rest", "lag")


def random_board(chance: random.Random, fault: str | None) -> OddBoard:
    """Return a board of random properties, honest if `fault` is None."""
    rest_w = chance.uniform(15, 130)
    work_w = rest_w + chance.uniform(100, 450)
    period_s = chance.choice([0.02, 0.05, 0.1])
    changes: dict[str, float | tuple[str, ...]] = {}
    odd: dict[str, float] = {}
    if fault == "phase":
        changes["counter_duty"] = chance.uniform(0.2, 0.8)
    elif fault == "period":
        odd["slow_s"] = period_s * chance.choice([2, 3, 5])
    elif fault == "sources":
        odd["gain_at_work"] = 1 + chance.choice([-1, 1]) * chance.uniform(0.08, 0.3)
    elif fault == "rest":
        odd["foreign_w"] = chance.uniform(30, 0.8 * (work_w - rest_w))
    elif fault == "lag":
        changes["counter_lag_s"] = chance.uniform(0.015, 0.1)
        changes["counter_box_s"] = chance.choice([0.0, chance.uniform(0.05, 1.0)])
    board = honest_board(
        rise_s=chance.uniform(0, 0.005),
        fall_s=chance.uniform(0, 0.01),
        settle_w=chance.uniform(0, 0.2 * rest_w),
        settle_s=chance.uniform(0.1, 1.0),
        wave=StepLog(start_w=rest_w),
        limit_w=1.2 * work_w,
        gain=chance.uniform(0.9, 1.1),
        noise_w=chance.uniform(0, 0.01 * rest_w),
        counter_jitter=chance.uniform(0, 0.05),
        counter_period_s=period_s,
        counter_phase_s=chance.uniform(0, period_s),
        seed=chance.randrange(1 << 30),
        **changes,
    )
    return OddBoard(board=board, work_w=work_w, **odd)


def main(boards: int) -> None:
    """Print the share of boards with the right result, and every wrong one."""
    with tempfile.TemporaryDirectory() as folder:
        for honest in (True, False):
            right: Counter[str] = Counter()
            count: Counter[str] = Counter()
            for seed in range(boards):
                fault = None if honest else FAULTS[seed % len(FAULTS)]
                odd = random_board(random.Random(f"{honest} {seed}"), fault)
                with odd.opened(Path(folder), seed) as (open_meter, load):
                    proof = prove(open_meter, load, chance=random.Random(seed))
                kind = fault or "honest"
                count[kind] += 1
                right[kind] += is_right(proof, fault)
                if not is_right(proof, fault):
                    print(f"{kind} board {seed}: {proof.verdict}, {odd}")
                    for check in proof.checks:
                        print(f"    {check.name:10} {check.verdict:9} {check.words}")
            for kind, total in count.items():
                print(f"{kind:8} {right[kind]} of {total} {'pass' if honest else 'found and named'}", flush=True)


def is_right(proof: Proof, fault: str | None) -> bool:
    """Return whether an honest board passed, or the check that names the fault failed."""
    if fault is None:
        return proof.verdict == "pass"
    return any(check.name == fault and check.verdict == "fail" for check in proof.checks)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
