"""Which operating point to deploy: the cheapest above a quality, or the best within a budget, and how sure that is.

By default a cell does what was asked if the limit of its 95 % interval does: the worse end of its quality, or the upper
end of its joules. A point estimate that lies just above a demand is below it in half of all repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from perjoule.errors import EvidenceError, RunError, UnknownNameError, UsageError
from perjoule.runs.directory import Run
from perjoule.statistics.facts import cell_facts
from perjoule.statistics.grid import ENERGY, read_grid
from perjoule.statistics.points import points_of
from perjoule.statistics.resampling import RESAMPLES, Array
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.types import Direction, Provenance
from perjoule.types.documents import document

_TIE = 1e-12  # means of equal scores differ in their last bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A cell that may be deployed; how often it does what was asked, and is the best that does; the code to call it."""

    cell_id: str
    variant: str
    policy: str | None
    steps_mean: float | None
    provenance: Provenance | None
    boundary: str | None
    duration_s_per_image: float | None
    energy_j_per_image: float | None
    energy_low: float | None
    energy_high: float | None
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    p_meets: float | None
    p_chosen: float | None
    call: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What `recommend` returns."""

    metric: str
    direction: Direction
    min_quality: float | None
    max_joules: float | None
    by: Literal["limit", "point"]
    chosen: Choice | None
    safe: Choice | None
    point: Choice | None
    reason: str | None
    n_prompts: int
    n_window_groups: int


def recommend(
    run: Run,
    metric: str | None = None,
    *,
    min_quality: float | None = None,
    max_joules: float | None = None,
    family: str | None = None,
    by_point: bool = False,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The operating point to deploy.

    Args:
        run: A scored run.
        metric: Defaults to the suite's primary metric.
        min_quality: Take the cheapest cell at least this good.
        max_joules: Take the best cell of at most so many J/image.
        family: Only cells of this family; needed for a full-reference metric if the run has several.
        by_point: Judge cells by their point estimates instead of the limits of their intervals.
        resamples: Bootstrap draws.

    Returns:
        `safe`: the best cell whose limit does what was asked; `point`: the best whose point estimate does; `chosen`:
        one of the two, by `by`. Of equally good cells the one with fewer joules is taken, of equally cheap ones the
        better. Each has `p_meets` (share of resamples in which it does what was asked) and `p_chosen` (in which it is
        the best such cell). `chosen` is None if no cell does what was asked, with the reason.

    Raises:
        UsageError: Unless exactly one of `min_quality` and `max_joules` is given.
        EvidenceError: If full-reference scores of several models would have to be compared.
        RunError: If the run has no trial.
    """
    if (min_quality is None) == (max_joules is None):
        raise UsageError("recommend: give either --min-quality or --max-joules")
    name = metric or run.suite.metrics.primary
    if not name:
        raise EvidenceError(f"recommend: {run.path} was imported without any quality: what its joules buy is not known")
    if name not in run.metrics:
        raise UnknownNameError("scored metric", name, set(run.metrics), str(run.path))
    spec = run.metrics[name]
    if run.trials.is_empty():
        raise RunError(f"{run.path} holds no trial: there is nothing to recommend")
    grid = read_grid(run, [name])
    draws = grid.drawn(resamples)
    energy, quality = draws.energy, draws.quality(name)
    rows = points_of(run, grid, draws, cell_facts(run.trials)).to_dicts()
    families = {row["family"] for row in rows}
    if family is not None and family not in families:
        raise UnknownNameError("family", family, families, str(run.path))
    if spec.track == "fidelity" and family is None and len(families) > 1:
        raise EvidenceError(
            f"{name} compares images of one model only, and the run has {len(families)}: give --family "
            f"({', '.join(sorted(families))}), or a metric of another track"
        )
    use = np.array([row["role"] != "control" and family in (None, row["family"]) for row in rows])
    count, sign = len(rows), spec.sign

    asked = {"min_quality": min_quality, "max_joules": max_joules}
    point_e, point_q = np.where(use, energy.point, np.nan), np.where(use, sign * quality.point, np.nan)
    meets = _meets(point_e, point_q, sign, **asked)
    best = int(_best(point_e, point_q, meets, min_quality is not None)[0])
    draws_e, draws_q = np.where(use, energy.resamples, np.nan), np.where(use, sign * quality.resamples, np.nan)
    drawn = _meets(draws_e, draws_q, sign, **asked)
    if min_quality is None:
        known = np.isfinite(draws_e).all(0) if len(drawn) else np.zeros(count, bool)
        p_meets = np.where(known, drawn.mean(0) if len(drawn) else 0.0, np.nan)
    else:  # a promise of quality alone rests on prompts
        alone = sign * draws.quality_alone(name).resamples
        kept = _meets(np.broadcast_to(point_e, alone.shape), alone, sign, **asked)
        p_meets = kept.mean(0) if len(kept) else np.full(count, np.nan)
    stated = grid.is_cell_value(name) if max_joules is None else grid.is_cell_value(ENERGY)
    p_meets = np.where(stated, np.nan, p_meets)
    again = _best(draws_e, draws_q, drawn, min_quality is not None)
    limit_e, limit_q = _limits(rows, sign)
    # the axis that nothing was asked of needs no limit: an energy of one window group has none
    if min_quality is None:
        surely = meets & _meets(limit_e, point_q, sign, **asked)
    else:
        surely = meets & _meets(point_e, sign * limit_q, sign, **asked)
    safe = int(_best(point_e, point_q, surely, min_quality is not None)[0])
    chosen = best if by_point else safe

    # one cell of unknown scatter leaves open how often any of them would be chosen
    undrawn = np.isnan(draws_e).all(0) & np.isfinite(point_e[0])
    unsure = ((grid.is_cell_value(name) | grid.is_cell_value(ENERGY)) & use) | undrawn

    def choice(index: int) -> Choice | None:
        if index < 0:
            return None
        own: dict[str, Any] = {field.name: rows[index].get(field.name) for field in fields(Choice)}
        own["p_meets"] = _share(p_meets[index])
        own["p_chosen"] = _share((again == index).mean()) if len(again) and not unsure.any() else None
        own["call"] = _call(run, rows[index])
        return Choice(**own)

    found = Recommendation(
        metric=name,
        direction=spec.direction,
        min_quality=min_quality,
        max_joules=max_joules,
        by="point" if by_point else "limit",
        chosen=choice(chosen),
        safe=choice(safe),
        point=choice(best),
        reason=None
        if chosen >= 0
        else _why_none(point_e, sign * point_q, asked, name, rows[best] if best >= 0 else None),
        n_prompts=draws.by_prompt.n,
        n_window_groups=energy.n,
    )
    return document(found)


