from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import driving
from tests.support.histories import logged
from tests.support.stored_runs import stored_run

from perjoule.commands.baseline_log import bars
from perjoule.gating import history


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weekly(count: int = 12, rise: float = 0.01, **changes: Any) -> None:
    for week in range(count):
        wobble = 1 + 0.002 * ((7 * week) % 5)
        history.log_run(logged(week, [100.0 * (1 + rise) ** week * wobble], [0.3], **changes))


def test_a_run_is_logged_once(folder: Path) -> None:
    run = stored_run(folder / "run")
    first, again = (driving.drive("baseline", "log", str(run.path)) for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    assert "added to .perjoule/history.jsonl (1 runs)" in first.out
    assert "already in .perjoule/history.jsonl" in again.out
    assert "TOO FEW RUNS" in again.out
    assert len(history.FILE.read_text().splitlines()) == 1
    assert (folder / ".perjoule" / ".gitattributes").read_text() == "history.jsonl merge=union\n"


def test_a_drift_is_printed_and_checked() -> None:
    weekly()
    shown = driving.drive("baseline", "log")
    assert shown.code == 0
    assert shown.out.startswith("WORSE  mine, NVIDIA L4, gpu-board, measured\n")
    assert "Energy per image of ladder-001 drifts by +1.0 % per week since 2026-01-05" in shown.out
    assert "▁" in shown.out
    assert "J/image, 100 to 11" in shown.out
    assert driving.drive("baseline", "log", "--check").code == 1
    record = json.loads(driving.drive("baseline", "log", "--json").out)
    assert (record["runs"], record["trends"][0]["verdict"]) == (12, "worse")


def test_a_stable_history_passes_the_check() -> None:
    weekly(rise=0.0)
    ended = driving.drive("baseline", "log", "--check")
    assert ended.code == 0
    assert "STABLE" in ended.out


def test_an_accepted_step_is_forgotten() -> None:
    for week in range(24):
        history.log_run(logged(week, [(100.0 if week < 12 else 110.0) + week % 3], commit=f"{week:012d}"))
    assert driving.drive("baseline", "log", "--check").code == 1
    accepted = driving.drive("baseline", "log", "--accept", "new scheduler", "--check")
    assert accepted.code == 0
    assert "STABLE" in accepted.out
    assert accepted.out.startswith(
        "accepted: the trend of mine starts again at the run of 2026-03-30, because of 'new scheduler': Energy per "
        "image of ladder-001 rose by "
    )
    assert "Starts at 2026-03-30, where a change was accepted: new scheduler" in accepted.out
    (line,) = history.read_history().accepted
    assert line.since[:10] == "2026-03-30"


def test_a_drift_is_accepted_as_far_as_it_has_come() -> None:
    weekly()
    assert driving.drive("baseline", "log", "--accept", "larger images").code == 0
    (line,) = history.read_history().accepted
    assert line.since[:10] == "2026-03-23"  # the newest run
    assert "TOO FEW RUNS" in driving.drive("baseline", "log").out
    again = driving.drive("baseline", "log", "--accept", "once more", "--json")
    assert json.loads(again.out)["accepted"].endswith("it has no change; this is its newest run")


def test_a_change_of_the_suite_is_printed() -> None:
    history.log_run(logged(0, [100.0], settings={"v.name": "v", "v.steps": "3"}))
    history.log_run(logged(1, [127.0], settings={"v.name": "v", "v.steps": "4"}, suite_digest="f" * 12))
    shown = driving.drive("baseline", "log")
    assert "TOO FEW RUNS  mine, NVIDIA L4, gpu-board, measured, steps 4" in shown.out
    assert "  New series since 2026-01-12: steps 3 → 4." in shown.out
    assert "TOO FEW RUNS  mine, NVIDIA L4, gpu-board, measured, steps 3" in shown.out


def test_suites_are_chosen_by_name() -> None:
    weekly()
    weekly(suite="other", rise=0.0, id="f" * 16)
    assert driving.drive("baseline", "log", "--suite", "other").out.startswith("TOO FEW RUNS  other")
    ambiguous = driving.drive("baseline", "log", "--accept", "x")
    assert ambiguous.code == 2
    assert "name the suite with --suite (mine, other)" in ambiguous.err
    unknown = driving.drive("baseline", "log", "--suite", "third")
    assert (unknown.code, "has no run of it" in unknown.err) == (2, True)


def test_an_empty_history_says_what_to_do() -> None:
    ended = driving.drive("baseline", "log")
    assert (ended.code, ended.out) == (
        0,
        ".perjoule/history.jsonl has no runs: log one with `perjoule baseline log RUN`\n",
    )
    assert driving.drive("baseline", "log", "--accept", "x").code == 2


def test_a_damaged_history_is_an_error_with_its_line() -> None:
    weekly(3)
    before = history.FILE.read_bytes() + b"{broken\n"
    history.FILE.write_bytes(before)
    ended = driving.drive("baseline", "log")
    assert ended.code == 4
    assert ".perjoule/history.jsonl, line 4: damaged" in ended.err
    assert "git checkout" in ended.err
    assert history.FILE.read_bytes() == before


def test_bars() -> None:
    assert bars((1.0, 2.0, 3.0)) == "▁▅█"
    assert bars((2.0, 2.0)) == "▁▁"
    assert len(bars(tuple(map(float, range(100))))) == 60
