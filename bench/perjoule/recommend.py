"""Which operating point to deploy: the cheapest above a quality, or the best within a budget, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np

from perjoule.diffusers_code import diffusers_code
from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.run_directory import Run
from perjoule.statistics.grid import read_grid
from perjoule.statistics.points import cell_facts, points_of, sign_of
from perjoule.statistics.resampling import RESAMPLES, Array

SCHEMA = 1
SURE = 0.95


def recommend(
    run: Run,
    metric: str | None = None,
    *,
    min_quality: float | None = None,
    max_joules: float | None = None,
    family: str | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The operating point to deploy.

    Args:
        run: A scored run.
        metric: Defaults to the suite's primary metric.
        min_quality: Take the cheapest cell at least this good.
        max_joules: Take the best cell of at most so many J/image.
        family: Only cells of this family; needed for a full-reference metric if the run has several.
        resamples: Bootstrap draws.

    Returns:
        The choice with `p_meets` (share of resamples in which it keeps what was asked) and `p_chosen` (in which it
        would be chosen again), and `safe`: the best cell that keeps it in 95 % of them. `chosen` is None if no cell
        does what was asked, with the reason.

    Raises:
        UsageError: Unless exactly one of `min_quality` and `max_joules` is given.
        EvidenceError: If full-reference scores of several models would have to be compared.
    """
    if (min_quality is None) == (max_joules is None):
        raise UsageError("recommend: give either --min-quality or --max-joules")
    name = metric or run.suite.metrics.primary
    if not name:
        raise EvidenceError(f"recommend: {run.path} was imported without any quality: what its joules buy is not known")
    if name not in run.metrics:
        raise UnknownNameError("scored metric", name, set(run.metrics), str(run.path))
    spec = run.metrics[name]
    grid = read_grid(run, [name])
    means = grid.resampled(resamples)
    rows = points_of(run, grid, means, cell_facts(run.trials)).to_dicts()
    families = {row["family"] for row in rows}
    if family is not None and family not in families:
        raise UnknownNameError("family", family, families, str(run.path))
    if spec.track == "fidelity" and family is None and len(families) > 1:
        raise EvidenceError(
            f"{name} compares images of one model only, and the run has {len(families)}: give --family "
            f"({', '.join(sorted(families))}), or a metric of another track"
        )
    use = np.array([row["role"] != "control" and family in (None, row["family"]) for row in rows])
    count, sign = len(rows), sign_of(spec)

    def split(values: Array) -> tuple[Array, Array]:
        return (
            np.where(use, values[:, :count], np.nan),
            np.where(use, sign * values[:, count:], np.nan),
        )

    asked = {"min_quality": min_quality, "max_joules": max_joules}
    point_e, point_q = split(means.point)
    meets = _meets(point_e, point_q, sign, **asked)
    best = _best(point_e, point_q, meets, min_quality is not None)[0]
    draws_e, draws_q = split(means.resamples)
    drawn = _meets(draws_e, draws_q, sign, **asked)
    p_meets = drawn.mean(0) if len(drawn) else np.full(count, np.nan)
    stated = grid.is_cell_value(name) if max_joules is None else grid.energy_is_shared & run.is_imported
    p_meets = np.where(stated, np.nan, p_meets)
    again = _best(draws_e, draws_q, drawn, min_quality is not None)
    safe = _best(point_e, point_q, meets & (p_meets >= SURE), min_quality is not None)[0]

    # one cell of unknown scatter leaves open how often any of them would be chosen
    unsure = (grid.is_cell_value(name) | (grid.energy_is_shared & run.is_imported)) & use

    def choice(index: int) -> dict[str, Any] | None:
        if index < 0:
            return None
        row = rows[index]
        keep = ("cell_id", "variant", "policy", "steps_mean", "provenance", "boundary", "duration_s_per_image")
        return {k: row[k] for k in keep} | {
            "energy_j_per_image": row["energy_j_per_image"],
            "energy_low": row["energy_low"],
            "energy_high": row["energy_high"],
            "quality": row["quality"],
            "quality_low": row["quality_low"],
            "quality_high": row["quality_high"],
            "p_meets": _share(p_meets[index]),
            "p_chosen": _share((again == index).mean()) if len(again) and not unsure.any() else None,
            "call": _call(run, row),
        }

    return {
        "schema": SCHEMA,
        "metric": name,
        "direction": spec.direction,
        **asked,
        "chosen": choice(int(best)),
        "safe": choice(int(safe)),
        "reason": None if best >= 0 else _why_none(point_e, sign * point_q, asked, name),
        "n_prompts": means.n,
    }


def _meets(energy: Array, quality: Array, sign: float, min_quality: float | None, max_joules: float | None) -> Any:
    known = np.isfinite(energy) & np.isfinite(quality)
    with np.errstate(invalid="ignore"):
        good = quality >= sign * min_quality if min_quality is not None else energy <= float(max_joules or 0)
    return np.asarray(known & good)


def _best(energy: Array, quality: Array, meets: Array, cheapest: bool) -> Array:
    """Index of the best cell of each row, −1 where none will do."""
    if not len(energy):
        return np.empty(0, int)
    worth = np.where(meets, -energy if cheapest else quality, -np.inf)
    return np.where(meets.any(1), worth.argmax(1), -1)


def _why_none(energy: Array, quality: Array, asked: dict[str, float | None], metric: str) -> str:
    if not np.isfinite(energy).any() or not np.isfinite(quality).any():
        return "no cell has both joules and scores"
    if asked["max_joules"] is not None:
        return f"no cell costs {asked['max_joules']:g} J/image or less; the cheapest costs {np.nanmin(energy):.4g}"
    span = f"{np.nanmin(quality):.4g} and {np.nanmax(quality):.4g}"
    return f"no cell reaches {metric} {asked['min_quality']:g}: they lie between {span}"


def _share(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _call(run: Run, row: dict[str, Any]) -> str | None:
    """What to paste: the pipeline of the variant, and the call."""
    variant = next((v for v in run.suite.variants if v.name == row["variant"]), None)
    if variant is None or run.is_imported:
        return None
    return diffusers_code(variant, row["steps_mean"] if row["role"] != "predicted" else None)
