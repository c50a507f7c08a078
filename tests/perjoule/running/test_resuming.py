"""A run goes on with its own prompts, wherever it lies and whatever has become of the prompt file."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from perjoule.errors import BudgetSpent, RunError, UsageError
from perjoule.forecast.budget import Budget
from perjoule.running import device, pipeline
from perjoule.running.prepared import prepare
from perjoule.running.trial import GeneratorCache
from perjoule.runs import stored
from perjoule.runs.directory import Run, load_run
from perjoule.runs.lock import being_written
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from tests.perjoule.running.test_scoring import Quiet

pytestmark = pytest.mark.slow

SUITE = """
name = "s"
title = ""
description = ""
[prompts]
source = "{source}"
[protocol]
seeds = [1]
idle_s = 0.0
warmup_iterations = 0
[metrics]
primary = "lsnr"
names = ["lsnr"]
[[variants]]
name = "v"
model = "m"
steps = [1, 2]
"""
TEXTS = ["a cat", "a dog", "a fox", "a hen"]
EDITED = ["a cat", "a ship", "a fox", "a hen", "a whale"]


class Listening(Quiet):
    @contextmanager
    def stage(self, name, total, unit, resumed=0.0):
        yield self

    def update(self, done, note="", share=None):
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a suite and its prompts; pipelines and meter are fakes, and nothing is scored."""
    clock = VirtualClock()
    factory = FakeFactory(FakeGenerator(clock=clock, step_s=1.0))
    cache = GeneratorCache(factory, lambda variant: variant.name)
    monkeypatch.setattr(device, "generators_of", lambda suite, source: cache)

    @contextmanager
    def meter(name, *, of_networks):
        yield SyntheticMeter(10.0, clock)

    monkeypatch.setattr(device, "open_meter", meter)
    monkeypatch.setattr(pipeline, "finish", lambda run, metrics, reporter: run)
    project = tmp_path / "project"
    project.mkdir()
    (project / "prompts.txt").write_text("\n".join(TEXTS) + "\n")
    (project / "suite.toml").write_text(SUITE.format(source="prompts.txt"))
    return project


def go(suite: Path | str, out: Path, *, resume: bool = False, max_joules: float | None = None) -> tuple[Run, list[str]]:
    told = Listening()
    prepared = prepare(str(suite), resume=out if resume else None)
    done = pipeline.run(
        prepared,
        out=out,
        meter_name="auto",
        resume=resume,
        command=["perjoule"],
        reporter=told,
        budget=Budget(max_joules=max_joules),
    )
    return done, [message for message in told.messages if "prompts" in message]


def start(folder: Path, suite: str = "suite.toml") -> Path:
    """A run that was stopped after some of its eight trials."""
    with pytest.raises(BudgetSpent):
        go(folder / suite, folder / "run", max_joules=45.0)
    assert 0 < load_run(folder / "run").trials.height < 8
    return folder / "run"


def drawn(run: Run) -> list[tuple[str, ...]]:
    return sorted(tuple(texts) for texts in run.trials["prompts"].to_list())


COMPLETE = sorted((text,) for text in TEXTS for _ in (1, 2))


def without_price(told):
    return [sentence for sentence in told if not sentence.startswith("Measuring took")]


def test_an_edited_prompt_file_does_not_mix_two_sets(folder):
    run = start(folder)
    old = hashlib.sha256((folder / "prompts.txt").read_bytes()).hexdigest()
    (folder / "prompts.txt").write_text("\n".join(EDITED) + "\n")
    new = hashlib.sha256((folder / "prompts.txt").read_bytes()).hexdigest()
    done, told = go(folder / "suite.toml", run, resume=True)
    assert drawn(done) == COMPLETE
    (note,) = without_price(told)
    assert f"{folder / 'prompts.txt'} has changed since the run began (SHA-256 was {old}, is {new})" in note
    assert "continues with the 4 prompts" in note
    assert "--out" in note


def test_an_unchanged_file_is_not_spoken_of(folder):
    done, told = go(folder / "suite.toml", start(folder), resume=True)
    assert drawn(done) == COMPLETE
    assert without_price(told) == []


def test_a_prompt_file_that_is_gone_or_unreadable_stops_nothing(folder):
    run = start(folder)
    (folder / "prompts.txt").unlink()
    done, told = go(folder / "suite.toml", run, resume=True)
    assert drawn(done) == COMPLETE
    assert "prompts.txt is missing: the run continues" in told[0]


