"""A run on disk (schema version 1): written append-only while it lasts, read as polars frames afterwards.

suite.toml          the suite as run, defaults written out
environment.json    system under test, meter, model digests, comparability key
prompts.jsonl       the prompts taken, with their ids
trials.jsonl        one row a trial, on disk before the next trial starts
traces.jsonl        power samples of each trial; becomes power.parquet
images/             PNG, named by image_id
images.parquet      one row an image, with the SHA-256 of its pixels
scores.parquet      image × metric
metrics.json        what the metrics are
points.parquet      cell × metric
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import polars as pl

from perjoule.errors import RunError, UsageError
from perjoule.suite import load_suite, suite_digest, write_suite
from perjoule.types import MetricSpec, Prompt, Score, Suite, Trial

SCHEMA = 1

TRIAL_COLUMNS: dict[str, Any] = {
    "trial_id": pl.String,
    "cell_id": pl.String,
    "variant": pl.String,
    "role": pl.String,
    "policy": pl.String,
    "block": pl.Int64,
    "prompts": pl.List(pl.String),
    "prompt_ids": pl.List(pl.String),
    "seeds": pl.List(pl.Int64),
    "steps": pl.List(pl.Int64),
    "nfe_per_image": pl.Float64,
    "image_count": pl.Int64,
    "iterations": pl.Int64,
    "energy_j": pl.Float64,
    "uncertainty_j": pl.Float64,
    "net_energy_j": pl.Float64,
    "idle_power_w": pl.Float64,
    "duration_s": pl.Float64,
    "boundary": pl.String,
    "provenance": pl.String,
    "method": pl.String,
    "warnings": pl.List(pl.String),
    "failure": pl.String,
    "image_sha256": pl.List(pl.String),
    "phases_s": pl.String,
}
IMAGE_COLUMNS: dict[str, Any] = {
    "image_id": pl.String,
    "trial_id": pl.String,
    "cell_id": pl.String,
    "variant": pl.String,
    "prompt_id": pl.String,
    "seed": pl.Int64,
    "steps": pl.Int64,
    "file": pl.String,
    "sha256": pl.String,
}
SCORE_COLUMNS: dict[str, Any] = {
    "image_id": pl.String,
    "cell_id": pl.String,
    "prompt_id": pl.String,
    "seed": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,
    "reason_unscored": pl.String,
}
POWER_COLUMNS: dict[str, Any] = {
    "trial_id": pl.String,
    "t_s": pl.Float64,
    "power_w": pl.Float64,
    "source": pl.String,
    # so that a replay of the trace is branded as what it was
    "boundary": pl.String,
    "provenance": pl.String,
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory, its tables read when first asked for."""

    path: Path

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return load_suite(self.path / "suite.toml")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """System under test, meter, model digests."""
        found: dict[str, Any] = _read_json(self.path / "environment.json")
        return found

    @cached_property
    def prompt_set(self) -> tuple[Prompt, ...]:
        """The prompts that were taken, in the order of the plan."""
        return tuple(Prompt(**row) for row in read_json_lines(self.path / "prompts.jsonl"))

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Prompt id -> text."""
        return {prompt.prompt_id: prompt.text for prompt in self.prompt_set}

    @cached_property
    def trials(self) -> pl.DataFrame:
        """One row a trial."""
        parquet = self.path / "trials.parquet"
        if parquet.exists():
            return pl.read_parquet(parquet)
        rows = read_json_lines(self.path / "trials.jsonl")
        for row in rows:
            row["phases_s"] = json.dumps(row.get("phases_s") or {}, sort_keys=True)
        return pl.DataFrame(rows, schema=TRIAL_COLUMNS, strict=False)

    @cached_property
    def images(self) -> pl.DataFrame:
        """One row an image of block 0."""
        return _read_parquet(self.path / "images.parquet", IMAGE_COLUMNS)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Image × metric."""
        return _read_parquet(self.path / "scores.parquet", SCORE_COLUMNS)

    @cached_property
    def power(self) -> pl.DataFrame:
        """Power samples."""
        return _read_parquet(self.path / "power.parquet", POWER_COLUMNS)

    @cached_property
    def metrics(self) -> dict[str, MetricSpec]:
        """What the scored metrics are."""
        file = self.path / "metrics.json"
        if not file.exists():
            return {}
        found = [MetricSpec(**{**m, "bounds": tuple(m["bounds"])}) for m in _read_json(file)["metrics"]]
        return {spec.name: spec for spec in found}

    @cached_property
    def points(self) -> pl.DataFrame:
        """Operating points: cell × metric."""
        from perjoule.statistics.points import POINT_COLUMNS

        return _read_parquet(self.path / "points.parquet", POINT_COLUMNS)


