"""A run on disk (schema version 1): written append-only while it lasts, read as polars frames afterwards.

suite.toml          the suite as run, defaults written out
environment.json    system under test, meter, model digests, comparability key
prompts.jsonl       the prompts taken, with their ids
trials.jsonl        one row a trial, on disk before the next trial starts
traces.jsonl        power samples of each trial; becomes power.parquet
failures.jsonl      traceback of each trial that failed, for debugging; never in baselines or reports
superseded.jsonl    trials that failed and were done again with --retry-failed
devices.jsonl       boards of each trial: energy, conditions, and the log that the energy was computed from
images/             PNG, named by image_id
images.parquet      one row an image, with the SHA-256 of its pixels
scores.parquet      image × metric; scores.partial.jsonl while a scoring lasts, or if it was stopped
metrics.json        what the metrics are
set_scores.json     cell × metric of sets (FID), advisory, with what such metrics are
points.parquet      cell × metric
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter, ValidationError

from perjoule.errors import RunError, first_line
from perjoule.files import (
    read_json,
    read_json_lines,
    read_parquet,
    require_names,
    strict_json,
    write_json,
    write_parquet,
)
from perjoule.runs.columns import (
    DRAWN,
    FINISHED,
    IMAGE_COLUMNS,
    POINT_COLUMNS,
    POWER_COLUMNS,
    SCHEMA,
    SCORE_COLUMNS,
    TRIAL_COLUMNS,
)
from perjoule.runs.environment_record import EnvironmentRecord, checked, record_of
from perjoule.suite.reading import load_suite
from perjoule.suite.schedule import planned_trials
from perjoule.types import DeviceEnergy, MetricSpec, Prompt, Score, SetScore, Suite

# the prompt id of a row that an imported table gives for a whole cell: its prompts are not known
WHOLE_CELL = "*"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory, its tables read when first asked for."""

    path: Path

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return load_suite(self.path / "suite.toml")

    @property
    def is_imported(self) -> bool:
        """True if the run was made of a table: perjoule knows what the table says, and nothing of how it came about."""
        return "imported_from" in self.environment

    @cached_property
    def environment(self) -> dict[str, Any]:
        """System under test, meter, model digests."""
        with located(file := self.path / "environment.json"):
            return checked(read_json(file))

    @cached_property
    def system(self) -> EnvironmentRecord:
        """The keys of `environment` that are read again."""
        return record_of(self.environment)

    @cached_property
    def prompt_set(self) -> tuple[Prompt, ...]:
        """The prompts that were taken, in the order of the plan."""
        with located(file := self.path / "prompts.jsonl"):
            return TypeAdapter(tuple[Prompt, ...]).validate_python(read_json_lines(file))

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Prompt id -> text; of an imported run, where the table states one."""
        return {prompt.prompt_id: prompt.text for prompt in self.prompt_set if prompt.text or not self.is_imported}

    @cached_property
    def trials(self) -> pl.DataFrame:
        """One row a trial. Raises RunError if a trial occurs twice, or its prompts and seeds do not pair up."""
        frame = self._trials()
        twice = frame.filter(pl.col("trial_id").is_duplicated())
        if len(twice):
            raise RunError(f"{self.path}: trial {twice['trial_id'][0]} occurs twice in its table: keep one row")
        torn = frame.filter(pl.col("prompt_ids").list.len().ne_missing(pl.col("seeds").list.len()))
        if len(torn):
            raise RunError(f"{self.path}: trial {torn['trial_id'][0]}: its prompt_ids and seeds differ in number")
        # parsing takes seconds for a million trials, so texts as perjoule writes them are recognised by a pattern
        unusual = frame.filter(~pl.col("phases_s").str.contains(_USUAL_PHASES))
        for trial_id, phases in unusual.select("trial_id", "phases_s").iter_rows():
            if not _is_phases(phases):
                raise RunError(f"{self.path}: trial {trial_id}: phases_s = {phases!r}: an object of seconds is needed")
        return frame

    @cached_property
    def windows(self) -> pl.DataFrame:
        """The finished trials, with `place` (row in `trials`), `images` (images drawn) and `energy_j_per_image`."""
        return (
            self.trials.with_row_index("place")
            .filter(FINISHED)
            .with_columns(images=DRAWN, energy_j_per_image=pl.col("energy_j") / DRAWN)
        )

    @property
    def planned_trials(self) -> int | None:
        """How many trials the plan has; None for an imported run, which has no plan. A run with fewer is incomplete."""
        return None if self.is_imported else planned_trials(self.suite, len(self.prompt_set))

    @cached_property
    def families(self) -> dict[str, str]:
        """Variant -> family; a variant that the suite does not list is a family of its own."""
        own = {name: name for name in self.trials["variant"].unique()}
        return own | {variant.name: variant.family_name for variant in self.suite.variants}

    def _trials(self) -> pl.DataFrame:
        parquet = self.path / "trials.parquet"
        if parquet.exists():
            return read_parquet(parquet, TRIAL_COLUMNS)
        with located(file := self.path / "trials.jsonl"):
            rows = read_json_lines(file)
            for row in rows:
                phases = row.get("phases_s") or {}
                row["phases_s"] = phases if isinstance(phases, str) else json.dumps(phases, sort_keys=True)
            frame = pl.DataFrame(rows, schema=TRIAL_COLUMNS, strict=False)
            require_names(frame, file)
            return frame

    @cached_property
    def images(self) -> pl.DataFrame:
        """One row an image of block 0."""
        return read_parquet(self.path / "images.parquet", IMAGE_COLUMNS)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Image × metric."""
        return read_parquet(self.path / "scores.parquet", SCORE_COLUMNS)

    @cached_property
    def power(self) -> pl.DataFrame:
        """Power samples."""
        return read_parquet(self.path / "power.parquet", POWER_COLUMNS)

    @cached_property
    def devices(self) -> list[tuple[str, DeviceEnergy]]:
        """(trial id, board): `perjoule.meters.edges.bracket(board.counter)` computes a counter's energy again."""
        reader = TypeAdapter(DeviceEnergy)
        with located(file := self.path / "devices.jsonl"):
            return [(row.pop("trial_id"), reader.validate_python(row)) for row in read_json_lines(file)]

    @cached_property
    def metrics(self) -> dict[str, MetricSpec]:
        """What the scored metrics are."""
        file = self.path / "metrics.json"
        if not file.exists():
            return {}
        with located(file):
            found = TypeAdapter(list[MetricSpec]).validate_python(read_json(file)["metrics"])
            return {spec.name: spec for spec in found}

    @cached_property
    def set_scores(self) -> list[SetScore]:
        """Cell × metric of sets; advisory."""
        file = self.path / "set_scores.json"
        with located(file):
            rows = read_json(file)["scores"] if file.exists() else []
            return TypeAdapter(list[SetScore]).validate_python(rows)

    @cached_property
    def points(self) -> pl.DataFrame:
        """Operating points: cell × metric."""
        return read_parquet(self.path / "points.parquet", POINT_COLUMNS)