def test_a_pinned_file_that_changed_stops_nothing_either(folder):
    pin = hashlib.sha256((folder / "prompts.txt").read_bytes()).hexdigest()
    suite = folder / "pinned.toml"
    suite.write_text(SUITE.format(source="prompts.txt").replace("[protocol]", f'sha256 = "{pin}"\n[protocol]'))
    run = start(folder, "pinned.toml")
    (folder / "prompts.txt").write_text("other\n")
    assert drawn(go(suite, run, resume=True)[0]) == COMPLETE


def test_a_run_that_moved_resumes_by_its_own_suite_file(folder, tmp_path):
    run = start(folder)
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    shutil.move(run, moved)
    shutil.rmtree(folder)
    done, told = go(moved / "suite.toml", moved, resume=True)
    assert drawn(done) == COMPLETE
    assert "is missing" in told[0]


def test_a_project_that_moved_resumes_by_the_projects_suite_file(folder, tmp_path):
    start(folder)
    moved = folder.rename(tmp_path / "moved")
    done, told = go(moved / "suite.toml", moved / "run", resume=True)
    assert drawn(done) == COMPLETE
    assert without_price(told) == []


def test_another_prompt_file_is_another_suite(folder):
    run = start(folder)
    (folder / "others.txt").write_text("\n".join(EDITED) + "\n")
    (folder / "suite.toml").write_text(SUITE.format(source="others.txt"))
    with pytest.raises(RunError, match=r"was started with another version of suite 's': prompts\.source was"):
        go(folder / "suite.toml", run, resume=True)


def test_a_changed_suite_is_refused_by_key_before_a_model_is_loaded(folder, monkeypatch):
    run = start(folder)
    suite = folder / "suite.toml"
    suite.write_text(suite.read_text().replace("seeds = [1]", "seeds = [1]\nblocks = 2"))
    monkeypatch.setattr(device, "generators_of", lambda suite, source: pytest.fail("a model was loaded"))
    with pytest.raises(RunError, match=r"suite 's': protocol\.blocks was 1 and is 2: resume with"):
        go(suite, run, resume=True)


def test_a_second_process_is_refused_and_the_first_goes_on(folder):
    run = start(folder)
    with being_written(run), pytest.raises(UsageError, match="is being written by process"):
        go(folder / "suite.toml", run, resume=True)
    done, _ = go(folder / "suite.toml", run, resume=True)
    assert drawn(done) == COMPLETE


def test_a_run_that_was_killed_can_be_scored(folder):
    run = start(folder)
    (run / "images.parquet").unlink()  # of a process that could not derive its tables any more
    (run / "power.parquet").unlink()
    told = Listening()
    scored = pipeline.score(load_run(run), [], told)
    assert len(scored.images) == len(scored.trials) > 0
    assert "is incomplete" in told.messages[0]


def test_a_start_that_was_cut_off_is_started_again_by_run_and_by_resume(folder):
    for resume in (False, True):
        run = folder / f"run{resume}"
        (run / "images").mkdir(parents=True)
        (run / ".starting").touch()
        (run / "suite.toml").write_text("half a su")
        done, _ = go(folder / "suite.toml", run, resume=resume)
        assert drawn(done) == COMPLETE


def test_another_shard_than_that_of_the_run_is_refused(folder):
    run = start(folder)
    with pytest.raises(UsageError, match=r"--shard 1/2: .* has the shard None"):
        prepare(str(folder / "suite.toml"), resume=run, shard="1/2")
    suite = str(folder / "suite.toml")
    assert prepare(suite, shard="2/2").prompts == prepare(suite).prompts[2:]


def test_a_built_in_set_is_taken_from_the_run_too(folder):
    (folder / "suite.toml").write_text(
        SUITE.format(source="builtin:tiny-held-out").replace("[protocol]", "limit = 4\n[protocol]")
    )
    run = start(folder)
    environment = json.loads((run / "environment.json").read_text())
    environment["prompts"]["sha256"] = "0" * 64  # as of an earlier version of the package
    (run / "environment.json").write_text(json.dumps(environment))
    done, told = go(folder / "suite.toml", run, resume=True)
    assert done.trials.height == 8
    assert "builtin:tiny-held-out has changed since the run began" in told[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], "has changed since the run began: its SHA-256 is"),
        (lambda lines: lines[::-1], "has changed since the run began: its SHA-256 is"),
        (lambda lines: [lines[0].replace("a ", "no "), *lines[1:]], "does not belong to its text"),
        (lambda lines: [lines[0].replace('"prompt_id": "', '"prompt_id": "../../'), *lines[1:]], "does not belong"),
        (lambda lines: [lines[0], "{", *lines[1:]], "line 2: damaged"),
        (lambda lines: ['{"unknown": 1}', *lines], "damaged: 1.prompt_id: field required"),
        (lambda lines: [], "no prompts"),
    ],
)
def test_stored_prompts_that_were_changed_are_refused_before_anything_is_drawn(folder, change, words):
    run = start(folder)
    file = run / "prompts.jsonl"
    trials = (run / "trials.jsonl").read_bytes()
    file.write_text("".join(f"{line}\n" for line in change(file.read_text().splitlines())))
    with pytest.raises(RunError, match=r"prompts\.jsonl") as caught:
        go(folder / "suite.toml", run, resume=True)
    assert words in str(caught.value)
    assert (run / "trials.jsonl").read_bytes() == trials


