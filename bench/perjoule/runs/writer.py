"""Writes a run: append-only files, a trial on disk before the next one starts, and derived tables at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl
from pydantic import StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from perjoule.errors import RunError, UsageError
from perjoule.files import (
    append_line,
    append_lines,
    mend,
    open_journal,
    read_json_lines,
    write_json,
    write_json_lines,
    write_parquet,
)
from perjoule.meters.conditions import totals
from perjoule.runs.columns import FINISHED, IMAGE_COLUMNS, POWER_COLUMNS, SCHEMA, images_drawn
from perjoule.runs.directory import load_run, located, trial_table
from perjoule.suite.reading import suite_digest, write_suite
from perjoule.suite.schedule import image_id
from perjoule.types import Assignment, EnergyReading, Prompt, Suite, Trial

FAILURES = "failures.jsonl"
SUPERSEDED = "superseded.jsonl"
# journals of what belongs to single trials, next to trials.jsonl
_DETAILS = ("traces", "devices", "work")


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrialRow:
    """Keys of a row of `trials.jsonl` that resuming a run needs."""

    trial_id: StrictStr
    cell_id: StrictStr
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


class RunWriter:
    """Appends to a run directory; a trial is on disk before the next one starts."""

    def __init__(self, path: Path, done: dict[str, dict[str, Any]], superseded: Sequence[dict[str, Any]] = ()) -> None:
        """Open the append-only files.

        Args:
            path: The run directory.
            done: Existing rows, by trial id.
            superseded: Rows of repeated attempts, whose energy counts as spent.
        """
        self.path = path
        self.done = done
        self.superseded = superseded
        self._trials: IO[bytes] = open_journal(path / "trials.jsonl")
        self._details = {name: open_journal(path / f"{name}.jsonl") for name in _DETAILS}

    @classmethod
    def create(cls, path: Path, suite: Suite, prompts: Sequence[Prompt], environment: dict[str, Any]) -> RunWriter:
        """Start a new run.

        Raises:
            UsageError: If the directory exists and is not empty.
        """
        require_vacant(path)
        write_suite(suite, path / "suite.toml")
        (path / "images").mkdir(exist_ok=True)
        write_json_lines(path / "prompts.jsonl", [asdict(prompt) for prompt in prompts])
        digest = hashlib.sha256((path / "prompts.jsonl").read_bytes()).hexdigest()
        # written last, because its presence marks the directory as a run
        write_json(path / "environment.json", {"schema": SCHEMA, **environment, "prompts_jsonl_sha256": digest})
        return cls(path, {})

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
        """Continue an interrupted run.

        A last line that a crash left incomplete is dropped and its trial repeated. Failed trials stay failed, unless
        `retry_failed`: then they, and trials without joules, are moved to `superseded.jsonl` and repeated.

        Raises:
            RunError: If there is no run, it is damaged, or it has another suite, plan or system (names both values).
        """
        run = load_run(path)
        if suite_digest(run.suite) != suite_digest(suite):
            raise RunError(
                f"{path} was started with another version of suite {suite.name!r} (see its suite.toml): "
                f"resume with `perjoule run {path / 'suite.toml'} --out {path} --resume`, or choose another --out"
            )
        for key, old, new in differing_keys(run.environment, environment):
            raise RunError(
                f"{path} cannot be resumed here: {key} was {old!r} and is {new!r}; use the same "
                "system, or choose another --out"
            )
        if (path / "images").is_symlink():
            raise RunError(
                f"{path / 'images'} is a symbolic link, and images are not read through links: "
                "replace it by the folder itself"
            )
        # find damage before any energy is spent
        rows = _stored_trials(path / "trials.jsonl", plan)
        for name in _DETAILS:
            mend(path / f"{name}.jsonl")
        if retry_failed:
            rows = _supersede(path, rows)
        superseded = _checked(path / SUPERSEDED, read_json_lines(path / SUPERSEDED))
        return cls(path, {row["trial_id"]: row for row in rows}, superseded)

    def append(self, trial: Trial) -> None:
        """Write one trial and wait until it is on disk."""
        row = trial_row(trial)
        if (reading := trial.reading) is not None:
            details: dict[str, Sequence[Any]] = {
                "traces": (reading.trace,),
                "devices": reading.devices,
                "work": (reading.work,),
            }
            for name, records in details.items():
                for record in filter(None, records):
                    append_line(self._details[name], {"trial_id": trial.trial_id, **asdict(record)})
        if trial.traceback:
            with open_journal(self.path / FAILURES) as file:
                append_line(file, {"trial_id": trial.trial_id, "failure": trial.failure, "traceback": trial.traceback})
        append_line(self._trials, row)
        self.done[trial.trial_id] = row

    def image_file(self, image_id: str) -> Path:
        """Return the path of an image."""
        return self.path / "images" / f"{image_id}.png"

    def close(self) -> None:
        """Close the files."""
        self._trials.close()
        for journal in self._details.values():
            journal.close()

    def sort(self, order: Sequence[str]) -> None:
        """Sort the closed files by this order of trials; trials that are not in it come last."""
        place = {trial_id: number for number, trial_id in enumerate(order)}
        for name in ("trials", *_DETAILS):
            with located(file := self.path / f"{name}.jsonl"):
                rows = sorted(read_json_lines(file), key=lambda row: place.get(row["trial_id"], len(place)))
                write_json_lines(file, rows)

    def finish(self) -> None:
        """Close the append-only files and derive the tables from them."""
        self.close()
        run = load_run(self.path)
        with located(self.path / "trials.jsonl"):
            images = images_of(run.trials)
        write_parquet(images, self.path / "images.parquet")
        columns = {name: POWER_COLUMNS[name] for name in ("trial_id", "t_s", "power_w", "source")}
        with located(file := self.path / "traces.jsonl"):
            samples = [
                {"trial_id": trace["trial_id"], "t_s": t, "power_w": w, "source": trace["source"]}
                for trace in read_json_lines(file)
                for t, w in zip(trace["t_s"], trace["power_w"], strict=True)
            ]
            traces = pl.DataFrame(samples, schema=columns)
        kinds = run.trials.select("trial_id", "boundary", "provenance")
        power = traces.join(kinds, on="trial_id", how="left", maintain_order="left")
        write_parquet(power, self.path / "power.parquet")


def _checked(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows; raises RunError if one lacks a key that resuming needs."""
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        detail = error.errors()[0]
        number, *keys = detail["loc"]
        place = f"{file}: trial {int(number) + 1}: {'.'.join(map(str, keys))}"
        raise RunError(f"{place}: {detail['msg'].lower()}: restore the file from a copy, or delete that line") from None
    return rows


