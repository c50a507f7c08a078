"""The frontier of a run as one record: what `perjoule frontier --json` prints."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from perjoule.errors import UnknownNameError
from perjoule.run_directory import Run
from perjoule.statistics.pareto import hypervolume
from perjoule.statistics.resampling import LEVEL

SCHEMA = 1


def frontier(run: Run, metric: str | None = None) -> dict[str, Any]:
    """Operating points of one metric, the cells no other cell beats, and the area they dominate.

    The hypervolume's reference point is twice the energy of the dearest cell and the quality of the worst.

    Args:
        run: A scored run.
        metric: Defaults to the suite's primary metric.

    Raises:
        UnknownNameError: If the run was not scored under `metric`.
    """
    name = metric or run.suite.metrics.primary
    points = run.points.filter(pl.col("metric") == name)
    if points.is_empty():
        raise UnknownNameError("scored metric", name, set(run.points["metric"]), str(run.path))
    rows = [_point(row) for row in points.iter_rows(named=True)]
    complete = points.filter(pl.col("energy_j_per_image").is_not_null() & pl.col("quality").is_not_null())
    return {
        "schema": SCHEMA,
        "suite": run.suite.name,
        "metric": name,
        "direction": points["direction"][0],
        "track": points["track"][0],
        "points": rows,
        "frontier": complete.filter("on_frontier").sort("energy_j_per_image")["cell_id"].to_list(),
        "hypervolume": _hypervolume(complete),
        "comparisons": [],
    }


def _hypervolume(points: pl.DataFrame) -> dict[str, Any] | None:
    if points.is_empty() or (points["energy_j_per_image"] <= 0).any():
        return None
    sign = 1.0 if points["direction"][0] == "higher" else -1.0
    energy = points["energy_j_per_image"].to_numpy()
    quality = sign * points["quality"].to_numpy()
    reference = (2 * float(energy.max()), float(quality.min()))
    value = hypervolume(energy, quality, reference)
    where = {"energy_j_per_image": reference[0], "quality": sign * reference[1]}
    return {"value": value, "reference": where, "unit": "quality × octave"} if np.isfinite(value) else None


def _point(row: dict[str, Any]) -> dict[str, Any]:
    keep = (
        "cell_id", "variant", "role", "policy", "family", "steps_mean", "nfe_mean", "duration_s_per_image",
        "n_prompts", "n_seeds", "unscored_count", "provenance", "boundary", "on_frontier", "p_on_frontier",
        "energy_bound_j_per_image",
    )  # fmt: skip
    return {k: row[k] for k in keep} | {
        "energy_j_per_image": _estimate(row, "energy_j_per_image", "energy"),
        "quality": _estimate(row, "quality", "quality"),
    }


def _estimate(row: dict[str, Any], value: str, prefix: str) -> dict[str, Any]:
    return {
        "value": row[value],
        "low": row[f"{prefix}_low"],
        "high": row[f"{prefix}_high"],
        "level": LEVEL,
        "n": row[f"{prefix}_n"],
        "method": row[f"{prefix}_method"],
    }