def _limits(rows: list[dict[str, Any]], sign: float) -> tuple[Array, Array]:
    """The worse ends of the intervals, in the units of the run: (1, cells) each, NaN where there is none."""

    def column(name: str) -> Array:
        return np.array([[np.nan if row[name] is None else row[name] for row in rows]], dtype=np.float64)

    return column("energy_high"), column("quality_low" if sign > 0 else "quality_high")


def _meets(energy: Array, quality: Array, sign: float, min_quality: float | None, max_joules: float | None) -> Any:
    known = np.isfinite(energy) & np.isfinite(quality)
    with np.errstate(invalid="ignore"):
        good = quality >= sign * min_quality if min_quality is not None else energy <= float(max_joules or 0)
    return np.asarray(known & good)


def _best(energy: Array, quality: Array, meets: Array, cheapest: bool) -> Array:
    """Index of the best cell of each row, −1 where none will do; the other axis decides between equals."""
    if not len(energy):
        return np.empty(0, int)
    first, second = (-energy, quality) if cheapest else (quality, -energy)
    worth = np.where(meets, first, -np.inf)
    top = worth.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        equal = meets & (worth >= top - _TIE * np.maximum(1.0, np.abs(top)))
    return np.where(meets.any(1), np.where(equal, second, -np.inf).argmax(1), -1)


def _why_none(
    energy: Array,
    quality: Array,
    asked: dict[str, float | None],
    metric: str,
    by_point: dict[str, Any] | None,
) -> str:
    """Why no cell was chosen; `by_point` is the cell that the point estimates choose, if any."""
    if by_point is not None:
        wanted, value, axis = f"{metric} {asked['min_quality']}", by_point["quality"], "quality"
        if asked["max_joules"] is not None:
            wanted, value, axis = f"{asked['max_joules']:g} J", by_point["energy_j_per_image"], "energy"
        low, high = by_point[f"{axis}_low"], by_point[f"{axis}_high"]
        shown = "has no interval" if low is None or high is None else f"has {value:.4g} [{low:.4g}, {high:.4g}]"
        return (
            f"no cell keeps {wanted} with its whole 95 % interval; by its point estimate {by_point['cell_id']} does, "
            f"which {shown}: measure more prompts, ask for less, or take the point estimate with --by-point"
        )
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
