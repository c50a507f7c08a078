"""Reads the journals of a run that is continued, and repairs what a crash left behind.

| a crash leaves | repair |
|---|---|
| an incomplete last line | it is cut off |
| traces, devices, work or tracebacks of a trial that is not in trials.jsonl | these rows are dropped |
| a row in superseded.jsonl that is still in trials.jsonl, or is there twice | it counts once |
| temporary files | they are deleted |
| a picture that is missing or empty | its trial is superseded and repeated |

Every repair may itself be interrupted at any moment: the next one starts from the same complete rows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from perjoule.errors import RunError
from perjoule.files import append_lines, open_journal, replacing
from perjoule.memory import collecting_later
from perjoule.suite.schedule import image_id
from perjoule.types import Assignment, Suite

FAILURES = "failures.jsonl"
SUPERSEDED = "superseded.jsonl"
# journals of what belongs to single trials, next to trials.jsonl
DETAILS = ("traces", "devices", "work")
_TRIAL_ID = re.compile(rb'\{"trial_id": "([^"\\]*)"')
_SMALLEST_PNG_BYTES = 67  # of one pixel
_MOST_DIFFERENCES = 8

Row = dict[str, Any]


_Number = Annotated[StrictFloat, AllowInfNan(False)]


@dataclass(frozen=True, kw_only=True)
class _TrialRow:
    """Keys of a row of `trials.jsonl` that resuming a run needs; others are not kept, as a run may have 10⁶ trials."""

    trial_id: StrictStr
    cell_id: StrictStr
    block: StrictInt
    prompt_ids: list[StrictStr]
    seeds: list[StrictInt]
    steps: list[StrictInt]
    image_sha256: list[StrictStr]
    failure: StrictStr | None
    energy_j: _Number | None
    uncertainty_j: _Number | None
    duration_s: _Number | None
    image_count: StrictInt
    iterations: StrictInt
    warnings: list[StrictStr]


_ROW = TypeAdapter(_TrialRow)


def image_file(path: Path, name: str) -> Path:
    """Return the path of an image of the run in `path`, by its id."""
    return path / "images" / f"{name}.png"


@collecting_later()
def stored_trials(path: Path, plan: Sequence[Assignment]) -> tuple[list[Row], list[Row]]:
    """Read the trials of a run to continue, after repairing its journals.

    Returns:
        The rows of `trials.jsonl`, and those of earlier attempts that are not in it.

    Raises:
        RunError: If a row is damaged, or a trial has other images than the plan.
    """
    rows = _rows(path / "trials.jsonl")
    _require_consistent(path, rows)
    _require_same_images(path, plan, rows)
    superseded = _once(_rows(path / SUPERSEDED), rows)
    failed = {row["trial_id"] for row in (*rows, *superseded) if row["failure"] is not None}
    drop_orphans(path, {row["trial_id"] for row in rows})
    _keep_rows(path / FAILURES, failed.__contains__)
    remove_temporary(path)
    return rows, superseded


def remove_temporary(path: Path) -> None:
    """Delete temporary files that a crash left in a run directory."""
    for folder in (path, path / "images"):
        for file in folder.glob(".perjoule-*.tmp"):
            file.unlink(missing_ok=True)


def drop_orphans(path: Path, trial_ids: Collection[str]) -> None:
    """Drop details of trials that are not stored."""
    for name in DETAILS:
        _keep_rows(path / f"{name}.jsonl", trial_ids.__contains__)


def set_aside(path: Path, trial_ids: Collection[str]) -> None:
    """Move trials to be repeated to `superseded.jsonl`, and drop their details."""
    file = path / "trials.jsonl"
    with file.open("rb") as journal:
        lines = [line for number, line in enumerate(journal, 1) if _trial_id(line, number, file) in trial_ids]
    with open_journal(path / SUPERSEDED) as superseded:
        append_lines(superseded, map(json.loads, lines))
    _keep_rows(file, lambda trial_id: trial_id not in trial_ids)
    for name in DETAILS:
        _keep_rows(path / f"{name}.jsonl", lambda trial_id: trial_id not in trial_ids)


def without_pictures(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the finished trials of block 0 of which a picture is missing or too short to be one.

    Other damage is found when the picture is scored, by the digest of its pixels.
    """
    with os.scandir(path / "images") as entries:
        sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
    return [
        row
        for row in rows
        if row["block"] == 0 and row["failure"] is None
        if any(
            sizes.get(f"{image_id(row['cell_id'], prompt, seed)}.png", 0) < _SMALLEST_PNG_BYTES
            for prompt, seed in zip(row["prompt_ids"], row["seeds"], strict=True)
        )
    ]


def suite_differences(old: Suite, new: Suite) -> list[str]:
    """Return the keys in which two suites differ, with both values, e.g. `protocol.blocks was 1 and is 2`.

    Title, description, labels, margins, time limit and the reaction to a full memory may differ, because they change
    no number of a planned cell.
    """
    values = []
    for suite in (old, new):
        unlabelled = tuple(replace(variant, label="") for variant in suite.variants)
        record = asdict(replace(suite, variants=unlabelled, metrics=replace(suite.metrics, labels={}, margins={})))
        variants = {variant["name"]: variant for variant in record.pop("variants")}
        del record["title"], record["description"], record["protocol"]["timeout_s"]
        del record["protocol"]["on_out_of_memory"]
        # their order decides that of the trials
        values.append(dict(_flat(record | {"variants": variants | {"order": [*variants]}}, "")))
    before, now = values
    return [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    ]


