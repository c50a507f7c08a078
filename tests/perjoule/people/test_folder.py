"""Answers are merged once, and only those that belong to the study."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import EvidenceError, PerjouleError, UsageError
from perjoule.people.creating import StudyRequest, new_study
from perjoule.people.folder import add_answers, read_answers, read_choices, read_study
from perjoule.people.records import Answer, Study, as_object
from perjoule.people.store import AnswerStore
from perjoule.runs.directory import Run
from tests.support.observers import answer_file, answers

ARMS = [f"tiny-{who}-{steps:03d}" for who in ("teacher", "student") for steps in (1, 4, 12)]
JOD = {arm: 0.5 * place for place, arm in enumerate(ARMS)}


@pytest.fixture
def files(study: tuple[Study, Path]) -> list[Path]:
    """Two exported files, of different observers."""
    given = answers(study[0], JOD)
    half = len(given) // 2
    paths = [study[1].parent / name for name in ("one.json", "two.json")]
    for path, part in zip(paths, (given[:half], given[half:]), strict=True):
        path.write_text(answer_file(study[0], part), encoding="utf-8")
    return paths


def test_merging_again_changes_nothing(study: tuple[Study, Path], files: list[Path]) -> None:
    made, folder = study
    first = add_answers(folder, files[:1])
    assert (first.added, first.known) == (first.answers, 0)
    both = add_answers(folder, files)
    assert both.known == first.added
    assert both.answers == sum(map(len, made.sessions))
    assert (both.observers, both.provenance) == (8, "simulated")
    before = (folder / "answers.jsonl").read_bytes()
    again = add_answers(folder, [*reversed(files), folder / "answers.jsonl"])
    assert again.added == 0
    assert (folder / "answers.jsonl").read_bytes() == before
    assert len(read_answers(folder, made)) == both.answers


def test_only_main_trials_are_scaled(study: tuple[Study, Path], files: list[Path]) -> None:
    made, folder = study
    add_answers(folder, files)
    _, choices = read_choices(folder)
    assert len(choices) == made.planned.answers
    assert all(c.checks == 4 and c.failed_checks == 0 and c.repeats == 4 for c in choices.conduct.values())
    assert {c.median_ms for c in choices.conduct.values()} == {1500.0}


def test_answers_of_the_server_are_read_too(study: tuple[Study, Path]) -> None:
    made, folder = study
    given = answers(made, JOD)
    AnswerStore(folder / "answers.sqlite", made.study_id).close()
    with closing(sqlite3.connect(folder / "answers.sqlite")) as database, database:
        database.executemany(
            "INSERT INTO answers VALUES (?, ?, ?)", [(a.observer, a.trial_id, json.dumps(as_object(a))) for a in given]
        )
    assert {(a.observer, a.trial_id) for a in read_answers(folder, made)} == {(a.observer, a.trial_id) for a in given}
    copy = folder.parent / "copy.sqlite"
    copy.write_bytes((folder / "answers.sqlite").read_bytes())
    assert add_answers(folder, [copy]).added == 0


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        content = json.loads(text)
        change(content["answers"][0])
        return json.dumps(content)

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: "", "not JSON"),
        (lambda text: "[" * 100_000, "not JSON"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema = 2"),
        (lambda text: text.replace('"left"', '"\\ud800"', 1), "half a character"),
        (edited(lambda a: a.update(study_id="0" * 64)), "an answer to another study"),
        (edited(lambda a: a.update(trial_id="main-p0-p1<script>")), "has no such trial"),
        (edited(lambda a: a.update(trial_id="main-p0-p0")), "has no such trial"),
        (edited(lambda a: a.update(left="evil")), "left = 'evil'"),
        (edited(lambda a: a.update(choice="both")), "choice = 'both'"),
        (edited(lambda a: a.update(choice="equal")), "does not allow ties"),
        (edited(lambda a: a.update(response_ms=-1)), "response_ms = -1"),
        (edited(lambda a: a.update(response_ms="fast")), "response_ms = 'fast'"),
        (edited(lambda a: a.update(observer="")), "observer = ''"),
        (edited(lambda a: a.update(observer="x" * 1_000)), "observer = "),
        (edited(lambda a: a.update(more=1)), "more = 1"),
        (edited(lambda a: a.pop("provenance")), "provenance"),
        (edited(lambda a: a.update(provenance="measured")), "provenance = 'measured'"),
    ],
)
def test_a_damaged_file_is_one_error_and_nothing_is_written(
    study: tuple[Study, Path], files: list[Path], edit: Callable[[str], str], words: str
) -> None:
    folder = study[1]
    add_answers(folder, files[1:])
    before = (folder / "answers.jsonl").read_bytes()
    files[0].write_text(edit(files[0].read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        add_answers(folder, [files[1], files[0]])
    assert words in str(error.value)
    assert str(files[0]) in str(error.value)
    assert len(str(error.value)) < 600
    assert (folder / "answers.jsonl").read_bytes() == before


def test_a_second_answer_to_the_same_trial_is_refused(study: tuple[Study, Path], files: list[Path]) -> None:
    folder = study[1]
    add_answers(folder, files)
    changed = edited(lambda a: a.update(choice="left" if a["choice"] == "right" else "right"))
    files[0].write_text(changed(files[0].read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UsageError, match="answers a trial once"):
        add_answers(folder, files[:1])


@pytest.mark.parametrize("other", ["people", "model"])
def test_unlike_provenances_are_never_pooled(study: tuple[Study, Path], files: list[Path], other: Any) -> None:
    made, folder = study
    add_answers(folder, files[:1])
    given = [replace(answer, provenance=other) for answer in answers(made, JOD, seed=1)[-40:]]
    files[1].write_text(answer_file(made, given), encoding="utf-8")
    with pytest.raises(EvidenceError, match="never pooled"):
        add_answers(folder, files[1:])
    assert {answer.provenance for answer in read_answers(folder, made)} == {"simulated"}


def test_answers_to_another_study_are_refused(study: tuple[Study, Path], files: list[Path], run: Run) -> None:
    other = study[1].parent / "other"
    new_study(run, StudyRequest(pairs=40, observers=8, seed=9), other)
    with pytest.raises(UsageError, match="another study"):
        add_answers(other, files)
    assert not (other / "answers.jsonl").exists()


def test_a_changed_picture_is_refused(study: tuple[Study, Path], files: list[Path]) -> None:
    made, folder = study
    (folder / made.pictures[0].file).write_bytes((folder / made.pictures[1].file).read_bytes())
    for use in (lambda: add_answers(folder, files), lambda: read_choices(folder)):
        with pytest.raises(EvidenceError, match="not the picture of the study"):
            use()
    assert not (folder / "answers.jsonl").exists()


def test_a_missing_picture_is_refused(study: tuple[Study, Path]) -> None:
    (study[1] / study[0].pictures[0].file).unlink()
    with pytest.raises(EvidenceError, match="restore the picture"):
        read_study(study[1])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"ties": false', '"ties": true', "changed after"),
        ('"most_failed_checks": 0.34', '"most_failed_checks": 0.9', "changed after"),
        ('"schema": 1', '"schema": 3', "schema = 3"),
        ('"schema": 1', '"schema": 1, "more": 2', "more = 2"),
    ],
)
def test_a_study_that_was_changed_is_refused(study: tuple[Study, Path], old: str, new: str, words: str) -> None:
    file = study[1] / "study.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        read_study(study[1])


def test_a_folder_without_study_and_without_answers(study: tuple[Study, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no study\.json"):
        read_study(tmp_path)
    with pytest.raises(PerjouleError, match="no answers yet"):
        read_choices(study[1])


def test_a_picture_outside_the_folder_is_refused(study: tuple[Study, Path], tmp_path: Path) -> None:
    made, folder = study
    outside = tmp_path / "outside.png"
    file = folder / made.pictures[0].file
    outside.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(outside)
    with pytest.raises(EvidenceError, match="symbolic link"):
        read_study(folder)


def test_an_answer_keeps_its_value_in_json(study: tuple[Study, Path]) -> None:
    answer: Answer = answers(study[0], JOD)[0]
    assert as_object(answer)["provenance"] == "simulated"
