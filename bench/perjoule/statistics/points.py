"""Operating points: what a cell costs and what it gives, each with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.columns import POINT_COLUMNS
from perjoule.run_directory import Run
from perjoule.statistics.pareto import non_dominated
from perjoule.statistics.resampling import bootstrap_weights, percentile_estimate, ratio_of_sums
from perjoule.types import Estimate

ENERGY_METHOD = "ratio of sums over windows; percentile bootstrap over prompt batches"
QUALITY_METHOD = "mean over prompts of the mean over seeds; percentile bootstrap over prompts"
# worst first: a cell is only as trustworthy as its least trustworthy trial
_PROVENANCE = ("simulated", "estimated", "measured")


def operating_points(run: Run) -> pl.DataFrame:
    """Cell × metric, with intervals and the frontier of each metric.

    Energy per image is Σ energy / Σ images over the windows of the cell that have a reading; quality is the mean over
    prompts of the mean over seeds. Intervals are 95 % percentile bootstrap intervals; all cells share the resampled
    prompts (and prompt batches), so that what the prompts have in common cancels between cells.

    Returns:
        A frame with the columns of `POINT_COLUMNS`. Absent numbers are null. A metric of the fidelity track compares
        with the family's own longest run, so its frontier is computed inside each family.
    """
    cells = [c for c in _cell_order(run) if c in set(run.trials["cell_id"])]
    families = {v.name: v.family or v.name for v in run.suite.variants}
    energy, energy_samples, trials = _energy(run, cells)
    rows: list[dict[str, Any]] = []
    for metric, spec in run.metrics.items():
        quality, quality_samples, counts = _quality(run, metric, cells)
        sign = 1.0 if spec.direction == "higher" else -1.0
        batch: list[dict[str, Any]] = []
        for index, cell in enumerate(cells):
            batch.append(
                trials[cell]
                | _spread("energy", energy[index], "energy_j_per_image")
                | _spread("quality", quality[index], "quality")
                | {
                    "cell_id": cell,
                    "family": families[trials[cell]["variant"]],
                    "metric": metric,
                    "direction": spec.direction,
                    "track": spec.track,
                    **counts[cell],
                }
            )
        groups = [row["family"] if spec.track == "fidelity" else "" for row in batch]
        for group in sorted(set(groups)):
            members = np.array([i for i, g in enumerate(groups) if g == group])
            point_e = np.array([_nan(energy[i].value) for i in members])
            point_q = sign * np.array([_nan(quality[i].value) for i in members])
            on = non_dominated(point_e, point_q)
            share = non_dominated(energy_samples[:, members], sign * quality_samples[:, members]).mean(0)
            for member, is_on, probability in zip(members, on, share, strict=True):
                known = np.isfinite(point_e).any() and np.isfinite(point_q).any()
                batch[member] |= {
                    "on_frontier": bool(is_on),
                    "p_on_frontier": float(probability) if known else None,
                }
        rows += batch
    return pl.DataFrame(rows, schema=POINT_COLUMNS)


def _cell_order(run: Run) -> list[str]:
    from perjoule.suite import cells_of

    return [cell.cell_id for cell in cells_of(run.suite)]


def _energy(run: Run, cells: list[str]) -> tuple[list[Estimate], NDArray[np.float64], dict[str, dict[str, Any]]]:
    """Energy per image of each cell. The unit of resampling is the prompt batch: joules are metered per batch."""
    frame = run.trials.filter(pl.col("failure").is_null()).with_columns(
        batch=pl.col("trial_id").str.split(".").list.last(),
        images=(pl.col("image_count") * pl.col("iterations")).cast(pl.Float64),
    )
    joules = _pivot(frame, "energy_j", cells)
    images = _pivot(frame, "images", cells)
    weights = bootstrap_weights(max(1, len(joules)))
    value, samples = ratio_of_sums(joules, images, weights)
    measured = np.isfinite(joules).sum(0)
    estimates = [
        percentile_estimate(value[i], samples[:, i], int(measured[i]), ENERGY_METHOD) for i in range(len(cells))
    ]
    return estimates, samples, {cell: _trial_facts(run, cell) for cell in cells}


def _trial_facts(run: Run, cell: str) -> dict[str, Any]:
    """What does not depend on the metric."""
    everything = run.trials.filter(pl.col("cell_id") == cell)
    good = everything.filter(pl.col("failure").is_null())
    first = everything.row(0, named=True)
    images = float((good["image_count"] * good["iterations"]).sum())
    seen = set(good.filter(pl.col("energy_j").is_not_null())["provenance"])
    bounded = good.filter(pl.col("uncertainty_j").is_not_null() & pl.col("energy_j").is_not_null())
    bounded_images = float((bounded["image_count"] * bounded["iterations"]).sum())
    steps = good["steps"].explode().mean()
    return {
        "variant": first["variant"],
        "role": first["role"],
        "policy": first["policy"],
        "steps_mean": float(steps) if isinstance(steps, int | float) else None,
        "nfe_mean": _weighted(good, "nfe_per_image"),
        "duration_s_per_image": float(good["duration_s"].sum()) / images if images else None,
        # bounds of windows add up: an error common to all windows (gain, idle) does not average out
        "energy_bound_j_per_image": float(bounded["uncertainty_j"].sum()) / bounded_images if bounded_images else None,
        "provenance": next((p for p in _PROVENANCE if p in seen), None),
        "boundary": next(iter(sorted(set(good["boundary"].drop_nulls()))), None),
    }


def _weighted(frame: pl.DataFrame, column: str) -> float | None:
    known = frame.filter(pl.col(column).is_not_null())
    total = float(known["image_count"].sum())
    return float((known[column] * known["image_count"]).sum()) / total if total else None


def _quality(
    run: Run, metric: str, cells: list[str]
) -> tuple[list[Estimate], NDArray[np.float64], dict[str, dict[str, Any]]]:
    scores = run.scores.filter(pl.col("metric") == metric)
    by_prompt = (
        scores.filter(pl.col("value").is_not_null())
        .group_by("prompt_id", "cell_id")
        .agg(pl.col("value").mean())
        .rename({"prompt_id": "batch"})
    )
    table = _pivot(by_prompt, "value", cells)
    weights = bootstrap_weights(max(1, len(table)))
    ones = np.where(np.isfinite(table), 1.0, np.nan)
    value, samples = ratio_of_sums(table, ones, weights)
    count = np.isfinite(table).sum(0)
    estimates = [percentile_estimate(value[i], samples[:, i], int(count[i]), QUALITY_METHOD) for i in range(len(cells))]
    per_cell = scores.group_by("cell_id").agg(
        n_prompts=pl.col("prompt_id").filter(pl.col("value").is_not_null()).n_unique(),
        n_seeds=pl.col("seed").filter(pl.col("value").is_not_null()).n_unique(),
        unscored_count=pl.col("value").null_count(),
    )
    facts = {row.pop("cell_id"): row for row in per_cell.to_dicts()}
    nothing = {"n_prompts": 0, "n_seeds": 0, "unscored_count": 0}
    return estimates, samples, {cell: facts.get(cell, nothing) for cell in cells}


def _pivot(frame: pl.DataFrame, column: str, cells: list[str]) -> NDArray[np.float64]:
    """Units × cells, summed over blocks; NaN where a unit is missing in a cell."""
    if frame.is_empty() or not cells:
        return np.full((0, len(cells)), np.nan)
    sums = frame.group_by("batch", "cell_id").agg(
        pl.when(pl.col(column).null_count() == 0).then(pl.col(column).sum()).alias(column)
    )
    wide = sums.pivot(on="cell_id", index="batch", values=column).sort("batch")
    columns = [wide[c].cast(pl.Float64).to_numpy() if c in wide.columns else np.full(len(wide), np.nan) for c in cells]
    return np.stack(columns, 1).astype(np.float64)


def _spread(prefix: str, estimate: Estimate, column: str) -> dict[str, Any]:
    return {
        column: estimate.value,
        f"{prefix}_low": estimate.low,
        f"{prefix}_high": estimate.high,
        f"{prefix}_n": estimate.n,
        f"{prefix}_method": estimate.method,
    }


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
