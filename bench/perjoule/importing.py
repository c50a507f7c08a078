"""Measurements made elsewhere become a run: a table in, a run directory out.

    variant, prompt_id, seed, energy_j            needed, one row an image
    quality:<metric>                              at least one, higher is better unless --lower names it
    role, policy, steps, duration_s, uncertainty_j, provenance, boundary, family, prompt, device     optional

A row is one image. Energies are joules of that image; a table in other units is refused, not converted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import polars as pl

from perjoule import __version__
from perjoule.columns import IMAGE_COLUMNS, SCHEMA, SCORE_COLUMNS, TRIAL_COLUMNS
from perjoule.errors import UnknownNameError, UsageError
from perjoule.files import write_json, write_parquet
from perjoule.run_directory import Run, load_run
from perjoule.run_writer import require_vacant
from perjoule.statistics.points import operating_points
from perjoule.suite import MAX_STEPS, write_suite
from perjoule.types import Boundary, Metrics, MetricSpec, PromptSource, Protocol, Provenance, Role, Suite, Variant

_NEEDED = ("variant", "prompt_id", "seed", "energy_j")
_OPTIONAL = (
    "role",
    "policy",
    "steps",
    "duration_s",
    "uncertainty_j",
    "provenance",
    "boundary",
    "family",
    "prompt",
    "device",
)
_PREFIX = "quality:"
_FOREIGN_UNITS = (
    "energy_kj",
    "energy_mj",
    "energy_wh",
    "energy_kwh",
    "energy_mwh",
    "energy",
    "duration_ms",
    "uncertainty_mj",
)
_READERS = {
    ".csv": pl.read_csv,
    ".tsv": pl.read_csv,
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
}


def import_table(table: Path, out: Path, *, lower: Sequence[str] = (), fidelity: Sequence[str] = ()) -> Run:
    """Make a run directory of a table.

    Args:
        table: CSV, TSV, Parquet or JSONL.
        out: Where the run goes; must be vacant.
        lower: Metrics for which lower is better.
        fidelity: Full-reference metrics, which compare within one family only.

    Raises:
        UsageError: Names file, column, value and remedy: a missing column, a foreign unit, an energy that is zero or
            negative, an image that stands there twice.
    """
    require_vacant(out)
    frame = _checked(_read(table), table)
    metrics = [name.removeprefix(_PREFIX) for name in frame.columns if name.startswith(_PREFIX)]
    for name in (*lower, *fidelity):
        if name not in metrics:
            raise UnknownNameError("metric", name, metrics, str(table))
    frame = _with_defaults(frame)
    trials = _trials(frame)
    suite = _suite(table, frame, metrics)
    out.mkdir(parents=True, exist_ok=True)
    write_suite(suite, out / "suite.toml")
    prompts = frame.select("prompt_id", "prompt").unique("prompt_id").sort("prompt_id")
    prompts.rename({"prompt": "text"}).with_columns(category=pl.lit("")).write_ndjson(out / "prompts.jsonl")
    write_parquet(trials, out / "trials.parquet")
    trials.with_columns(phases_s=pl.lit(None, pl.String)).write_ndjson(out / "trials.jsonl")
    write_parquet(_images(frame), out / "images.parquet")
    write_parquet(_scores(frame, metrics), out / "scores.parquet")
    specs = [asdict(_spec(name, lower, fidelity)) for name in sorted(metrics)]
    write_json(out / "metrics.json", {"schema": SCHEMA, "metrics": specs})
    # last, since its presence is what makes the directory a run
    write_json(out / "environment.json", _environment(table, frame))
    run = load_run(out)
    write_parquet(operating_points(run), out / "points.parquet")
    return run


def _read(table: Path) -> pl.DataFrame:
    reader = _READERS.get(table.suffix.lower())
    if reader is None:
        raise UsageError(f"{table}: {table.suffix or 'no suffix'}: give .csv, .tsv, .parquet or .jsonl")
    if not table.is_file():
        raise UsageError(f"{table}: no such file")
    options = {"separator": "\t"} if table.suffix.lower() == ".tsv" else {}
    if reader is pl.read_csv:
        options |= {"infer_schema_length": None}  # type: ignore[dict-item]
    try:
        return reader(table, **options)  # type: ignore[operator, no-any-return]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{table}: cannot be read: {str(error).splitlines()[0]}") from error


def _checked(frame: pl.DataFrame, table: Path) -> pl.DataFrame:
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        foreign = [name for name in frame.columns if name.lower() in _FOREIGN_UNITS]
        hint = (
            f" ({', '.join(foreign)} is not it: convert to joules first)" if foreign and "energy_j" in missing else ""
        )
        raise UsageError(
            f"{table}: column {', '.join(missing)} is missing{hint}; there are: {', '.join(frame.columns)}"
        )
    foreign = [name for name in frame.columns if name.lower() in _FOREIGN_UNITS]
    if foreign:
        raise UsageError(f"{table}: {', '.join(foreign)} beside energy_j: mixed units; keep one column, in joules")
    qualities = [name for name in frame.columns if name.startswith(_PREFIX) and name != _PREFIX]
    if not qualities:
        raise UsageError(f"{table}: no column {_PREFIX}<metric>: at least one quality is needed")
    unknown = [c for c in frame.columns if c not in (*_NEEDED, *_OPTIONAL, *qualities)]
    if unknown:
        raise UsageError(f"{table}: unknown column {', '.join(unknown)}; known are {', '.join((*_NEEDED, *_OPTIONAL))}")
    if frame.is_empty():
        raise UsageError(f"{table}: holds no row")
    casts: dict[str, Any] = {"variant": pl.String, "prompt_id": pl.String, "seed": pl.Int64, "energy_j": pl.Float64}
    casts |= dict.fromkeys(qualities, pl.Float64)
    casts |= {c: pl.Float64 for c in ("duration_s", "uncertainty_j") if c in frame.columns}
    casts |= {"steps": pl.Int64} if "steps" in frame.columns else {}
    for name, kind in casts.items():
        cast = frame[name].cast(kind, strict=False)
        bad = frame.filter(cast.is_null() & frame[name].is_not_null())
        if len(bad):
            raise UsageError(
                f"{table}: {name} = {bad[name][0]!r}: not a number ({len(bad)} rows); units belong in no cell"
            )
        frame = frame.with_columns(cast.alias(name))
    _check_values(frame, table)
    return frame


def _check_values(frame: pl.DataFrame, table: Path) -> None:
    for name in ("variant", "prompt_id", "seed"):
        if frame[name].null_count():
            raise UsageError(f"{table}: {name} is empty in {frame[name].null_count()} rows")
    for name, least, word in (
        ("energy_j", 0.0, "positive"),
        ("duration_s", 0.0, "positive"),
        ("uncertainty_j", -1e-300, "0 or more"),
    ):
        if name in frame.columns:
            bad = frame.with_row_index("line", 1).filter(pl.col(name) <= least)
            if len(bad):
                row = bad.row(0, named=True)
                raise UsageError(
                    f"{table}: row {row['line']}: {name} = {row[name]:g}: must be {word}; "
                    "leave it empty if it is not known"
                )
    if frame["energy_j"].is_infinite().any():
        raise UsageError(f"{table}: energy_j holds infinities")
    for name, known in (
        ("role", get_args(Role)),
        ("provenance", get_args(Provenance)),
        ("boundary", get_args(Boundary)),
    ):
        if name in frame.columns:
            for value in frame[name].drop_nulls().unique():
                if value not in known:
                    raise UnknownNameError(name, str(value), known, f"{table}: {name}")
    if "boundary" in frame.columns and frame["boundary"].drop_nulls().n_unique() > 1:
        kinds = ", ".join(sorted(frame["boundary"].drop_nulls().unique()))
        raise UsageError(f"{table}: boundary: {kinds}: joules of unlike boundaries share no axis; import them apart")
    if "steps" in frame.columns:
        bad = frame.filter((pl.col("steps") < 1) | (pl.col("steps") > MAX_STEPS))
        if len(bad):
            raise UsageError(f"{table}: steps = {bad['steps'][0]}: 1 to {MAX_STEPS}")
    keys = ["variant", "prompt_id", "seed", *(name for name in ("steps", "policy") if name in frame.columns)]
    twice = frame.filter(frame.select(keys).is_duplicated())
    # a policy may give one prompt one step count only, a ladder many; the same image twice is neither
    if len(twice):
        row = {k: twice[k][0] for k in keys}
        raise UsageError(f"{table}: the image {row} stands there {len(twice)} times in all; one row an image")
    names: dict[str, str] = {}
    for variant in frame["variant"].unique().sort():
        other = names.setdefault(_name(variant), variant)
        if other != variant:
            raise UsageError(f"{table}: variant {variant!r} and {other!r} differ only in signs that names cannot hold")


def _with_defaults(frame: pl.DataFrame) -> pl.DataFrame:
    defaults: dict[str, Any] = {
        "role": "fixed", "policy": "fixed", "steps": 1, "duration_s": None, "uncertainty_j": None,
        "provenance": "measured", "boundary": None, "family": "", "device": None,
    }  # fmt: skip
    types: dict[str, Any] = {"steps": pl.Int64, "duration_s": pl.Float64, "uncertainty_j": pl.Float64}
    for name, value in defaults.items():
        kind = types.get(name, pl.String)
        column = pl.col(name).fill_null(pl.lit(value, kind)) if name in frame.columns else pl.lit(value, kind)
        frame = frame.with_columns(column.cast(kind).alias(name))
    if "prompt" not in frame.columns:
        frame = frame.with_columns(prompt=pl.col("prompt_id"))
    variants = frame["variant"].unique()
    frame = frame.with_columns(pl.col("variant").replace_strict({v: _name(v) for v in variants}))
    # an adaptive arm is one cell per policy, whatever its steps are; a ladder has one for each step count
    adaptive = pl.col("role").is_in(["predicted", "control"])
    several = pl.col("policy").n_unique().over("variant") > 1
    rung = pl.format("{}-{}", "variant", pl.col("steps").cast(pl.String).str.zfill(3))
    setting = pl.when(several).then(pl.format("{}@{}", "variant", "policy")).otherwise(pl.col("variant"))
    frame = frame.with_columns(cell_id=pl.when(adaptive).then(setting).otherwise(rung))
    return frame.with_columns(
        image_id=pl.format("{}.{}.s{}", "cell_id", "prompt_id", "seed"),
        energy_j=pl.when(pl.col("energy_j").is_nan()).then(None).otherwise(pl.col("energy_j")),
    )


def _trials(frame: pl.DataFrame) -> pl.DataFrame:
    filled = frame.select(
        "cell_id", "variant", "role", "policy", "energy_j", "uncertainty_j", "duration_s", "boundary", "provenance",
        trial_id=pl.format("b0.{}.{}.s{}", "cell_id", "prompt_id", "seed"),
        block=pl.lit(0),
        prompts=pl.concat_list("prompt"),
        prompt_ids=pl.concat_list("prompt_id"),
        seeds=pl.concat_list("seed"),
        steps=pl.concat_list("steps"),
        image_count=pl.lit(1),
        iterations=pl.lit(1),
        method=pl.lit("imported"),
        warnings=pl.lit([], pl.List(pl.String)),
        image_sha256=pl.lit([], pl.List(pl.String)),
        phases_s=pl.lit("{}"),
    )  # fmt: skip
    return filled.select(
        (pl.col(name) if name in filled.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in TRIAL_COLUMNS.items()
    )


def _images(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        "image_id",
        pl.format("b0.{}.{}.s{}", "cell_id", "prompt_id", "seed").alias("trial_id"),
        "cell_id",
        "variant",
        "prompt_id",
        "seed",
        "steps",
        file=pl.lit(""),
        sha256=pl.lit(None, pl.String),
    ).cast(pl.Schema(IMAGE_COLUMNS))


def _scores(frame: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    value = pl.col("value")
    absent = value.is_null() | ~value.is_finite()
    return (
        frame.select("image_id", "cell_id", "prompt_id", "seed", *(pl.col(_PREFIX + m).alias(m) for m in metrics))
        .unpivot(on=list(metrics), index=["image_id", "cell_id", "prompt_id", "seed"], variable_name="metric")
        .with_columns(reason_unscored=pl.when(absent).then(pl.lit("no number in the imported table")))
        .with_columns(value=pl.when(absent).then(None).otherwise(value))
        .select(list(SCORE_COLUMNS))
        .cast(pl.Schema(SCORE_COLUMNS))
    )


def _suite(table: Path, frame: pl.DataFrame, metrics: list[str]) -> Suite:
    arms = frame.group_by("variant", maintain_order=True).agg(
        pl.col("role", "policy", "family").first(), pl.col("steps").unique().sort()
    )
    return Suite(
        name=_name(table.stem),
        title=f"Imported from {table.name}",
        description="Measurements made elsewhere.",
        prompts=PromptSource(source="imported"),
        metrics=Metrics(primary=metrics[0], names=tuple(metrics)),
        protocol=Protocol(seeds=tuple(sorted(frame["seed"].unique()))),
        variants=tuple(
            Variant(
                name=row["variant"], model="imported", steps=tuple(row["steps"]), role=row["role"],
                policy=row["policy"] or "fixed", family=row["family"] or "",
            )
            for row in arms.iter_rows(named=True)
        ),
    )  # fmt: skip


def _name(text: str) -> str:
    """A name that suites accept: `SD 1.5` is written `SD_1.5`."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)[:64]
    return kept if kept[:1].isalnum() else f"x{kept}"[:64]


def _spec(name: str, lower: Sequence[str], fidelity: Sequence[str]) -> MetricSpec:
    return MetricSpec(
        name=name,
        direction="lower" if name in lower else "higher",
        track="fidelity" if name in fidelity else "absolute",
        needs_reference=name in fidelity,
        unit="",
        weights_digest="imported",
        licence="unknown",
        description="Imported.",
        advisory=False,
        bounds=(None, None),
    )


def _environment(table: Path, frame: pl.DataFrame) -> dict[str, Any]:
    devices = sorted(frame["device"].drop_nulls().unique())
    comparability = {"device": devices or "not stated", "meter": "imported"}
    key = hashlib.sha256(json.dumps(comparability, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "schema": SCHEMA,
        "perjoule": __version__,
        "suite": _name(table.stem),
        "imported_from": table.name,
        "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "meter": {"name": "imported", "why": f"read from {table.name}; perjoule did not measure this"},
        "models": {},
        "gpu": [],
        "packages": {},
        "comparability": comparability,
        "comparability_key": key,
        "fingerprint": key,
    }