def load_run(path: str | Path) -> Run:
    """Open a run directory.

    Raises:
        RunError: If it is none, or was written by a later version.
    """
    folder = Path(path)
    if not (folder / "environment.json").is_file() or not (folder / "suite.toml").is_file():
        what = "holds no run (suite.toml and environment.json are missing)" if folder.is_dir() else "does not exist"
        raise RunError(f"{folder} {what}: give a directory that `perjoule run` wrote")
    run = Run(path=folder)
    schema = run.environment.get("schema")
    if schema != SCHEMA:
        raise RunError(f"{folder}/environment.json: schema = {schema!r}: this version of perjoule reads {SCHEMA}")
    return run


class RunWriter:
    """Appends to a run directory; a trial is on disk before the next one starts."""

    def __init__(self, path: Path, done: dict[str, dict[str, Any]]) -> None:
        """Open the append-only files. `done`: the rows that are there already, by trial id."""
        self.path = path
        self.done = done
        self._trials: IO[str] = (path / "trials.jsonl").open("a", encoding="utf-8")
        self._traces: IO[str] = (path / "traces.jsonl").open("a", encoding="utf-8")

    @classmethod
    def create(cls, path: Path, suite: Suite, prompts: Sequence[Prompt], environment: dict[str, Any]) -> RunWriter:
        """Start a new run.

        Raises:
            UsageError: If the directory exists and is not empty.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists already: go on with --resume, or choose another directory with --out")
        (path / "images").mkdir(parents=True, exist_ok=True)
        write_suite(suite, path / "suite.toml")
        lines = [json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in prompts]
        (path / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
        # last, since its presence is what makes the directory a run
        write_json(path / "environment.json", {"schema": SCHEMA, **environment})
        return cls(path, {})

    @classmethod
    def resume(cls, path: Path, suite: Suite, environment: dict[str, Any]) -> RunWriter:
        """Go on with a run that was interrupted.

        A last line torn by a crash is dropped: its trial is done again.

        Raises:
            RunError: If there is no run, or it was made by another suite or on another system (names the key and both
                values).
        """
        run = load_run(path)
        if suite_digest(run.suite) != suite_digest(suite):
            raise RunError(
                f"{path} was made by another version of suite {suite.name!r} (see its suite.toml): "
                f"resume with `perjoule run {path / 'suite.toml'} --out {path} --resume`, or choose another --out"
            )
        for key, there, here in differing_keys(run.environment, environment):
            raise RunError(f"{path} cannot be resumed here: {key} was {there!r} and is {here!r}")
        rows = _mend(path / "trials.jsonl")
        _mend(path / "traces.jsonl")
        return cls(path, {row["trial_id"]: row for row in rows})

    def append(self, trial: Trial) -> None:
        """Write one trial and wait until it is on disk."""
        row = trial_row(trial)
        if trial.reading is not None and trial.reading.trace is not None:
            _append_line(self._traces, {"trial_id": trial.trial_id, **asdict(trial.reading.trace)})
        _append_line(self._trials, row)
        self.done[trial.trial_id] = row

    def image_file(self, image_id: str) -> Path:
        """Where an image belongs."""
        return self.path / "images" / f"{image_id}.png"

    def close(self) -> None:
        """Close the files."""
        self._trials.close()
        self._traces.close()

    def finish(self) -> None:
        """Derive the tables that are made of the append-only files."""
        self.close()
        run = load_run(self.path)
        write_parquet(images_of(run.trials), self.path / "images.parquet")
        samples = [
            {"trial_id": trace["trial_id"], "t_s": t, "power_w": w, "source": trace["source"]}
            for trace in read_json_lines(self.path / "traces.jsonl")
            for t, w in zip(trace["t_s"], trace["power_w"], strict=True)
        ]
        columns = {name: POWER_COLUMNS[name] for name in ("trial_id", "t_s", "power_w", "source")}
        kinds = run.trials.select("trial_id", "boundary", "provenance")
        power = pl.DataFrame(samples, schema=columns).join(kinds, on="trial_id", how="left", maintain_order="left")
        write_parquet(power, self.path / "power.parquet")


def images_of(trials: pl.DataFrame) -> pl.DataFrame:
    """The images that the trials made, one row each; later blocks repeat those of block 0 and are left out."""
    from perjoule.plan import image_id

    rows = []
    for trial in trials.filter((pl.col("block") == 0) & pl.col("failure").is_null()).iter_rows(named=True):
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


def write_scores(run: Run, scores: Iterable[Score], specs: Iterable[MetricSpec]) -> None:
    """Store scores beside those of other metrics; a metric scored anew replaces its old scores."""
    frame = pl.DataFrame(
        [asdict(score) for score in scores],
        schema={k: SCORE_COLUMNS[k] for k in ("image_id", "metric", "value", "reason_unscored")},
    )
    frame = frame.join(run.images.select("image_id", "cell_id", "prompt_id", "seed"), on="image_id")
    fresh = frame.select(list(SCORE_COLUMNS))
    new_specs = {spec.name: spec for spec in specs}
    kept = run.scores.filter(~pl.col("metric").is_in(list(new_specs)))
    write_parquet(pl.concat([kept, fresh]).sort("metric", "image_id"), run.path / "scores.parquet")
    merged = {**run.metrics, **new_specs}
    write_json(run.path / "metrics.json", {"schema": SCHEMA, "metrics": [asdict(merged[n]) for n in sorted(merged)]})


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as a flat row, the reading spread over its columns."""
    reading = trial.reading
    row = {k: v for k, v in asdict(trial).items() if k != "reading"}
    columns = (
        "energy_j",
        "uncertainty_j",
        "net_energy_j",
        "idle_power_w",
        "duration_s",
        "boundary",
        "provenance",
    )
    spread = {name: getattr(reading, name) if reading else None for name in (*columns, "method")}
    return row | spread | {"warnings": list(reading.warnings) if reading else []}


def differing_keys(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The parts of the comparability record that differ between two environments: (key, there, here)."""
    a, b = there.get("comparability", {}), here.get("comparability", {})
    return [(key, a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def free_bytes(path: Path) -> int:
    """Free disk space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write Parquet, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    frame.write_parquet(temporary)
    temporary.replace(path)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a JSON-lines file; an unfinished last line is ignored.

    Raises:
        RunError: If a line before the last is damaged (names it).
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break  # torn by a crash while it was written
            raise RunError(f"{path}, line {number}: damaged: {error}") from error
    return rows


def _mend(path: Path) -> list[dict[str, Any]]:
    """Cut a torn last line off, so that appending starts on a line of its own."""
    rows = read_json_lines(path)
    if path.exists() and not path.read_text(encoding="utf-8").endswith("\n"):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows


def _append_line(file: IO[str], row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def _read_parquet(path: Path, columns: dict[str, Any]) -> pl.DataFrame:
    if not path.exists():
        return pl.DataFrame(schema=columns)
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
