"""A run on disk (schema version 1): append-only files during the run, read as polars frames afterwards.

Runs of earlier versions are read too, see `perjoule.runs.migrations`.

suite.toml          the suite as it was run, with all defaults
environment.json    system under test, meter, model digests, comparability key
prompts.jsonl       the prompts of the run, with their ids
trials.jsonl        one row per trial, on disk before the next trial starts
traces.jsonl        power samples of each trial; becomes power.parquet
failures.jsonl      traceback of each trial that failed, for debugging; never in baselines or reports
race.json           design and looks of a race (`perjoule run --race`); not in other runs
superseded.jsonl    earlier attempts of repeated trials: failed, out of memory, without joules, lost pictures or worker
sessions.jsonl      versions and command of each --resume
devices.jsonl       boards of each trial: energy, conditions, and the sensor log behind the energy
work.jsonl          counted work of the networks of each trial; not in runs of earlier versions
images/             PNG, named by image_id
images.parquet      one row per image, with the SHA-256 of its pixels
scores.parquet      image × metric; scores.partial.jsonl during scoring, or if it was stopped
metrics.json        specs of the metrics
sequential.json     plan of a sequential gate, looks.jsonl its looks, baseline/ its other side; not in other runs
set_scores.json     cell × metric of sets (FID), advisory, with the specs of these metrics
points.parquet      cell × metric
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
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
from perjoule.opening import is_flat
from perjoule.runs.columns import (
    DRAWN,
    FINISHED,
    IMAGE_COLUMNS,
    NOT_OF_POINTS,
    POINT_COLUMNS,
    POWER_COLUMNS,
    SCHEMA,
    SCORE_COLUMNS,
    TRIAL_COLUMNS,
)
from perjoule.runs.environment_record import EnvironmentRecord, checked, record_of
from perjoule.runs.migrations import Migration, migration, readable_version
from perjoule.runs.race_record import Race, read_race
from perjoule.suite.reading import load_suite
from perjoule.suite.schedule import planned_trials, trials_saved
from perjoule.suite.smaller import planned_name
from perjoule.types import COUNTED, DeviceEnergy, Judges, MetricSpec, Prompt, Score, SetScore, Suite, Work

# one row per look of a sequential gate, see perjoule.gating.looks
LOOKS = "looks.jsonl"
# prompt id of a row that an imported table states for a whole cell, whose prompts are unknown
WHOLE_CELL = "*"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory; its tables are read on first use, e.g. `load_run("runs/demo").trials`."""

    path: Path
    only: str | None = None  # a metric if tables are read in part, see `of_metric`

    def of_metric(self, metric: str) -> Run:
        """Return the run with the scores of one metric, and with only those columns of big tables that points need."""
        return replace(self, only=metric)

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return load_suite(self.path / "suite.toml", follow=False, migrate=self._migration("suite.toml"))

    @property
    def is_imported(self) -> bool:
        """Whether the run was imported from a table, so that only the content of the table is known."""
        return "imported_from" in self.environment

    @cached_property
    def is_counted(self) -> bool:
        """Whether all joules were counted, so that they repeat exactly; see `perjoule.meters.work`."""
        methods = self.windows.filter(pl.col("energy_j").is_not_null())["method"].fill_null("")
        return len(methods) > 0 and bool(methods.str.starts_with(COUNTED).all())

    @cached_property
    def environment(self) -> dict[str, Any]:
        """System under test, meter and model digests: the content of environment.json."""
        with located(self.path / "environment.json"):
            return checked(self._migration("environment.json")(self._environment))

    @cached_property
    def _environment(self) -> Any:
        return read_json(self.path / "environment.json")

    @cached_property
    def schema(self) -> int:
        """Version of the files; what this object returns has the current one. Raises RunError if it is unknown."""
        file = self.path / "environment.json"
        if not file.exists() or not isinstance(self._environment, dict):
            return SCHEMA  # made in memory, or damaged, which `environment` reports
        return readable_version(self._environment.get("schema"), file)

    def _migration(self, name: str) -> Migration:
        return migration(name, self.schema)

    def _document(self, file: Path) -> Any:
        """Return a document that states its own version, because it may be written later than the run."""
        document = read_json(file)
        return migration(file.name, readable_version(document.get("schema", self.schema), file))(document)

    def _rows(self, file: Path) -> Iterator[Any]:
        return map(self._migration(file.name), read_json_lines(file))

    def _table(self, name: str, columns: dict[str, Any]) -> pl.DataFrame:
        if self.only is None or self.schema != SCHEMA:
            return read_parquet(self.path / name, columns, self._migration(name))
        columns = {column: kind for column, kind in columns.items() if column not in NOT_OF_POINTS}
        return read_parquet(self.path / name, columns, only={"metric": self.only})

    @cached_property
    def system(self) -> EnvironmentRecord:
        """The keys of `environment` that are read again."""
        return record_of(self.environment)

    @cached_property
    def prompt_set(self) -> tuple[Prompt, ...]:
        """Prompts of the run, in the order of the plan."""
        with located(file := self.path / "prompts.jsonl"):
            return TypeAdapter(tuple[Prompt, ...]).validate_python(tuple(self._rows(file)))

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Prompt id -> text; in an imported run only for prompts whose text the table states."""
        return {prompt.prompt_id: prompt.text for prompt in self.prompt_set if prompt.text or not self.is_imported}

    @cached_property
    def trials(self) -> pl.DataFrame:
        """One row per trial. Raises RunError if a trial occurs twice, or has different numbers of prompts and seeds."""
        parquet = self.path / "trials.parquet"
        if parquet.exists():
            return checked_trials(self._table(parquet.name, TRIAL_COLUMNS), self.path)
        file = self.path / "trials.jsonl"
        with located(file):
            rows = list(self._rows(file))
        return trial_table(rows, file)

    @cached_property
    def windows(self) -> pl.DataFrame:
        """The finished trials, with `place` (row in `trials`), `images` (images drawn) and `energy_j_per_image`."""
        return (
            self.trials.with_row_index("place")
            .filter(FINISHED)
            .with_columns(images=DRAWN, energy_j_per_image=pl.col("energy_j") / DRAWN)
        )

    @cached_property
    def race(self) -> Race | None:
        """Design and looks of a race; None if all cells were to get all prompts. Raises RunError if damaged."""
        return read_race(self.path)

    @cached_property
    def stopped_after(self) -> int | None:
        """Number of prompts after which a sequential gate ended; None if all prompts were to be measured."""
        rows = read_json_lines(self.path / LOOKS, skip_damaged=True) if (self.path / LOOKS).is_file() else []
        last = rows[-1] if rows else {}
        prompts = last.get("prompts")
        return prompts if isinstance(prompts, int) and last.get("outcome") != "continue" else None

    @property
    def planned_trials(self) -> int | None:
        """Number of trials in the plan; None for an imported run, which has no plan. A run with fewer is incomplete.

        The plan of a run that was measured until a verdict ends there, and a race saves trials of dropped cells.
        """
        if self.is_imported:
            return None
        planned = planned_trials(self.suite, self.stopped_after or len(self.prompt_set))
        dropped = self.race.dropped.values() if self.race is not None else ()
        return planned - sum(trials_saved(self.suite, len(self.prompt_set), cell.prompts) for cell in dropped)

    @cached_property
    def families(self) -> dict[str, str]:
        """Variant -> family; a variant that is not in the suite is its own family."""
        families = {variant.name: variant.family_name for variant in self.suite.variants}
        own = {name: families.get(planned_name(name), name) for name in self.trials["variant"].unique()}
        return own | families

    @cached_property
    def images(self) -> pl.DataFrame:
        """One row per image of block 0."""
        return self._table("images.parquet", IMAGE_COLUMNS)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row per image and metric."""
        return self._table("scores.parquet", SCORE_COLUMNS)

    @property
    def judges(self) -> Judges | None:
        """Who judged the quality by choices between images; None if metrics did."""
        return None

    @property
    def common_errors(self) -> Mapping[str, Mapping[str, NDArray[np.float64]]]:
        """Metric -> cell -> draws of the error that all prompts have in common, e.g. that of few observers."""
        return {}

    @cached_property
    def power(self) -> pl.DataFrame:
        """One row per power sample."""
        return self._table("power.parquet", POWER_COLUMNS)

    @cached_property
    def devices(self) -> list[tuple[str, DeviceEnergy]]:
        """(trial id, board); `perjoule.meters.edges.bracket(board.counter)` recomputes the energy of a counter."""
        reader = TypeAdapter(DeviceEnergy)
        with located(file := self.path / "devices.jsonl"):
            return [(row.pop("trial_id"), reader.validate_python(row)) for row in self._rows(file)]

    @cached_property
    def works(self) -> dict[str, Work]:
        """Counted work of the window, by trial id; trials without a count are absent."""
        reader = TypeAdapter(Work)
        with located(file := self.path / "work.jsonl"):
            return {row.pop("trial_id"): reader.validate_python(row) for row in self._rows(file)}

    @cached_property
    def metrics(self) -> dict[str, MetricSpec]:
        """Specs of the scored metrics, by name."""
        file = self.path / "metrics.json"
        if not file.exists():
            return {}
        with located(file):
            specs = TypeAdapter(list[MetricSpec]).validate_python(self._document(file)["metrics"])
            return {spec.name: spec for spec in specs}

    @cached_property
    def set_scores(self) -> list[SetScore]:
        """Scores of sets, one per cell and metric; advisory."""
        file = self.path / "set_scores.json"
        with located(file):
            rows = self._document(file)["scores"] if file.exists() else []
            return TypeAdapter(list[SetScore]).validate_python(rows)

    @property
    def has_points(self) -> bool:
        """Whether operating points are stored: False until the run is scored."""
        return (self.path / "points.parquet").is_file()

    @cached_property
    def points(self) -> pl.DataFrame:
        """Operating points: one row per cell and metric."""
        return self._table("points.parquet", POINT_COLUMNS)


