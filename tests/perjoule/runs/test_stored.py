"""A run continues after a crash at any moment, also of a repair: nothing lost, nothing repeated, no orphan rows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.errors import RunError
from perjoule.runs.directory import Run, load_run
from perjoule.runs.stored import drop_orphans, suite_differences, without_pictures
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeGenerator
from perjoule.types import Suite
from tests.perjoule.running.test_execute import ENVIRONMENT, PROMPTS, do, fresh, hashes, make_suite

SUITE = make_suite(blocks=2, seeds=(1,))
PLAN = make_plan(SUITE, PROMPTS)
STEP = 7  # of the places where a run may end; 1 tries all of them


class Crash(BaseException):
    """The process is gone: no handler of perjoule runs."""


def resumed(path: Path, *, retry_failed: bool = False) -> RunWriter:
    return RunWriter.resume(path, SUITE, PLAN, ENVIRONMENT, retry_failed=retry_failed)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[list[str]]:
    """The process ends before the `at`-th change of the disk: a write has reached it, a rename, a removal."""
    seen: list[str] = []
    rename, unlink = Path.replace, Path.unlink

    def guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            if len(seen) == at:
                raise Crash
            seen.append(name)
            return call(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", guarded("fsync", lambda handle: None))
        patch.setattr(Path, "replace", guarded("rename", rename))
        patch.setattr(Path, "unlink", guarded("remove", unlink))
        yield seen


def require_whole(run: Run, whole: Run) -> None:
    """Every trial once, with the same images; no row of a trial that is not stored, no temporary file."""
    assert hashes(run) == hashes(whole)
    assert run.trials["trial_id"].to_list() == whole.trials["trial_id"].to_list()
    ids = set(run.trials["trial_id"])
    for name in ("traces", "devices", "work", "failures"):
        assert {row["trial_id"] for row in rows(run.path / f"{name}.jsonl")} <= ids
    assert list(run.path.rglob("*.tmp")) == []
    assert without_pictures(run.path, rows(run.path / "trials.jsonl")) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        do(SUITE, fresh(path, SUITE))
    return load_run(path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power, so nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_a_crash_at_any_change_of_the_disk_is_made_good(
    tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(0, 400, STEP):
        path = tmp_path / str(at)
        with crashing(monkeypatch, at) as seen:
            try:
                do(SUITE, fresh(path, SUITE))
            except Crash:
                pass
            else:
                break
        writer = (
            resumed(path)
            if (path / "environment.json").exists()
            else RunWriter.create(path, SUITE, PROMPTS, ENVIRONMENT)
        )
        before = set(writer.done)
        drawer = FakeGenerator()
        do(SUITE, writer, generator=drawer)
        assert len(drawer.calls) == len(PLAN) - len(before)
        require_whole(load_run(path), whole)
        shutil.rmtree(path)
    assert at > 40
    assert {"fsync", "rename", "remove"} <= set(seen)


def test_details_of_a_trial_that_was_cut_off_are_dropped(tmp_path: Path, whole: Run) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    lines = (path / "trials.jsonl").read_bytes().splitlines(keepends=True)
    first, last = (json.loads(lines[i])["trial_id"] for i in (0, -1))
    (path / "trials.jsonl").write_bytes(b"".join(lines[:-1]))
    detail = {"t_s": [0.0, 1.0], "power_w": [1.0, 1.0], "source": "s"}
    for name in ("traces", "devices", "work"):
        text = "".join(json.dumps({"trial_id": trial_id, **detail}) + "\n" for trial_id in (first, last))
        (path / f"{name}.jsonl").write_text(text + '{"trial_id": "b0')
    (path / "failures.jsonl").write_text(json.dumps({"trial_id": last, "failure": "x"}) + "\n")
    (path / "images" / ".perjoule-0123.tmp").write_bytes(b"half a picture")
    do(SUITE, resumed(path))
    for name in ("traces", "devices", "work"):
        assert [row["trial_id"] for row in rows(path / f"{name}.jsonl")] == [first]
    assert load_run(path).power["trial_id"].unique().to_list() == [first]
    require_whole(load_run(path), whole)


@settings(max_examples=20)
@given(
    kept=st.lists(st.booleans(), max_size=8),
    torn=st.sampled_from([b"", b"\n", b'{"trial_id": "b9"', b'{"trial_id": "kept0", "a": "']),
)
def test_only_whole_rows_of_stored_trials_stay(
    tmp_path_factory: pytest.TempPathFactory, kept: list[bool], torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("details")
    lines = [json.dumps({"trial_id": f"{'kept' if k else 'lost'}{n}", "a": "ü\\"}).encode() for n, k in enumerate(kept)]
    (path / "work.jsonl").write_bytes(b"".join(line + b"\n" for line in lines) + torn)
    drop_orphans(path, {f"kept{n}" for n in range(8)})
    assert (path / "work.jsonl").read_bytes().splitlines() == [x for x, k in zip(lines, kept, strict=True) if k]


def test_a_damaged_detail_is_located_before_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "work.jsonl").write_text('{"trial_id": "a"}\n{"trial\n{"trial_id": "a"}\n')
    with pytest.raises(RunError, match=r"work\.jsonl, line 2: damaged"):
        drop_orphans(tmp_path, {"a"})


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b""),
                                    lambda file: file.write_bytes(file.read_bytes()[:40])])  # fmt: skip
def test_a_lost_picture_is_made_again_and_its_first_window_stays_spent(
    tmp_path: Path, whole: Run, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    image = whole.images.row(0, named=True)
    damage(path / image["file"])
    writer = resumed(path)
    assert writer.done == set(whole.trials["trial_id"]) - {image["trial_id"]}
    assert image["trial_id"] in writer.notes[0]
    assert sum(row["energy_j"] for row in writer.spent) == pytest.approx(whole.trials["energy_j"].sum())
    drawer = FakeGenerator()
    do(SUITE, writer, generator=drawer)
    assert len(drawer.calls) == 1
    assert hashes(load_run(path)) == hashes(whole)
    assert resumed(path).notes == []


def test_a_crash_while_failed_trials_are_set_aside_counts_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = tmp_path / "failed"
    do(SUITE, fresh(failed, SUITE), failing=lambda window: window in (1, 4))
    spent_s = load_run(failed).trials["duration_s"].sum()
    for at in range(30):
        path = tmp_path / str(at)
        shutil.copytree(failed, path)
        with crashing(monkeypatch, at):
            try:
                resumed(path, retry_failed=True).close()
                break
            except Crash:
                pass
        writer = resumed(path, retry_failed=True)
        assert sum(row["duration_s"] for row in writer.spent) == pytest.approx(spent_s)
        assert len(writer.done) == len(PLAN) - 2
        writer.close()
        again = resumed(path)
        assert sum(row["duration_s"] for row in again.spent) == pytest.approx(spent_s)
        again.close()
    assert at > 3


def test_a_start_that_was_cut_off_is_not_a_run_and_can_be_started_again(
    tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perjoule.runs.directory import is_run

    for at in range(1, 30):
        path = tmp_path / str(at)
        with crashing(monkeypatch, at):
            try:
                fresh(path, SUITE).close()
                break
            except Crash:
                pass
        if not (path / "environment.json").exists():
            assert not is_run(path)
            do(SUITE, fresh(path, SUITE))
            assert {file.name for file in path.iterdir()} == {file.name for file in whole.path.iterdir()}
    assert at > 6


def test_sessions_are_recorded_and_another_version_is_reported(tmp_path: Path, whole: Run) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    now = {**ENVIRONMENT, "perjoule": "9.9", "packages": {"torch": "3.0"}, "command": ["perjoule", "run"]}
    writer = RunWriter.resume(path, SUITE, PLAN, now)
    assert writer.notes == [
        "since the run began, perjoule was None and is 9.9, torch was None and is 3.0; recorded in sessions.jsonl"
    ]
    writer.close()
    assert rows(path / "sessions.jsonl")[0]["perjoule"] == "9.9"


def other(suite: Suite, **changes: Any) -> Suite:
    return replace(suite, protocol=replace(suite.protocol, **changes))


def test_a_changed_suite_is_named_key_by_key_with_both_values() -> None:
    assert suite_differences(SUITE, other(SUITE, blocks=3)) == ["protocol.blocks was 2 and is 3"]
    variant = replace(SUITE.variants[0], guidance=1.0, call_args={"eta": 1.0})
    assert suite_differences(SUITE, replace(SUITE, variants=(variant,))) == [
        "variants.v.guidance was 7.5 and is 1.0",
        "variants.v.call_args was {} and is None",
        "variants.v.call_args.eta was None and is 1.0",
    ]
    two = replace(SUITE, variants=(SUITE.variants[0], replace(SUITE.variants[0], name="w")))
    swapped = replace(two, variants=two.variants[::-1])
    assert suite_differences(two, swapped) == ["variants.order was ['v', 'w'] and is ['w', 'v']"]
    labelled = replace(
        SUITE,
        variants=(replace(variant, label="another word"),),
        metrics=replace(SUITE.metrics, labels={"q": "Q"}, margins={"q": 0.1}),
    )
    assert suite_differences(replace(SUITE, variants=(variant,)), labelled) == []
    # these change no number
    harmless = replace(other(SUITE, timeout_s=5.0), title="Reworded", description="Reworded.")
    assert suite_differences(SUITE, harmless) == []
