"""Recommends the operating point to deploy: the cheapest above a quality, or the best within an energy budget.

By default a cell meets the demand if it does so in at least 90 % of the bootstrap resamples. A point estimate just
above the demand would be below it in half of all repetitions.

Without a demand, the floor is that of the report: the quality of the longest run minus the metric's margin, or if it
has none what that run keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from perjoule.errors import EvidenceError, RunError, UnknownNameError, UsageError
from perjoule.gating.oddities import Oddity, left_out, oddities
from perjoule.runs.directory import Run
from perjoule.shares import below_one
from perjoule.statistics.facts import cell_facts
from perjoule.statistics.grid import ENERGY, read_grid
from perjoule.statistics.points import points_of
from perjoule.statistics.resampling import RESAMPLES, Array
from perjoule.statistics.safe import CONFIDENCE, anchor_worth, kept
from perjoule.suite.diffusers_code import diffusers_code, policy_code
from perjoule.suite.reading import cells_of
from perjoule.suite.smaller import planned_name
from perjoule.types import Direction, Provenance
from perjoule.types.documents import document

_TIE = 1e-12  # means of equal scores can differ in their last bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A cell to deploy, the shares of resamples in which it meets the demand and is chosen, and code to call it."""

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
    """Result of `recommend`.

    `left_out` are oddities in the joules, whose cells were not considered. `floor_from` says where `min_quality` comes
    from if nothing was asked for.
    """

    metric: str
    direction: Direction
    min_quality: float | None
    max_joules: float | None
    by: Literal["limit", "point"]
    confidence: float
    chosen: Choice | None
    safe: Choice | None
    point: Choice | None
    reason: str | None
    n_prompts: int
    n_window_groups: int
    left_out: tuple[Oddity, ...]
    floor_from: str | None = None