def _stored_trials(file: Path, plan: Sequence[Assignment]) -> list[dict[str, Any]]:
    """Read the trials of a run to resume, after cutting off an incomplete last line.

    Raises:
        RunError: If a row is damaged, or a trial has other images than the plan.
    """
    with located(file):
        rows = mend(file)
    _checked(file, rows)
    _require_same_images(file.parent, plan, rows)
    trials = trial_table(rows, file)
    with located(file):
        images_of(trials)
    return rows


def _supersede(path: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move trials that failed or have no joules, with their details, out of the journals.

    Returns the remaining trials.
    """
    repeated = [row for row in rows if row.get("failure") is not None or row.get("energy_j") is None]
    ids = {row["trial_id"] for row in repeated}
    # first, so that a crash in between loses nothing; at worst the energy of an attempt is counted twice
    with located(path / "trials.jsonl"), open_journal(path / SUPERSEDED) as journal:
        append_lines(journal, repeated)
    for name in _DETAILS:
        with located(file := path / f"{name}.jsonl"):
            write_json_lines(file, [row for row in read_json_lines(file) if row["trial_id"] not in ids])
    remaining = [row for row in rows if row["trial_id"] not in ids]
    write_json_lines(path / "trials.jsonl", remaining)
    return remaining


def _require_same_images(path: Path, plan: Sequence[Assignment], rows: Sequence[dict[str, Any]]) -> None:
    """Raise RunError if a stored trial has other images than the plan.

    Another version of perjoule may plan in another way: the same trial id would then mean other images, so that some
    images would be made twice and others never.
    """
    planned = {trial.trial_id: ([p.prompt_id for p in trial.prompts], list(trial.seeds)) for trial in plan}
    for row in rows:
        images = row["prompt_ids"], row["seeds"]
        if row["trial_id"] in planned and images != planned[row["trial_id"]]:
            raise RunError(
                f"{path}: trial {row['trial_id']} has other images than this version of perjoule plans for it: "
                "resume with the version that started the run (see environment.json), or choose another --out"
            )


def require_vacant(path: Path) -> None:
    """Raise UsageError if a new run cannot start in `path` because it is not empty."""
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to {path.readlink()}, which does not exist: make that folder, or remove it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists already: continue it with --resume, or choose another directory with --out")


def images_of(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the images of the trials, one row each, without later blocks, which repeat those of block 0.

    Raises:
        ValueError: If the numbers of step counts, digests and images of a trial differ (names the trial).
    """
    finished = trials.filter((pl.col("block") == 0) & FINISHED)
    for name in ("steps", "image_sha256"):
        mismatched = finished.filter(pl.col(name).list.len().ne_missing(pl.col("prompt_ids").list.len()))
        if len(mismatched):
            raise ValueError(
                f"trial {mismatched['trial_id'][0]}: its {name} and prompt_ids differ in number: restore its row"
            )
    rows = []
    for trial in finished.iter_rows(named=True):
        for pid, seed, steps, sha in zip(
            trial["prompt_ids"], trial["seeds"], trial["steps"], trial["image_sha256"], strict=True
        ):
            name = image_id(trial["cell_id"], pid, seed)
            rows.append(
                {
                    "image_id": name,
                    "trial_id": trial["trial_id"],
                    "cell_id": trial["cell_id"],
                    "variant": trial["variant"],
                    "prompt_id": pid,
                    "seed": seed,
                    "steps": steps,
                    "file": f"images/{name}.png",
                    "sha256": sha,
                }
            )
    return pl.DataFrame(rows, schema=IMAGE_COLUMNS).sort("image_id")


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return a trial as a flat row, with the columns of its reading."""
    reading = trial.reading
    row = {k: v for k, v in asdict(trial).items() if k not in ("reading", "traceback", "remarks")}
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
