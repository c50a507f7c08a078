"""What a run records about the proof of its meter."""

from __future__ import annotations

from pathlib import Path

import pytest

from perjoule.meters import known
from perjoule.meters.proof import Check, Proof
from perjoule.runs.environment import describe
from perjoule.types import Metrics, PromptSource, Protocol, Suite, Variant
from tests.support.odd_boards import OddBoard, honest_board

SUITE = Suite(
    name="s", title="s", description="", prompts=PromptSource(source="x"), metrics=Metrics(primary="m", names=("m",)),
    protocol=Protocol(seeds=(1,)),
    variants=(Variant(name="v", model="m", steps=(1,)),),
)  # fmt: skip
RESULT = Proof(
    verdict="fail", digest="0123", meter="nvml", method="", provenance="measured", device="x", board="board-1", load="",
    created_utc="2026-01-02T03:04:05+00:00", duration_s=1.0, lag_s=0.0, box_s=0.0, rest_w=1.0, work_w=2.0,
    checks=(Check(name="rest", verdict="pass", words=""), Check(name="phase", verdict="fail", words="")),
    windows=(), bare=(),
)  # fmt: skip


def test_a_run_records_the_last_proof_of_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "state"))
    with OddBoard(board=honest_board()).opened(tmp_path) as (open_meter, _), open_meter() as meter:

        def recorded() -> dict[str, str | None]:
            return describe(SUITE, meter, {}, [])["meter"]["proof"]

        before = recorded()
        assert before["verdict"] is None
        assert "doctor --prove" in str(before["why"])
        file = known.remember(meter.facts[0].digest, "proof", RESULT)
        assert recorded() == {
            "verdict": "fail", "why": "fail: phase", "digest": "0123", "created_utc": "2026-01-02T03:04:05+00:00",
        }  # fmt: skip
        file.write_text("{")
        assert recorded()["verdict"] is None