def recommend(
    run: Run,
    metric: str | None = None,
    *,
    min_quality: float | None = None,
    max_joules: float | None = None,
    family: str | None = None,
    by_point: bool = False,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Recommend the operating point to deploy.

    Args:
        run: A scored run.
        metric: Defaults to the suite's primary metric.
        min_quality: Choose the cheapest cell of at least this quality; without this and `max_joules`, of at least the
            quality of the longest run minus the metric's margin, or what that run keeps; see `anchor_worth`.
        max_joules: Choose the best cell of at most this many J/image.
        family: Only cells of this family; needed for a full-reference metric if the run has several.
        by_point: Judge cells by their point estimates alone.
        confidence: Share of the resamples in which a safe cell must meet the demand.
        resamples: Number of bootstrap resamples.

    Returns:
        `safe`: the best cell that meets the demand by its point estimate and in a share `confidence` of the resamples;
        `point`: the best whose point estimate does; `chosen`: one of the two, according to `by`. Ties are broken by
        the other axis. Each has `p_meets` (share of resamples in which it meets the demand) and `p_chosen` (in which
        it is the best such cell). `chosen` is None if no cell meets the demand; `reason` explains why.

    Raises:
        UsageError: If both `min_quality` and `max_joules` are given.
        EvidenceError: If full-reference scores of several models would be compared.
        RunError: If the run has no trial.
    """
    if min_quality is not None and max_joules is not None:
        raise UsageError("recommend: give one of --min-quality and --max-joules, not both")
    below_one(confidence, "recommend: confidence")
    name = metric or run.suite.metrics.primary
    if not name:
        raise EvidenceError(
            f"recommend: {run.path} was imported without quality scores: import a column quality:<metric>"
        )
    if name not in run.metrics:
        raise UnknownNameError("scored metric", name, set(run.metrics), str(run.path))
    spec = run.metrics[name]
    if run.trials.is_empty():
        raise RunError(f"{run.path} has no trials, so there is nothing to recommend")
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
    odd = tuple(oddity for oddity in oddities(run) if oddity.cells)
    suspected = left_out(odd)
    eligible = np.array([
        row["role"] != "control" and family in (None, row["family"]) and row["cell_id"] not in suspected
        and row["dropped"] is None
        for row in rows
    ])  # fmt: skip
    count, sign = len(rows), spec.sign
    alone = sign * draws.quality_alone(name).resamples  # quality alone depends on prompts, not on window groups
    keeps_quality = kept(sign * quality.point[0], alone, confidence)
    floor_from = None
    if min_quality is None and max_joules is None:
        longest = _anchor(rows, eligible, sign)
        if longest is None or not np.isfinite(keeps_quality[longest]):
            raise EvidenceError(
                "recommend: no cell has joules and resamples of quality, so there is no default floor: give "
                "--min-quality or --max-joules"
            )
        if spec.margin is None:
            min_quality = sign * float(keeps_quality[longest])
            floor_from = f"what the longest run, {rows[longest]['cell_id']}, keeps in {100 * confidence:g} %"
        else:
            min_quality = float(quality.point[0, longest]) - sign * spec.margin
            less = "less" if sign > 0 else "plus"
            floor_from = f"that of the longest run, {rows[longest]['cell_id']}, {less} the margin {spec.margin:g}"

    demand = {"min_quality": min_quality, "max_joules": max_joules}
    point_e, point_q = np.where(eligible, energy.point, np.nan), np.where(eligible, sign * quality.point, np.nan)
    meets = _meets(point_e, point_q, sign, **demand)
    best = int(_best(point_e, point_q, meets, min_quality is not None)[0])
    draws_e, draws_q = (
        np.where(eligible, energy.resamples, np.nan),
        np.where(eligible, sign * quality.resamples, np.nan),
    )
    drawn = _meets(draws_e, draws_q, sign, **demand)
    if min_quality is None:
        has_energy = np.isfinite(draws_e).all(0) if len(drawn) else np.zeros(count, bool)
        p_meets = np.where(has_energy, drawn.mean(0) if len(drawn) else 0.0, np.nan)
        keeps = kept(-point_e[0], -draws_e, confidence) >= -float(max_joules or 0)
    else:
        alone_meets = _meets(np.broadcast_to(point_e, alone.shape), alone, sign, **demand)
        p_meets = alone_meets.mean(0) if len(alone_meets) else np.full(count, np.nan)
        keeps = keeps_quality >= sign * min_quality
    stated = grid.is_cell_value(name) if max_joules is None else grid.is_cell_value(ENERGY)
    p_meets = np.where(stated, np.nan, p_meets)
    chosen_again = _best(draws_e, draws_q, drawn, min_quality is not None)
    # a cell without an interval, e.g. of a single prompt, has resamples that do not differ
    axis = "energy" if min_quality is None else "quality"
    bounded = np.array([[row[f"{axis}_low"] is not None and row[f"{axis}_high"] is not None for row in rows]])
    meets_surely = meets & bounded & ~stated & keeps
    safe = int(_best(point_e, point_q, meets_surely, min_quality is not None)[0])
    chosen = best if by_point else safe

    # one cell of unknown variation makes the choice probability of all cells unknown
    undrawn = np.isnan(draws_e).all(0) & np.isfinite(point_e[0])
    unknown_variation = ((grid.is_cell_value(name) | grid.is_cell_value(ENERGY)) & eligible) | undrawn

    def choice(index: int) -> Choice | None:
        if index < 0:
            return None
        values: dict[str, Any] = {field.name: rows[index].get(field.name) for field in fields(Choice)}
        values["p_meets"] = _share(p_meets[index])
        values["p_chosen"] = (
            _share((chosen_again == index).mean()) if len(chosen_again) and not unknown_variation.any() else None
        )
        values["call"] = _call(run, rows[index])
        return Choice(**values)

    recommendation = Recommendation(
        metric=name,
        direction=spec.direction,
        min_quality=min_quality,
        max_joules=max_joules,
        by="point" if by_point else "limit",
        confidence=confidence,
        chosen=choice(chosen),
        safe=choice(safe),
        point=choice(best),
        reason=None
        if chosen >= 0
        else _why_none(point_e, sign * point_q, demand, name, choice(best), confidence, suspected, floor_from),
        n_prompts=draws.by_prompt.n,
        n_window_groups=energy.n,
        left_out=odd,
        floor_from=floor_from,
    )
    return document(recommendation)


def _anchor(rows: list[dict[str, Any]], eligible: Any, sign: float) -> int | None:
    """Return the place of the cell that sets the floor, the anchor of the report; None without joules and scores."""
    known = [
        i for i, row in enumerate(rows) if eligible[i] and row["energy_j_per_image"] and row["quality"] is not None
    ]

    def worth(i: int) -> tuple[float, ...]:
        row = rows[i]
        return anchor_worth(row["role"], row["steps_mean"], sign * row["quality"], row["energy_j_per_image"])

    return max(known, key=worth, default=None)


def _meets(energy: Array, quality: Array, sign: float, min_quality: float | None, max_joules: float | None) -> Any:
    known = np.isfinite(energy) & np.isfinite(quality)
    with np.errstate(invalid="ignore"):
        good = quality >= sign * min_quality if min_quality is not None else energy <= float(max_joules or 0)
    return np.asarray(known & good)


def _best(energy: Array, quality: Array, meets: Array, cheapest: bool) -> Array:
    """Return the index of the best cell of each row, −1 if no cell meets the demand; the other axis breaks ties."""
    if not len(energy):
        return np.empty(0, int)
    first, second = (-energy, quality) if cheapest else (quality, -energy)
    value = np.where(meets, first, -np.inf)
    top = value.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        equal = meets & (value >= top - _TIE * np.maximum(1.0, np.abs(top)))
    return np.where(meets.any(1), np.where(equal, second, -np.inf).argmax(1), -1)


def _why_none(
    energy: Array,
    quality: Array,
    demand: dict[str, float | None],
    metric: str,
    by_point: Choice | None,
    confidence: float,
    suspected: frozenset[str],
    floor_from: str | None,
) -> str:
    """Return why no cell was chosen; `by_point` is the cell that the point estimates choose, if any."""
    if by_point is not None:
        origin = f" ({floor_from})" if floor_from else ""
        wanted = f"{metric} {demand['min_quality'] or 0.0:.4g}{origin}"
        low, high = by_point.quality_low, by_point.quality_high
        if demand["max_joules"] is not None:
            wanted, low, high = f"{demand['max_joules']:g} J", by_point.energy_low, by_point.energy_high
        sure = None if low is None or high is None else by_point.p_meets
        shown = "has no interval" if sure is None else f"in {sure:.1%} of them"
        return (
            f"no cell meets {wanted} in {100 * confidence:g} % of the resamples; {by_point.cell_id} does with its "
            f"point estimate and {shown}: measure more prompts, lower the demand, or accept the point estimate with "
            "--by-point"
        )
    if not np.isfinite(energy).any() or not np.isfinite(quality).any():
        others = f"; the oddities in {', '.join(sorted(suspected))} must be resolved first" if suspected else ""
        return f"no {'other ' if suspected else ''}cell has both joules and scores{others}"
    if demand["max_joules"] is not None:
        return f"no cell costs {demand['max_joules']:g} J/image or less; the cheapest costs {np.nanmin(energy):.4g} J"
    span = f"{np.nanmin(quality):.4g} and {np.nanmax(quality):.4g}"
    return f"no cell reaches {metric} {demand['min_quality']:g}: the values lie between {span}"


def _share(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _call(run: Run, row: dict[str, Any]) -> str | None:
    """Return code of the policy, or diffusers code of the variant's pipeline and the call."""
    variant = next((v for v in run.suite.variants if v.name == planned_name(row["variant"])), None)
    if variant is None or run.is_imported:
        return None
    cell = next((cell for cell in cells_of(run.suite) if cell.cell_id == planned_name(row["cell_id"])), None)
    own = None if cell is None else policy_code(cell)
    return own or diffusers_code(variant, row["steps_mean"] if row["role"] != "predicted" else None)
