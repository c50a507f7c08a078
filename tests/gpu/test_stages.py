"""A stage that hangs or fails costs the others nothing, and what it had written stays."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

import pytest

from perjoule.text import board_digest
from tests.gpu.records import RecordFile, of_kind, read_records, without_uuids
from tests.gpu.stages import RESERVE_S, Check, Stage, all_stages

pytestmark = pytest.mark.slow

UUID = "GPU-3f2a91c0-d5e7-4a7e-b0a4-000000000001"


def python(code: str) -> tuple[tuple[str, ...], ...]:
    return ((sys.executable, "-c", code),)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def outcomes(out: Path) -> dict[str, object]:
    return {record["name"]: record["outcome"] for record in of_kind(read_records(out / "stages.jsonl"), "stage")}


def test_each_stage_fails_alone(out: Path, tmp_path: Path) -> None:
    hangs = "import time; print('begun', flush=True); time.sleep(600)"
    stages = [
        Stage(name="hangs", commands=python(hangs), most_s=3.0, least_s=0.1),
        Stage(name="breaks", commands=(*python("raise SystemExit(7)"), *python("print('never')")), most_s=60),
        Stage(name="tolerated", commands=python("raise SystemExit(130)"), most_s=60, accepted=frozenset({0, 130})),
        Stage(name="works", commands=python(f"print('board {UUID}')"), most_s=60),
        Stage(name="late", commands=python("print('late')"), most_s=1e6, least_s=1e5),
    ]
    archive = tmp_path / "all.tar.gz"
    assert Check(out, 600, dict(os.environ), archive).run(stages) == 1
    assert outcomes(out) == {"hangs": "cut off", "breaks": 7, "tolerated": 130, "works": 0, "late": "skipped"}
    assert "begun" in (out / "hangs.txt").read_text()
    assert "never" not in (out / "breaks.txt").read_text()
    assert (out / "works.txt").read_text() == f"board {board_digest(UUID)}\n"
    assert "| hangs | cut off |" in (out / "summary.md").read_text()
    with tarfile.open(archive) as tar:
        assert {"out/works.txt", "out/stages.jsonl", "out/summary.md"} <= set(tar.getnames())


def test_a_check_without_failures_exits_with_0(out: Path) -> None:
    stages = [Stage(name="works", commands=python("print('works')"), most_s=60)]
    assert Check(out, 600, dict(os.environ)).run(stages) == 0


def test_nothing_starts_when_the_time_is_up(out: Path) -> None:
    stages = [Stage(name="works", commands=python("print('works')"), most_s=60)]
    assert Check(out, RESERVE_S, dict(os.environ)).run(stages) == 0
    assert outcomes(out) == {"works": "skipped"}


def test_the_stages_of_the_command_line_are_those_that_exist(out: Path) -> None:
    from tests.gpu.__main__ import STAGES

    assert tuple(stage.name for stage in all_stages(out, short=False)) == STAGES


def test_records_replace_uuids_as_perjoule_does() -> None:
    assert without_uuids(f"{UUID}, MIG-{UUID[4:]}") == f"{board_digest(UUID)}, {board_digest('MIG-' + UUID[4:])}"


def test_the_records_before_an_interruption_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    RecordFile(path).write("facts", name=UUID)
    path.write_text(path.read_text() + '{"kind": "ste', encoding="utf-8")
    assert read_records(path) == [{"kind": "facts", "name": board_digest(UUID)}]
