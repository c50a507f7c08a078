"""Reads the journals of a run that is continued, and repairs what a crash left behind.

| a crash leaves | repair |
|---|---|
| an incomplete last line | it is cut off |
| traces, devices, work or tracebacks of a trial that is not in trials.jsonl | these rows are dropped |
| a row in superseded.jsonl that is still in trials.jsonl, or is there twice | it counts once |
| temporary files | they are deleted |
| a picture that is missing or incomplete | its trial is superseded and repeated |

Every repair may itself be interrupted at any moment: the next one starts from the same complete rows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from perjoule.errors import RunError
from perjoule.files import append_lines, mend, open_journal, replacing, write_json_lines
from perjoule.runs.derived import images_of
from perjoule.runs.directory import located, trial_table
from perjoule.suite.schedule import image_id
from perjoule.types import Assignment, Suite

FAILURES = "failures.jsonl"
SUPERSEDED = "superseded.jsonl"
# journals of what belongs to single trials, next to trials.jsonl
DETAILS = ("traces", "devices", "work")
_TRIAL_ID = re.compile(rb'\{"trial_id": "([^"\\]*)"')
_PNG_END = b"IEND\xaeB`\x82"
_MOST_DIFFERENCES = 8

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrialRow:
    """Keys of a row of `trials.jsonl` that resuming a run needs."""

    trial_id: StrictStr
    cell_id: StrictStr
    block: StrictInt
    prompt_ids: list[StrictStr]
    seeds: list[StrictInt]
    failure: StrictStr | None
    energy_j: StrictFloat | None
    uncertainty_j: StrictFloat | None
    duration_s: StrictFloat | None
    image_count: StrictInt
    iterations: StrictInt
    warnings: list[StrictStr]


_ROWS = TypeAdapter(list[_TrialRow])


def image_file(path: Path, name: str) -> Path:
    """Return the path of an image of the run in `path`, by its id."""
    return path / "images" / f"{name}.png"


def stored_trials(path: Path, plan: Sequence[Assignment]) -> tuple[list[Row], list[Row]]:
    """Read the trials of a run to continue, after repairing its journals.

    Returns:
        The rows of `trials.jsonl`, and those of earlier attempts that are not in it.

    Raises:
        RunError: If a row is damaged, or a trial has other images than the plan.
    """
    file = path / "trials.jsonl"
    rows = _checked(file)
    _require_same_images(path, plan, rows)
    trials = trial_table(rows, file)
    with located(file):
        images_of(trials)
    superseded = _once(_checked(path / SUPERSEDED), rows)
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


def set_aside(path: Path, rows: Sequence[Row], repeated: Sequence[Row]) -> list[Row]:
    """Move trials to be repeated to `superseded.jsonl`, and drop their details; return the remaining trials."""
    ids = {row["trial_id"] for row in repeated}
    remaining = [row for row in rows if row["trial_id"] not in ids]
    with located(path / "trials.jsonl"), open_journal(path / SUPERSEDED) as journal:
        append_lines(journal, repeated)
    write_json_lines(path / "trials.jsonl", remaining)
    drop_orphans(path, {row["trial_id"] for row in remaining})
    return remaining


def without_pictures(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the finished trials of block 0 of which a picture is missing or incomplete."""
    return [
        row
        for row in rows
        if row["block"] == 0 and row["failure"] is None
        if not all(
            _is_whole_png(image_file(path, image_id(row["cell_id"], prompt, seed)))
            for prompt, seed in zip(row["prompt_ids"], row["seeds"], strict=True)
        )
    ]


def suite_differences(old: Suite, new: Suite) -> list[str]:
    """Return the keys in which two suites differ, with both values, e.g. `protocol.blocks was 1 and is 2`.

    Title, description and time limit may differ, because they change no number.
    """
    values = []
    for suite in (old, new):
        record = asdict(suite)
        variants = {variant["name"]: variant for variant in record.pop("variants")}
        del record["title"], record["description"], record["protocol"]["timeout_s"]
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


def _checked(file: Path) -> list[Row]:
    """Return the rows of a journal of trials; raises RunError if one lacks a key that resuming needs."""
    with located(file):
        rows = mend(file)
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        detail = error.errors()[0]
        number, *keys = detail["loc"]
        place = f"{file}: trial {int(number) + 1}: {'.'.join(map(str, keys))}"
        raise RunError(f"{place}: {detail['msg'].lower()}: restore the file from a copy, or delete that line") from None
    return rows


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
    """Drop an incomplete last line, and rows whose trial is not kept; reads line by line, as such files are large."""
    if not file.exists():
        return
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as journal:
        if all(_kept_line(line, number, file, is_kept) == line for number, line in enumerate(journal, 1)):
            return
        journal.seek(0)
        with replacing(file) as copy:
            copy.writelines(_kept_line(line, number, file, is_kept) for number, line in enumerate(journal, 1))


def _kept_line(line: bytes, number: int, file: Path, is_kept: Callable[[str], bool]) -> bytes:
    """Return the line if it is kept, with a newline at its end, else nothing."""
    whole = line.endswith(b"\n")
    usual = _TRIAL_ID.match(line) if whole and line.endswith(b"}\n") else None
    if usual:
        return line if is_kept(usual[1].decode("utf-8", "replace")) else b""
    if not line.strip():
        return b""
    try:
        trial_id = json.loads(line)["trial_id"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        if not whole:
            return b""
        raise RunError(
            f"{file}, line {number}: damaged: {type(error).__name__}: {error}; restore the file from a copy, or "
            "delete that line"
        ) from error
    if not is_kept(trial_id):
        return b""
    return line if whole else line + b"\n"


def _is_whole_png(file: Path) -> bool:
    """Return whether a file ends as a PNG does; pixels are compared with their digest when they are scored."""
    try:
        with file.open("rb") as opened:
            opened.seek(-len(_PNG_END), os.SEEK_END)
            return opened.read() == _PNG_END
    except OSError:
        return False