def require_same_suite(path: Path, old: Suite, new: Suite) -> None:
    """Raise RunError if the run in `path` was started with another suite; names the keys with both values."""
    differences = suite_differences(old, new)
    if differences:
        more = len(differences) - _MOST_DIFFERENCES
        listed = "; ".join(differences[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise RunError(
            f"{path} was started with another version of suite {new.name!r}: {listed}: "
            f"resume with `perjoule run {path / 'suite.toml'} --out {path} --resume`, or choose another --out"
        )


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _rows(file: Path) -> list[Row]:
    """Read a journal of trials, after cutting off an incomplete last line.

    Raises:
        RunError: If a line is damaged, or lacks a key that resuming needs (names file, line and key).
    """
    if not file.exists():
        return []
    _keep_rows(file, lambda trial_id: True)
    rows: list[Row] = []
    with file.open("rb") as journal:
        for number, line in enumerate(journal, 1):
            try:
                rows.append(vars(_ROW.validate_json(line)))
            except ValidationError as error:
                detail = error.errors()[0]
                key = ".".join(map(str, detail["loc"])) or "damaged"
                raise RunError(
                    f"{file}, line {number}: {key}: {detail['msg'].lower()}: restore the file from a copy, or delete "
                    "that line"
                ) from None
    return rows


def _require_consistent(path: Path, rows: Sequence[Row]) -> None:
    """Raise RunError if a trial occurs twice, or its numbers of images differ."""
    seen: set[str] = set()
    for row in rows:
        trial_id, images = row["trial_id"], len(row["prompt_ids"])
        if trial_id in seen:
            raise RunError(f"{path}: trial {trial_id} occurs twice: keep one of its rows")
        seen.add(trial_id)
        counted = ("seeds",) if row["block"] or row["failure"] is not None else ("seeds", "steps", "image_sha256")
        for name in counted:
            if len(row[name]) != images:
                raise RunError(
                    f"{path / 'trials.jsonl'}: trial {trial_id}: its {name} and prompt_ids differ in number: restore "
                    "its row"
                )


def _once(superseded: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return superseded rows, each once, without those that are still stored because a crash came in between."""
    current = {row["trial_id"]: row for row in rows}
    unique = {json.dumps(row, sort_keys=True): row for row in superseded}
    return [row for row in unique.values() if current.get(row["trial_id"]) != row]


def _require_same_images(path: Path, plan: Sequence[Assignment], rows: Sequence[Row]) -> None:
    """Raise RunError if a stored trial has other images than the plan.

    Another version of perjoule may plan in another way: the same trial id would then mean other images, so that some
    images would be made twice and others never.
    """
    planned = {trial.trial_id: trial for trial in plan}
    for row in rows:
        trial = planned.get(row["trial_id"])
        if trial is None:
            continue
        if row["prompt_ids"] != [prompt.prompt_id for prompt in trial.prompts] or row["seeds"] != list(trial.seeds):
            raise RunError(
                f"{path}: trial {trial.trial_id} has other images than this version of perjoule plans for it: "
                "resume with the version that started the run (see environment.json), or choose another --out"
            )


def _keep_rows(file: Path, is_kept: Callable[[str], bool]) -> None:
    """Drop an incomplete last line, and rows whose trial is not kept; reads line by line, as such files are large.

    Rows at the end, as a crash leaves them, are cut off in place. Otherwise the file is replaced by a copy.
    """
    if not file.exists():
        return
    handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "r+b") as journal:

        def kept_lines() -> Iterator[tuple[int, bytes]]:
            """Yield the kept lines with the place of their end in the file."""
            place = 0
            for number, line in enumerate(journal, 1):
                place += len(line)
                trial_id = _trial_id(line, number, file)
                if trial_id is not None and is_kept(trial_id):
                    yield place, line

        length = end = 0  # of all kept lines together, and the end of the last one
        last = b"\n"
        for place, line in kept_lines():
            length, end, last = length + len(line), place, line
        if length != end:
            journal.seek(0)
            with replacing(file) as copy:
                copy.writelines(line if line.endswith(b"\n") else line + b"\n" for _, line in kept_lines())
        elif journal.seek(0, os.SEEK_END) != end or not last.endswith(b"\n"):
            journal.truncate(end)
            journal.seek(end)
            journal.write(b"" if last.endswith(b"\n") else b"\n")
            journal.flush()
            os.fsync(handle)


def _trial_id(line: bytes, number: int, file: Path) -> str | None:
    """Return the trial of a row; None for an empty or incomplete line. Raises RunError if it is damaged."""
    usual = _TRIAL_ID.match(line) if line.endswith(b"}\n") else None
    if usual:
        return usual[1].decode("utf-8", "replace")
    if not line.strip():
        return None
    try:
        return str(json.loads(line)["trial_id"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        if not line.endswith(b"\n"):
            return None
        raise RunError(
            f"{file}, line {number}: damaged: {type(error).__name__}: {error}; restore the file from a copy, or "
            "delete that line"
        ) from error