_SECONDS = r'"[^"\\\x00-\x1f]*": (?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?'
_USUAL_PHASES = rf"\A\{{(?:{_SECONDS}(?:, {_SECONDS})*)?\}}\z"


def trial_table(rows: Iterable[dict[str, Any]], file: Path) -> pl.DataFrame:
    """Return the table of the rows of `trials.jsonl`; raises RunError as `checked_trials`, or if a row is damaged."""
    with located(file):
        flat = [_flat(row) | {"phases_s": _phases_text(row)} for row in rows]
        frame = pl.DataFrame(flat, TRIAL_COLUMNS, strict=False)
    require_names(frame, file)
    return checked_trials(frame, file.parent)


def checked_trials(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return the table of trials; raises RunError if a trial occurs twice, or its values do not fit each other."""
    # different hashes prove that ids differ, in a tenth of the time
    same = frame["trial_id"].hash().n_unique() < len(frame)
    if same and len(duplicates := frame.filter(pl.col("trial_id").is_duplicated())):
        raise RunError(f"{path}: trial {duplicates['trial_id'][0]} occurs twice: keep one of its rows")
    mismatched = frame.filter(pl.col("prompt_ids").list.len().ne_missing(pl.col("seeds").list.len()))
    if len(mismatched):
        trial_id = mismatched["trial_id"][0]
        raise RunError(f"{path}: trial {trial_id}: its prompt_ids and seeds differ in number: restore its row")
    # parsing takes seconds for a million trials, so a pattern recognises texts in perjoule's own format
    unusual = frame.filter(~pl.col("phases_s").str.contains(_USUAL_PHASES))
    for trial_id, phases in unusual.select("trial_id", "phases_s").iter_rows():
        if not _is_phases(phases):
            raise RunError(f"{path}: trial {trial_id}: phases_s = {phases!r}: must be a JSON object of seconds")
    return frame


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a trial; raises ValueError unless their values are flat."""
    columns = {key: value for key, value in row.items() if key in TRIAL_COLUMNS}
    for key, value in columns.items():
        if key != "phases_s" and not is_flat(value):
            raise ValueError(f"{key} contains a list or an object where a value must be")
    return columns


def _phases_text(row: dict[str, Any]) -> str:
    phases = row.get("phases_s") or {}
    return phases if isinstance(phases, str) else json.dumps(phases, sort_keys=True)


def _is_phases(text: str) -> bool:
    """Return whether a text is a JSON object of seconds by phase."""
    try:
        phases = strict_json(text or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(phases, dict) and all(isinstance(value, int | float) for value in phases.values())


@contextmanager
def located(file: Path) -> Iterator[None]:
    """Turn errors about the content of a file into a RunError that names the file."""
    try:
        yield
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in detail["loc"])
        raise RunError(f"{file}: damaged: {place}: {detail['msg'].lower()}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{file}: damaged: {type(error).__name__}: {first_line(error)}") from error


# exists only until environment.json is written
STARTING = ".starting"
# any of these files makes a folder a run, complete or not
_TRACES = ("suite.toml", "environment.json", "trials.jsonl", "trials.parquet", "points.parquet")


def is_run(folder: Path) -> bool:
    """Return whether a folder contains a run, complete or not."""
    return folder.is_dir() and not is_starting(folder) and any((folder / name).is_file() for name in _TRACES)


def is_starting(folder: Path) -> bool:
    """Return whether a folder is the start of a run that was cut off before anything was measured."""
    return (folder / STARTING).is_file() and not (folder / "environment.json").is_file()


def holds_runs(folder: Path) -> bool:
    """Return whether a folder is not a run itself but directly contains runs."""
    return folder.is_dir() and not is_run(folder) and any(is_run(child) for child in folder.iterdir())


def load_run(path: str | Path) -> Run:
    """Open a run directory.

    Raises:
        RunError: If it is not a run directory, or was written by a later version of perjoule.
    """
    folder = Path(path)
    if not (folder / "environment.json").is_file() or not (folder / "suite.toml").is_file():
        what = (
            "is not a run directory (suite.toml or environment.json is missing)"
            if folder.is_dir()
            else "does not exist"
        )
        raise RunError(f"{folder} {what}: give a directory that `perjoule run` wrote")
    run = Run(path=folder)
    _ = run.schema, run.environment
    return run


def write_scores(run: Run, scores: Iterable[Score], specs: Iterable[MetricSpec]) -> None:
    """Store scores and specs of metrics, and replace earlier scores of the same metrics."""
    frame = pl.DataFrame(
        [asdict(score) for score in scores],
        schema={k: SCORE_COLUMNS[k] for k in ("image_id", "metric", "value", "reason_unscored")},
    )
    frame = frame.join(run.images.select("image_id", "cell_id", "prompt_id", "seed"), on="image_id")
    new = frame.select(list(SCORE_COLUMNS))
    new_specs = {spec.name: spec for spec in specs}
    others = run.scores.filter(~pl.col("metric").is_in(list(new_specs)))
    write_parquet(pl.concat([others, new]).sort("metric", "image_id"), run.path / "scores.parquet")
    merged = {**run.metrics, **new_specs}
    write_json(run.path / "metrics.json", {"schema": SCHEMA, "metrics": [asdict(merged[n]) for n in sorted(merged)]})


def write_set_scores(run: Run, scores: Iterable[SetScore], specs: Iterable[MetricSpec]) -> None:
    """Store set scores and specs of metrics of sets, and replace earlier scores of the same metrics."""
    new_specs = {spec.name: asdict(spec) for spec in specs}
    file = run.path / "set_scores.json"
    with located(file):
        old = read_json(file) if file.exists() else {"metrics": [], "scores": []}
        merged = {spec["name"]: spec for spec in old["metrics"]} | new_specs
        others = [row for row in old["scores"] if row["metric"] not in new_specs]
        rows = sorted(others + [asdict(score) for score in scores], key=lambda row: (row["metric"], row["cell_id"]))
    write_json(file, {"schema": SCHEMA, "metrics": [merged[name] for name in sorted(merged)], "scores": rows})