_SECONDS = r'"[^"\\\x00-\x1f]*": (?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?'
_USUAL_PHASES = rf"\A\{{(?:{_SECONDS}(?:, {_SECONDS})*)?\}}\z"


def _is_phases(text: str) -> bool:
    """True for the JSON of seconds by phase."""
    try:
        found = strict_json(text or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values())


@contextmanager
def located(file: Path) -> Iterator[None]:
    """Name the file whose content has another shape than perjoule writes."""
    try:
        yield
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in detail["loc"])
        raise RunError(f"{file}: damaged: {place}: {detail['msg'].lower()}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{file}: damaged: {type(error).__name__}: {first_line(error)}") from error


# any of these files makes a folder a run, complete or not
_TRACES = ("suite.toml", "environment.json", "trials.jsonl", "trials.parquet", "points.parquet")


def is_run(folder: Path) -> bool:
    """True if a folder holds a run, or what is left of one."""
    return folder.is_dir() and any((folder / name).is_file() for name in _TRACES)


def holds_runs(folder: Path) -> bool:
    """True if a folder is no run itself and has runs right below it."""
    return folder.is_dir() and not is_run(folder) and any(is_run(child) for child in folder.iterdir())


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


def write_scores(run: Run, scores: Iterable[Score], specs: Iterable[MetricSpec]) -> None:
    """Store scores next to those of other metrics; a metric that is scored again replaces its old scores."""
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


def write_set_scores(run: Run, scores: Iterable[SetScore], specs: Iterable[MetricSpec]) -> None:
    """Store what metrics of sets made of each cell, next to those of other metrics of sets."""
    new_specs = {spec.name: asdict(spec) for spec in specs}
    file = run.path / "set_scores.json"
    with located(file):
        old = read_json(file) if file.exists() else {"metrics": [], "scores": []}
        merged = {spec["name"]: spec for spec in old["metrics"]} | new_specs
        kept = [row for row in old["scores"] if row["metric"] not in new_specs]
        rows = sorted(kept + [asdict(score) for score in scores], key=lambda row: (row["metric"], row["cell_id"]))
    write_json(file, {"schema": SCHEMA, "metrics": [merged[name] for name in sorted(merged)], "scores": rows})
