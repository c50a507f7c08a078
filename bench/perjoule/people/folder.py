"""The folder of a study: reading it, checking its pictures, merging answers."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from perjoule.errors import EvidenceError, RunError, UsageError
from perjoule.files import decode_text, read_json_lines, write_json_lines
from perjoule.opening import content_of, open_inside
from perjoule.people.choices import Choices, choices_of, one_provenance
from perjoule.people.records import (
    ANSWERS_FILE,
    DATABASE_FILE,
    STUDY_FILE,
    Answer,
    Study,
    StudyIndex,
    as_object,
    parsed_answer,
    parsed_answers,
    parsed_study,
)
from perjoule.people.store import foreign_part

# more than a study of a thousand observers needs; a larger file is not one of answers
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What `study add` prints.

    Attributes:
        added: New answers.
        known: Answers that were there already.
        answers: Number of answers in the study.
        observers: Number of observers in the study.
        provenance: Who answered.
    """

    added: int
    known: int
    answers: int
    observers: int
    provenance: str


def is_study(path: Path) -> bool:
    """Return whether a folder contains a study."""
    return (path / STUDY_FILE).is_file()


def read_study(folder: Path) -> Study:
    """Return the study of a folder whose pictures are those of `perjoule study new`.

    Raises:
        UsageError: If the folder has no study, or it was changed after `study new`.
        EvidenceError: If a picture is missing or was changed.
    """
    file = folder / STUDY_FILE
    if not file.is_file():
        raise UsageError(f"{folder}: no {STUDY_FILE}: give a folder that `perjoule study new` wrote")
    study = parsed_study(_bytes(file), str(file))
    _check_pictures(study, folder)
    return study


def read_answers(folder: Path, study: Study) -> list[Answer]:
    """Return all answers in the folder: merged ones, and those that `study serve` collected.

    Raises:
        UsageError: If a file is damaged, or an answer does not fit the study.
    """
    return list(_by_key(_stored(folder, StudyIndex(study))).values())


def read_choices(folder: Path) -> tuple[Study, Choices]:
    """Return a study with the choices of its observers.

    Raises:
        UsageError: If the study or its answers are damaged.
        EvidenceError: If a picture was changed, or there is no answer.
    """
    study = read_study(folder)
    return study, choices_of(StudyIndex(study), read_answers(folder, study), str(folder))


def add_answers(folder: Path, files: Sequence[Path]) -> Merged:
    """Merge answers into `answers.jsonl`; all files are checked before anything is written.

    Files are exported by the page (JSON), `answers.jsonl` of a copy of the study, or `answers.sqlite` of its server.
    Merging a file again changes nothing.

    Raises:
        UsageError: If a file is damaged, belongs to another study, or contradicts a known answer.
        EvidenceError: If a picture was changed, or provenances would be mixed.
    """
    study = read_study(folder)
    index = StudyIndex(study)
    merged = _by_key(_stored(folder, index))
    before = len(merged)
    new = [item for file in files for item in _from_file(file, index)]
    merged = _by_key([*((str(folder / ANSWERS_FILE), answer) for answer in merged.values()), *new])
    provenance = one_provenance((answer.provenance for answer in merged.values()), str(folder))
    answers = sorted(merged.values(), key=lambda one: (one.observer, one.shown_at_ms, one.trial_id))
    write_json_lines(folder / ANSWERS_FILE, map(as_object, answers))
    return Merged(
        added=len(merged) - before,
        known=len(new) - (len(merged) - before),
        answers=len(merged),
        observers=len({answer.observer for answer in answers}),
        provenance=provenance,
    )


def forget_observer(folder: Path, observer: str) -> None:
    """Remove an observer from the merged answers."""
    file = folder / ANSWERS_FILE
    rows = read_json_lines(file)
    kept = [row for row in rows if row["observer"] != observer]
    if len(kept) < len(rows):
        write_json_lines(file, kept)


def _check_pictures(study: Study, folder: Path) -> None:
    """Raise EvidenceError if a picture is missing, or is not the one that the study was designed with."""
    for picture in study.pictures:
        try:
            with open_inside(folder, picture.file) as file:
                digest = hashlib.sha256(file.read()).hexdigest()
        except (OSError, RunError) as error:
            raise EvidenceError(f"{folder / picture.file}: cannot be read: {error}: restore the picture") from None
        if digest != picture.sha256:
            raise EvidenceError(
                f"{folder / picture.file}: not the picture of the study: its SHA-256 is {digest[:12]}…, but "
                f"{STUDY_FILE} has {picture.sha256[:12]}…: restore it; answers about another picture are not valid"
            )


def _stored(folder: Path, index: StudyIndex) -> list[tuple[str, Answer]]:
    files = [folder / name for name in (ANSWERS_FILE, DATABASE_FILE) if (folder / name).exists()]
    return [item for file in files for item in _from_file(file, index)]


def _from_file(file: Path, index: StudyIndex) -> list[tuple[str, Answer]]:
    """Return the answers in a file, each with its place for messages, checked against the study."""
    if file.suffix == ".sqlite":
        answers = _from_database(file)
    elif file.suffix == ".jsonl":
        lines = decode_text(_bytes(file), f"{file}:", UsageError).split("\n")
        places = [(f"{file}: line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
        answers = [(place, parsed_answer(line, place)) for place, line in places]
    else:
        text = decode_text(_bytes(file), f"{file}:", UsageError)
        answers = [(f"{file}: answers.{i}", answer) for i, answer in enumerate(parsed_answers(text, str(file)))]
    for place, answer in answers:
        try:
            index.check(answer)
        except UsageError as error:
            raise UsageError(f"{place}: {error}") from None
    return answers


def _from_database(file: Path) -> list[tuple[str, Answer]]:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            if foreign := foreign_part(database):
                raise sqlite3.DatabaseError(f"it contains a {foreign} that the server did not make")
            rows = database.execute("SELECT answer FROM answers ORDER BY observer, trial_id").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as answers of `perjoule study serve`: {error}") from None
    places = [(f"{file}: row {number}", row[0]) for number, row in enumerate(rows, 1)]
    for place, text in places:
        if not isinstance(text, str):
            raise UsageError(f"{place}: answer = {str(text)[:40]!r}: must be the JSON text of an answer")
    return [(place, parsed_answer(text, place)) for place, text in places]


def _by_key(answers: Iterable[tuple[str, Answer]]) -> dict[tuple[str, str], Answer]:
    """Answers by observer and trial; raises UsageError if an observer gave two different answers to one trial."""
    merged: dict[tuple[str, str], Answer] = {}
    for place, answer in answers:
        key = answer.observer, answer.trial_id
        if merged.setdefault(key, answer) != answer:
            raise UsageError(
                f"{place}: observer = {answer.observer!r}, trial_id = {answer.trial_id!r}: differs from the answer "
                "that is there already: an observer answers a trial once; remove one of the two"
            )
    return merged


def _bytes(file: Path) -> bytes:
    try:
        return content_of(file, _MOST_BYTES, follow=True, error=UsageError)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
