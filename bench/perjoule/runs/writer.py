"""Writes a run: append-only files, a trial on disk before the next one starts, and derived tables at the end."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from perjoule.errors import RunError, UsageError
from perjoule.files import append_line, mend, open_journal, read_json_lines, write_json, write_json_lines
from perjoule.meters.conditions import totals
from perjoule.runs.columns import SCHEMA, images_drawn
from perjoule.runs.derived import derive_tables
from perjoule.runs.directory import STARTING, is_starting, load_run, located
from perjoule.runs.migrations import require_current
from perjoule.runs.resume_hint import refusal
from perjoule.runs.stored import (
    DETAILS,
    FAILURES,
    SUPERSEDED,
    Row,
    image_file,
    require_same_suite,
    set_aside,
    stored_trials,
    without_pictures,
)
from perjoule.suite.reading import write_suite
from perjoule.types import Assignment, EnergyReading, Prompt, Suite, Trial

SESSIONS = "sessions.jsonl"
# parts of a trial that are not columns of its row
_APART = ("reading", "traceback", "remarks", "attempts")
# what may differ between the sessions of one run, and is recorded for each
_SESSION_KEYS = ("created_utc", "perjoule", "command", "python", "packages", "commit")


class RunWriter:
    """Appends to a run directory; a trial is on disk before the next one starts.

    Attributes:
        done: Ids of the trials that are on disk.
        spent: Rows of earlier sessions, including superseded attempts.
    """

    def __init__(
        self,
        path: Path,
        earlier: Sequence[Row] = (),
        superseded: Sequence[Row] = (),
        notes: Sequence[str] = (),
    ) -> None:
        """Open the append-only files.

        Args:
            path: The run directory.
            earlier: Stored rows of earlier sessions.
            superseded: Rows of repeated attempts, whose energy counts as spent.
            notes: Messages for the user about a run that continues.
        """
        self.path = path
        self.done = {row["trial_id"] for row in earlier}
        self.spent = [*superseded, *earlier]
        self.notes = notes
        self._trials: IO[bytes] = open_journal(path / "trials.jsonl")
        self._details = {name: open_journal(path / f"{name}.jsonl") for name in DETAILS}

    @classmethod
    def create(cls, path: Path, suite: Suite, prompts: Sequence[Prompt], environment: dict[str, Any]) -> RunWriter:
        """Start a new run, also in a directory where only a start was cut off.

        Raises:
            UsageError: If the directory contains anything else.
        """
        require_startable(path)
        for file in _left_by_start(path):
            if file.name != STARTING:
                file.unlink()
        path.mkdir(parents=True, exist_ok=True)
        # while this file exists without environment.json, the directory is a start that was cut off
        (path / STARTING).touch()
        write_suite(suite, path / "suite.toml")
        (path / "images").mkdir(exist_ok=True)
        write_json_lines(path / "prompts.jsonl", [asdict(prompt) for prompt in prompts])
        digest = hashlib.sha256((path / "prompts.jsonl").read_bytes()).hexdigest()
        # written last, because its presence marks the directory as a run
        write_json(path / "environment.json", {"schema": SCHEMA, **environment, "prompts_jsonl_sha256": digest})
        (path / STARTING).unlink()
        return cls(path)

    @classmethod
    def resume(
        cls,
        path: Path,
        suite: Suite,
        plan: Sequence[Assignment],
        environment: dict[str, Any],
        *,
        retry_failed: bool = False,
    ) -> RunWriter:
        """Continue an interrupted run, after repairing what a crash left behind (see `perjoule.runs.stored`).

        Failed trials stay failed, unless `retry_failed`: then they, and trials without joules, are moved to
        `superseded.jsonl` and repeated. Trials whose pictures are lost are always repeated.

        Raises:
            RunError: If there is no run, it is damaged, or it has another suite, plan or system (names both values).
        """
        run = load_run(path)
        require_current(run.schema, path)
        require_same_suite(path, run.suite, suite)
        if differences := differing_keys(run.environment, environment):
            raise RunError(refusal(path, run.environment, differences))
        if (path / "images").is_symlink():
            raise RunError(
                f"{path / 'images'} is a symbolic link, and images are not read through links: "
                "replace it by the folder itself"
            )
        # find damage before any energy is spent
        rows, superseded = stored_trials(path, plan)
        (path / STARTING).unlink(missing_ok=True)
        notes = _changes(run.environment, environment)
        lost = without_pictures(path, rows)
        if lost:
            notes.append(f"{len(lost)} trials are repeated, because pictures are lost, e.g. of {lost[0]['trial_id']}")
        repeated = {row["trial_id"]: row for row in lost}
        if retry_failed:
            repeated |= {row["trial_id"]: row for row in rows if row["failure"] is not None or row["energy_j"] is None}
        if repeated:
            set_aside(path, repeated)
            rows = [row for row in rows if row["trial_id"] not in repeated]
            superseded = [*superseded, *repeated.values()]
        mend(path / SESSIONS, skip_damaged=True)
        with open_journal(path / SESSIONS) as file:
            append_line(file, {key: environment.get(key) for key in _SESSION_KEYS})
        return cls(path, rows, superseded, notes)

    def append(self, trial: Trial) -> Row:
        """Write one trial, wait until it is on disk, and return its row."""
        row = trial_row(trial)
        for attempt in trial.attempts:
            self.supersede(attempt)
        if (reading := trial.reading) is not None:
            details: dict[str, Sequence[Any]] = {
                "traces": (reading.trace,),
                "devices": reading.devices,
                "work": (reading.work,),
            }
            for name, records in details.items():
                for record in filter(None, records):
                    append_line(self._details[name], {"trial_id": trial.trial_id, **asdict(record)})
        self._explain(trial)
        append_line(self._trials, row)
        self.done.add(trial.trial_id)
        return row

    def supersede(self, trial: Trial) -> None:
        """Record an attempt at a trial that is done again."""
        with open_journal(self.path / SUPERSEDED) as file:
            append_line(file, trial_row(trial))
        self._explain(trial)

    def _explain(self, trial: Trial) -> None:
        if trial.traceback:
            with open_journal(self.path / FAILURES) as file:
                append_line(file, {"trial_id": trial.trial_id, "failure": trial.failure, "traceback": trial.traceback})

    def image_file(self, image_id: str) -> Path:
        """Return the path of an image."""
        return image_file(self.path, image_id)

    def close(self) -> None:
        """Close the files."""
        self._trials.close()
        for journal in self._details.values():
            journal.close()

    def sort(self, order: Sequence[str]) -> None:
        """Sort the closed files by this order of trials; trials that are not in it come last."""
        place = {trial_id: number for number, trial_id in enumerate(order)}
        for name in ("trials", *DETAILS):
            with located(file := self.path / f"{name}.jsonl"):
                rows = sorted(read_json_lines(file), key=lambda row: place.get(row["trial_id"], len(place)))
                write_json_lines(file, rows)

    def finish(self) -> None:
        """Close the append-only files and derive the tables from them."""
        self.close()
        derive_tables(load_run(self.path))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between two sessions of a run and may change an image, e.g. the version of a package."""
    old, new = ({"perjoule": record.get("perjoule"), **(record.get("packages") or {})} for record in (before, now))
    changed = [
        f"{name} was {old.get(name)} and is {new.get(name)}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    return [f"since the run began, {', '.join(changed)}; recorded in {SESSIONS}"] if changed else []


def require_vacant(
    path: Path, remedy: str = "continue it with --resume, or choose another directory with --out"
) -> None:
    """Raise UsageError, with the remedy, if a new run cannot be made in `path` because it is not empty."""
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to {path.readlink()}, which does not exist: make that folder, or remove it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists already: {remedy}")


def require_startable(path: Path) -> None:
    """Raise UsageError if a new run cannot start in `path`: it has other content than a start that was cut off.

    A directory that others made may contain anything: a link at `images` would lead the pictures elsewhere, and the
    rows of a planted journal would become rows of the run.
    """
    if not is_starting(path):
        require_vacant(path)
        return
    known = _left_by_start(path)
    for entry in sorted(path.iterdir()):
        empty = entry.name == "images" and stat.S_ISDIR(entry.lstat().st_mode) and not any(entry.iterdir())
        if entry not in known and not empty:
            raise UsageError(
                f"{path} is the start of a run that was cut off, but {entry.name} in it is not from "
                "that start: remove it, or choose another directory with --out"
            )


def _left_by_start(path: Path) -> list[Path]:
    """Return the files that a start writes before its last one, `environment.json`, and its temporary files."""
    files = [*(path / name for name in (STARTING, "suite.toml", "prompts.jsonl")), *path.glob(".perjoule-*.tmp")]
    return [file for file in files if os.path.lexists(file) and stat.S_ISREG(file.lstat().st_mode)]


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return a trial as a flat row, with the columns of its reading."""
    reading = trial.reading
    row = {k: v for k, v in asdict(trial).items() if k not in _APART}
    columns = (
        "energy_j",
        "uncertainty_j",
        "net_energy_j",
        "partial_energy_j",
        "idle_power_w",
        "duration_s",
        "boundary",
        "provenance",
        "device",
        "device_digest",
        "power_limit_w",
    )
    spread = {name: getattr(reading, name) if reading else None for name in (*columns, "method")}
    warnings = [*(reading.warnings if reading else ()), *trial.remarks]
    more = {"flops_per_image": _flops_per_image(trial), "warnings": warnings}
    return row | spread | totals(reading) | _machine(reading) | more


def _flops_per_image(trial: Trial) -> float | None:
    images = images_drawn(trial.image_count, trial.iterations)
    work = trial.reading.work if trial.reading is not None else None
    return work.flops / images if work is not None and images else None


def _machine(reading: EnergyReading | None) -> dict[str, Any]:
    """Return the machine's load as columns."""
    load = reading.machine if reading is not None else None
    before_after = {
        f"{name}_{when}": getattr(load, name)[i] if load is not None else None
        for name in ("load", "cpu_mhz")
        for i, when in enumerate(("before", "after"))
    }
    return before_after | {name: getattr(load, name, None) for name in ("cores", "others_cores", "steal_share")}


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the keys of the comparability record that differ between two environments: (key, old, new)."""
    old_keys, new_keys = old.get("comparability") or {}, new.get("comparability") or {}
    if old.get("not_loaded") or new.get("not_loaded"):
        # models that could not be loaded have no digest; those that both have loaded must agree
        models = [record.get("models") or {} for record in (old_keys, new_keys)]
        common = sorted(models[0].keys() & models[1].keys())
        old_keys, new_keys = (
            {**record, "models": {k: m[k] for k in common}}
            for record, m in zip((old_keys, new_keys), models, strict=True)
        )
    return [
        (key, old_keys.get(key), new_keys.get(key))
        for key in sorted({*old_keys, *new_keys})
        if old_keys.get(key) != new_keys.get(key)
    ]
