"""Runs of parts of one plan become the run of the whole plan; everything else is refused by key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from perjoule.errors import RunError, UsageError
from perjoule.prompts import prompt_id
from perjoule.running.execute import execute
from perjoule.running.prepared import shard_of
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, is_run, load_run
from perjoule.runs.lock import being_written
from perjoule.runs.merging import merge_runs
from perjoule.runs.writer import RunWriter
from perjoule.statistics.price import price_of
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Prompt, Suite
from tests.perjoule.running.test_execute import ENVIRONMENT, hashes, make_suite
from tests.perjoule.runs.test_stored import Crash, crashing

PROMPTS = tuple(Prompt(prompt_id=prompt_id(text), text=text) for text in ("a cat", "a dog", "a fox", "a hen", "a cow"))
SUITE = make_suite(blocks=2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)


def run_of(
    path: Path,
    prompts: Sequence[Prompt],
    suite: Suite = SUITE,
    trials: slice = slice(None),
    **environment: Any,
) -> Run:
    clock = VirtualClock()
    writer = RunWriter.create(path, suite, prompts, {**ENVIRONMENT, **environment})
    plan = make_plan(suite, prompts)
    planned = {assignment.trial_id for assignment in plan[trials]}
    writer.done |= {assignment.trial_id for assignment in plan} - planned
    execute(
        plan,
        protocol=suite.protocol,
        meter=SyntheticMeter(40.0, clock),
        generators=GeneratorCache(FakeFactory(FakeGenerator(clock=clock)), lambda variant: variant.name),
        writer=writer,
        on_progress=lambda _: None,
    )
    writer.finish()
    return load_run(path)


def facts(run: Run) -> list[tuple[Any, ...]]:
    return run.trials.select("trial_id", "prompts", "seeds", "image_sha256", pl.col("energy_j").round(6)).rows()


def test_shards_of_the_prompts_become_the_whole_run(tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole", PROMPTS)
    for number in (1, 2):
        shard = f"{number}/2"
        run_of(tmp_path / str(number), shard_of(PROMPTS, 2, shard), shard=shard)
    merged = merge_runs([tmp_path / "2", tmp_path / "1"], tmp_path / "merged")
    assert facts(merged) == facts(whole)
    assert hashes(merged) == hashes(whole)
    assert merged.prompt_set == PROMPTS
    assert merged.planned_trials == len(merged.trials)
    for file in (tmp_path / "whole" / "images").iterdir():
        assert (merged.path / "images" / file.name).read_bytes() == file.read_bytes()
    assert [part["shard"] for part in merged.environment["merged_from"]] == ["1/2", "2/2"]
    # the merged run is a run like any other
    RunWriter.resume(merged.path, merged.suite, make_plan(merged.suite, merged.prompt_set), ENVIRONMENT).close()


def test_parts_of_the_same_prompts_become_one_run_which_can_be_resumed(tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole", PROMPTS)
    run_of(tmp_path / "a", PROMPTS, trials=slice(0, 5))
    run_of(tmp_path / "b", PROMPTS, trials=slice(7, None))
    merged = merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert len(merged.trials) == len(whole.trials) - 2
    ids = merged.trials["trial_id"].to_list()
    order = whole.trials["trial_id"].to_list()
    assert ids == [trial_id for trial_id in order if trial_id in ids]


def test_prompt_files_that_were_split_by_hand_are_merged_too(tmp_path: Path) -> None:
    parts = []
    for name, prompts in (("a", PROMPTS[:2]), ("b", PROMPTS[2:])):
        suite = replace(SUITE, prompts=replace(SUITE.prompts, source=f"{name}.txt"))
        parts.append(run_of(tmp_path / name, prompts, suite).path)
    merged = merge_runs(parts, tmp_path / "merged")
    assert hashes(merged) == hashes(run_of(tmp_path / "whole", PROMPTS))
    assert (merged.suite.prompts.source, merged.suite.prompts.column) == ("prompts.jsonl", "text")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"prompts": PROMPTS[:2]}, "is in .* too: merge runs of different prompts"),
        ({"suite": make_suite(blocks=1)}, r"protocol\.blocks is 2 and 1"),
        ({"comparability": {"device": "H100"}}, "device is 'fake' and 'H100'"),
        ({"imported_from": "table.csv"}, "was imported from a table"),
    ],
)
def test_other_runs_are_refused_by_key(tmp_path: Path, second: dict[str, Any], words: str) -> None:
    run_of(tmp_path / "a", PROMPTS[:2])
    run_of(tmp_path / "b", **{"prompts": PROMPTS[2:], **second})
    with pytest.raises(RunError, match=words):
        merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_windows_that_no_plan_has_are_refused(tmp_path: Path) -> None:
    run_of(tmp_path / "a", PROMPTS[:3])
    run_of(tmp_path / "b", PROMPTS[3:])
    with pytest.raises(RunError, match="do not share a window in the plan of all 5 prompts"):
        merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    with pytest.raises(UsageError, match="at least two runs"):
        merge_runs([tmp_path / "a"], tmp_path / "merged")


def test_a_link_in_place_of_an_image_is_not_followed(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, prompts).path for name, prompts in (("a", PROMPTS[:2]), ("b", PROMPTS[2:]))]
    image = next((tmp_path / "a" / "images").iterdir())
    shutil.move(image, tmp_path / "elsewhere.png")
    image.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(RunError, match="is a symbolic link"):
        merge_runs(runs, tmp_path / "merged")


def two_shards(folder: Path) -> list[Path]:
    return [run_of(folder / name, prompts).path for name, prompts in (("a", PROMPTS[:2]), ("b", PROMPTS[2:4]))]


def test_a_merge_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    paths = two_shards(tmp_path)
    image = next((tmp_path / "b" / "images").iterdir())
    image.rename(tmp_path / "lost.png")
    with pytest.raises(RunError, match=f"{image}: not a readable picture.*No such file.*continue .* with --resume"):
        merge_runs(paths, tmp_path / "merged")
    (tmp_path / "lost.png").rename(image)

    def refuse(run: Run) -> None:
        raise RunError(f"{run.path}: other boards")

    with pytest.raises(RunError, match=f"^{tmp_path}/merged: other boards"):
        merge_runs(paths, tmp_path / "merged", refuse)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    assert len(merge_runs(paths, tmp_path / "merged").trials) == 16


@pytest.mark.parametrize("exists", [False, True])
def test_a_kill_at_any_change_of_the_disk_leaves_no_run_and_does_not_stop_a_repeat(
    tmp_path: Path, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = two_shards(tmp_path)
    whole = run_of(tmp_path / "whole", PROMPTS[:4])
    monkeypatch.setattr("perjoule.runs.merging._COPIES", 1)
    out = tmp_path / "merged"
    at, done = 0, False
    while not done:
        if exists:
            out.mkdir()
        with crashing(monkeypatch, at), monkeypatch.context() as patch:
            patch.setattr("perjoule.runs.whole.shutil.rmtree", lambda *args, **kwargs: None)  # nobody tidies up
            try:
                merge_runs(paths, out)
                done = True
            except Crash:
                pass
        if (out / "environment.json").exists():  # the crash came after the last step
            assert hashes(load_run(out)) == hashes(whole)
        else:
            assert not any(is_run(entry) for entry in (*tmp_path.iterdir(), out) if entry.name.startswith((".", "m")))
            assert hashes(merge_runs(paths, out)) == hashes(whole)
        assert list(out.rglob("*.tmp")) == []
        shutil.rmtree(out)
        at += 11
    assert at > 60


def test_runs_are_merged_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = two_shards(tmp_path)
    (tmp_path / "merged").mkdir()
    monkeypatch.chdir(tmp_path / "merged")
    assert len(merge_runs(paths, Path()).trials) == 16
    assert Path("environment.json").exists()
    assert not list(Path().glob(".*"))


def journal(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_attempts_and_sessions_of_the_parts_stay_recorded(tmp_path: Path) -> None:
    """The joules of attempts count for the caps, also of trials that are not done again yet."""
    paths = two_shards(tmp_path)
    repeated = load_run(paths[1])
    plan = make_plan(repeated.suite, repeated.prompt_set)
    lost, again = (repeated.images.row(place, named=True) for place in (0, -1))
    assert lost["trial_id"] != again["trial_id"]
    for image in (lost, again):
        (paths[1] / image["file"]).unlink()
    spent = sum(load_run(path).trials["energy_j"].sum() for path in paths)
    environment = {**ENVIRONMENT, "perjoule": "9.9", "command": ["perjoule", "run", "--resume"]}
    # stopped before anything was drawn
    RunWriter.resume(paths[1], repeated.suite, plan, environment).close()
    failure = {"trial_id": lost["trial_id"], "failure": "boom", "traceback": "line 1"}
    (paths[1] / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    orphan = {"trial_id": lost["trial_id"], "t_s": [0.0], "power_w": [1.0], "source": "s"}
    (paths[1] / "traces.jsonl").write_text(json.dumps(orphan) + "\n")

    merged = merge_runs(paths, tmp_path / "merged")
    whole = make_plan(merged.suite, merged.prompt_set)
    planned = {(a.cell.cell_id, a.block, *(p.prompt_id for p in a.prompts), *a.seeds): a.trial_id for a in whole}
    attempts = journal(merged.path / "superseded.jsonl")
    assert len(attempts) == 2
    for row in attempts:
        assert row["trial_id"] == planned[row["cell_id"], row["block"], *row["prompt_ids"], *row["seeds"]]
        assert row["trial_id"] not in merged.trials["trial_id"]
    (explained,) = journal(merged.path / "failures.jsonl")
    (first,) = [row for row in attempts if lost["prompt_id"] in row["prompt_ids"] and row["cell_id"] == lost["cell_id"]]
    assert explained == {**failure, "trial_id": first["trial_id"]}
    assert journal(merged.path / "traces.jsonl") == []
    (session,) = journal(merged.path / "sessions.jsonl")
    assert (session["run"], session["perjoule"], session["command"]) == ("b", "9.9", environment["command"])
    resumed = RunWriter.resume(merged.path, merged.suite, whole, ENVIRONMENT)
    resumed.close()
    assert sum(row["energy_j"] for row in resumed.spent) == pytest.approx(spent)
    price = price_of(load_run(merged.path))
    assert price is not None
    assert price.energy_j == pytest.approx(spent)


@pytest.mark.parametrize(
    "row", ['{"trial_id": "x"}', '{"trial_id": "x", "cell_id": 1, "block": [], "prompt_ids": 1, "seeds": 1}', "[1]"]
)
def test_damaged_attempts_are_located(tmp_path: Path, row: str) -> None:
    paths = two_shards(tmp_path)
    (paths[1] / "superseded.jsonl").write_text(row + "\n")
    with pytest.raises(RunError, match=r"b/superseded\.jsonl.*damaged"):
        merge_runs(paths, tmp_path / "merged")


def test_a_run_that_is_being_written_is_not_merged(tmp_path: Path) -> None:
    paths = two_shards(tmp_path)
    refused = pytest.raises(UsageError, match="b is being written by process")
    with being_written(paths[1]), refused:
        merge_runs(paths, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    locked_out = pytest.raises(UsageError, match="a is being read by process")

    def try_to_write(run: Run) -> None:
        with locked_out, being_written(paths[0]):
            pass

    merge_runs(paths, tmp_path / "merged", try_to_write)
    with being_written(paths[0]), being_written(paths[1]):
        pass  # released


@pytest.mark.parametrize("out", ["a/sub", "a/images/more/sub", "link/sub", "b/../a/sub"])
def test_the_merged_run_is_not_written_into_a_part(tmp_path: Path, out: str) -> None:
    paths = two_shards(tmp_path)
    (tmp_path / "link").symlink_to(paths[0])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"--out {tmp_path / out} is in {paths[0]}, which is to be merged"):
        merge_runs(paths, tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before


def sparse(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(12 * 2**30)


def other_pixels(file: Path) -> None:
    Image.new("RGB", Image.open(file).size, "red").save(file)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (sparse, "has 12,288 MiB, but perjoule reads at most 208 MiB"),
        (lambda file: file.write_text("root:x:0:0:root:/root:/bin/sh\n"), "not a readable picture"),
        (other_pixels, "is not the picture that was measured"),
    ],
)
def test_a_picture_that_is_not_the_measured_one_is_not_copied(
    tmp_path: Path, attack: Callable[[Path], None], words: str
) -> None:
    paths = two_shards(tmp_path)
    attack(image := sorted((tmp_path / "b" / "images").iterdir())[-1])
    with pytest.raises(RunError, match=f"{image}.* {words}"):
        merge_runs(paths, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_are_whole_windows_and_make_up_all_prompts(count: int) -> None:
    shards = [shard_of(PROMPTS, 2, f"{number}/{count}") for number in range(1, count + 1)]
    assert sum(shards, ()) == PROMPTS
    assert all(len(shard) % 2 == 0 for shard in shards[:-1])


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/2/3", "4/4", "1/4", "-1/2"])
def test_other_shards_are_refused(shard: str) -> None:
    with pytest.raises(UsageError, match=f"--shard {shard}"):
        shard_of(PROMPTS, 2, shard)