def test_a_run_of_an_earlier_version_resumes(folder):
    run = start(folder)
    environment = json.loads((run / "environment.json").read_text())
    for key in ("prompts", "prompts_jsonl_sha256"):
        del environment[key]
    (run / "environment.json").write_text(json.dumps(environment))
    assert drawn(go(folder / "suite.toml", run, resume=True)[0]) == COMPLETE


def test_a_distractor_file_that_changed_does_not_mix_with_kept_scores(tmp_path):
    """The same kind: a file that an option names is read again when a scoring goes on."""
    from perjoule.running.scoring import _digests

    file = tmp_path / "distractors.txt"
    file.write_text("a\n")
    before = _digests({"distractors": str(file), "definition": "b"})
    file.write_text("a longer one\n")
    assert set(before) == {"distractors"}
    assert _digests({"distractors": str(file), "definition": "b"}) != before
    # texts that cannot be the name of a file are not files
    assert _digests({"definition": "a long text " * 100, "home": "~nobody-of-this-name/x"}) == {}


def change_row(run: Path, change) -> None:
    journal = run / "trials.jsonl"
    first, *rest = [json.loads(line) for line in journal.read_text().splitlines()]
    change(first)
    journal.write_text("".join(json.dumps(row) + "\n" for row in (first, *rest)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trial_id", None),
        ("trial_id", [1]),
        ("energy_j", "12"),
        ("image_count", "x"),
        ("iterations", None),
        ("prompt_ids", "ab"),
        ("seeds", [1.5]),
        ("warnings", [1]),
        ("duration_s", [0.1]),
        ("cell_id", {}),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_a_row_that_somebody_changed_is_refused_in_words(folder, key, value, gone):
    run = start(folder)
    change_row(run, (lambda row: row.pop(key)) if gone else (lambda row: row.update({key: value})))
    with pytest.raises(RunError, match=rf"trials\.jsonl, line 1: .*{key}.*restore the file from a copy"):
        go(folder / "suite.toml", run, resume=True)


@pytest.mark.parametrize(("key", "value"), [("steps", None), ("image_sha256", [])])
def test_a_row_that_lacks_a_picture_is_refused_in_words(folder, key, value):
    run = start(folder)
    change_row(run, lambda row: row.update({key: value}))
    with pytest.raises(RunError, match=rf"trials\.jsonl.* {key}.*restore"):
        go(folder / "suite.toml", run, resume=True)


def test_pictures_are_not_written_into_a_folder_somewhere_else(folder, tmp_path):
    """They would not be read there, see `perjoule.runs.pictures`."""
    run = start(folder)
    elsewhere = tmp_path / "elsewhere"
    (run / "images").rename(elsewhere)
    (run / "images").symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    with pytest.raises(RunError, match="images is a symbolic link"):
        go(folder / "suite.toml", run, resume=True)
    assert sorted(elsewhere.iterdir()) == before


def test_trials_that_hold_other_images_than_the_plan_are_refused(folder):
    run = start(folder)
    journal = run / "trials.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    rows[0]["seeds"] = [2]
    before = "".join(json.dumps(row) + "\n" for row in rows)
    journal.write_text(before)
    with pytest.raises(RunError, match=f"trial {rows[0]['trial_id']} has other images"):
        go(folder / "suite.toml", run, resume=True)
    assert journal.read_text() == before


@pytest.mark.parametrize("retry_failed", [False, True])
def test_resuming_reads_the_stored_trials_once(folder, monkeypatch, retry_failed):
    run = start(folder)
    suite, environment = load_run(run).suite, load_run(run).environment
    plan = make_plan(suite, load_run(run).prompt_set)
    parse, parsed = stored._ROW.validate_json, []

    def noted(line):
        parsed.append(line)
        return parse(line)

    monkeypatch.setattr(stored, "_ROW", SimpleNamespace(validate_json=noted))
    RunWriter.resume(run, suite, plan, environment, retry_failed=retry_failed).close()
    assert len(parsed) == len(load_run(run).trials)
