"""Converts a table of measurements made elsewhere into a run directory.

    variant                                       needed
    energy_j, quality:<metric>                    at least one of them; higher is better unless --lower names the metric
    prompt_id, seed                               one row per image; without prompts a row is a whole cell, and `n` is
                                                  the number of images in its mean
    role, policy, steps, duration_s, uncertainty_j, nfe_per_image, flops_per_image, provenance, boundary, family,
    prompt, category, challenge, device, model, batch_size, block    optional; block counts repeats of one image

Energies, uncertainties and durations are those of one image. Values that the table does not state are absent from the
run. A quality that a table repeats for all prompts of a cell is a single number, without an interval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from perjoule import __version__
from perjoule.files import write_json, write_json_lines, write_parquet
from perjoule.importing.arranging import SHOWN, arranged_rows, valid_name
from perjoule.importing.checking import checked_columns, metrics_of
from perjoule.importing.metric_specs import MetricFacts, spec_of
from perjoule.importing.reading import read_table
from perjoule.importing.run_tables import image_table, prompt_rows, score_table, suite_of, trial_table
from perjoule.runs.columns import SCHEMA
from perjoule.runs.directory import Run, load_run
from perjoule.runs.whole import require_creatable, whole_or_nothing
from perjoule.statistics.points import operating_points
from perjoule.suite.reading import IMPORTED, write_suite
from perjoule.types import MetricSpec, weakest
from perjoule.warnings import code_of


def import_table(
    table: Path,
    out: Path,
    *,
    lower: Sequence[str] = (),
    fidelity: Sequence[str] = (),
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> Run:
    """Create a run directory from a table.

    Args:
        table: A file in CSV, TSV, JSON, JSON lines or Parquet.
        out: Directory of the run; must be empty or not exist; see `perjoule.runs.whole`.
        lower: Metrics for which lower is better.
        fidelity: Full-reference metrics, compared only within one family.
        bounds: Smallest and largest possible value by metric. A quality at its bound may be the same for all prompts.

    Returns:
        The run. `environment["import_notes"]` describes conversions, skipped columns and missing statements.

    Raises:
        UsageError: The table is invalid; the message names file, row, column, value and remedy.
        OSError: The run cannot be written; the error names `out`.
    """
    require_creatable(out)
    facts = MetricFacts(lower=lower, fidelity=fidelity, bounds=bounds or {})
    foreign = read_table(table)
    metrics = metrics_of(foreign, facts)
    notes = [*foreign.notes]
    frame = arranged_rows(checked_columns(foreign, metrics, notes), foreign, notes)
    specs = {name: spec_of(name, facts, notes) for name in metrics}
    trials = trial_table(frame)
    _note_provenance(trials, notes)
    with whole_or_nothing(out) as folder:
        _write(folder, table, frame, trials, specs)
        # last, because this file makes the directory a run
        environment = _environment(table, frame)
        write_json(folder / "environment.json", environment)
        run = load_run(folder)
        points = operating_points(run)
        write_parquet(points, folder / "points.parquet")
        _note_cell_values(points, notes)
        write_json(folder / "environment.json", environment | {"import_notes": notes})
    return load_run(out)


def _write(
    folder: Path, table: Path, frame: pl.DataFrame, trials: pl.DataFrame, specs: Mapping[str, MetricSpec]
) -> None:
    write_suite(suite_of(table, frame, list(specs)), folder / "suite.toml")
    write_json_lines(folder / "prompts.jsonl", prompt_rows(frame))
    write_parquet(trials, folder / "trials.parquet")
    trials.with_columns(phases_s=pl.lit(None, pl.String)).write_ndjson(folder / "trials.jsonl")
    scored = frame.filter("is_scored")
    write_parquet(image_table(scored), folder / "images.parquet")
    write_parquet(score_table(scored, list(specs)), folder / "scores.parquet")
    write_json(folder / "metrics.json", {"schema": SCHEMA, "metrics": [asdict(specs[name]) for name in sorted(specs)]})


def _environment(table: Path, frame: pl.DataFrame) -> dict[str, Any]:
    devices = sorted(frame["device"].drop_nulls().unique())
    comparability = {"device": devices or "not stated", "meter": IMPORTED}
    key = hashlib.sha256(json.dumps(comparability, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "schema": SCHEMA,
        "perjoule": __version__,
        "suite": valid_name(table.stem),
        "imported_from": table.name,
        "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "meter": {"name": IMPORTED, "why": f"read from {table.name}; perjoule did not measure it"},
        "models": {},
        "gpu": [],
        "packages": {},
        "comparability": comparability,
        "comparability_key": key,
        "fingerprint": key,
    }


def _note_provenance(trials: pl.DataFrame, notes: list[str]) -> None:
    with_energy = trials.filter(pl.col("energy_j").is_not_null())
    unstated = with_energy.filter(pl.col("provenance") == "not stated")
    if len(unstated):
        notes.append(
            f"W280: the provenance of {len(unstated)} of {len(with_energy)} energies is not stated; add a column "
            "provenance (measured, estimated, simulated)"
        )
    mixed = with_energy.group_by("cell_id").agg(pl.col("provenance").unique().sort()).sort("cell_id")
    for row in mixed.filter(pl.col("provenance").list.len() > 1).iter_rows(named=True):
        notes.append(
            f"cell {row['cell_id']} mixes energies that are {', '.join(row['provenance'])}: together they count as "
            f"{weakest(row['provenance'])}"
        )


def _note_cell_values(points: pl.DataFrame, notes: list[str]) -> None:
    qualities = points.filter(code_of(pl.col("quality_method")) == "W281")
    for (metric,), part in qualities.group_by("metric", maintain_order=True):
        notes.append(
            f"W281: {metric} is a single value for the whole cell in {_some(part['cell_id'])}: no interval, no gate"
        )
    energy_cells = points.filter(code_of(pl.col("energy_method")) == "W281")["cell_id"].unique(maintain_order=True)
    if len(energy_cells):
        notes.append(
            f"W281: energy is a single value for the whole cell in {_some(energy_cells)}: no interval, no gate"
        )


def _some(cells: pl.Series) -> str:
    named = ", ".join(cells[:SHOWN])
    return f"{named} and {len(cells) - SHOWN} more" if len(cells) > SHOWN else named
