"""Operating points: what a cell costs and what it gives, each with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from perjoule.runs.columns import POINT_COLUMNS
from perjoule.runs.directory import WHOLE_CELL, Run
from perjoule.statistics.drawn import draw, drawn_once
from perjoule.statistics.facts import CellFacts
from perjoule.statistics.grid import CELL_VALUE, ENERGY, Draws, Grid, prompts_known
from perjoule.statistics.pareto import non_dominated
from perjoule.statistics.point_rows import PointRow, point_rows
from perjoule.statistics.raced import dropped_cells, prompt_places
from perjoule.statistics.resampling import ONE_GROUP, RESAMPLES, STUDENT_BELOW, Array, Means, resample_windows
from perjoule.types import Estimate, MetricSpec

ENERGY_METHOD = "mean over prompts of J/image"
QUALITY_METHOD = "mean over prompts of the mean over seeds"
_NO_COUNT = {"n_prompts": 0, "n_seeds": 0, "unscored_count": 0}


def operating_points(run: Run) -> pl.DataFrame:
    """Cell × metric, with intervals and the frontier of each metric.

    Energy is the mean over prompts of J/image, quality the mean over prompts of the mean over seeds. Intervals are 95 %
    intervals, of energy over window groups (`energy_n`), of quality over prompts (`quality_n`); all cells and metrics
    share the draws, so that what the prompts have in common cancels between cells.

    Returns:
        A frame with the columns of `POINT_COLUMNS`. In a race, each cell is compared with the cells that have its
        prompts too, on these prompts. Absent numbers are null. A metric of the fidelity track compares
        with the family's own longest run, so its frontier is computed inside each family. A run without any metric has
        one row per cell, with energy alone.
    """
    drawn = drawn_once(run)
    return points_of(run, drawn.grid, drawn.draws, drawn.facts)


def energy_points(run: Run, resamples: int = RESAMPLES) -> list[PointRow]:
    """One row per cell with its energy alone, from the finished trials: for runs without quality, or not scored yet.

    Raises:
        RunError: If a joule is not positive (names the trial), or the windows of a cell belong to different devices.
    """
    if run.windows.is_empty():
        return []
    drawn = draw(run, [], resamples)
    return point_rows(points_of(run, drawn.grid, drawn.draws, drawn.facts))


def known_points(run: Run) -> list[PointRow]:
    """Rows of the stored operating points; of a run that has none yet, those of `energy_points`.

    Raises:
        RunError: As `energy_points`, or if the table is damaged.
    """
    return point_rows(run.points) if run.has_points else energy_points(run)


def points_of(run: Run, grid: Grid, draws: Draws, facts: dict[str, CellFacts]) -> pl.DataFrame:
    """`operating_points` on arrays, draws and facts that are there already."""
    families, dropped = run.families, dropped_cells(run)
    energy = [
        cell_value(estimate, facts[cell]) if one else estimate
        for estimate, cell, one in zip(
            energy_estimates(grid, draws.energy), grid.cells, grid.is_cell_value(ENERGY), strict=True
        )
    ]
    common = [
        {name: value for name, value in asdict(facts[cell]).items() if name in POINT_COLUMNS}
        | _spread("energy", energy[i], "energy_j_per_image")
        | {"cell_id": cell, "family": families[facts[cell].variant], "dropped": dropped.get(cell)}
        for i, cell in enumerate(grid.cells)
    ]
    if not grid.quality:
        counts = _metered(run)
        rows = [row | {"on_frontier": False} | counts.get(row["cell_id"], _NO_COUNT) for row in common]
        return pl.DataFrame(rows, schema=POINT_COLUMNS)
    rows = []
    levels = tuple(_levels(run, grid, draws))
    for metric in (name for name in run.metrics if name in grid.quality):
        spec, alone = run.metrics[metric], draws.quality_alone(metric)
        known, single = prompts_known(grid.quality[metric]), grid.is_cell_value(metric)
        quality = [_column(alone, column, int(n), QUALITY_METHOD) for column, n in enumerate(known)]
        quality = [
            cell_value(estimate, facts[cell]) if one else estimate
            for estimate, cell, one in zip(quality, grid.cells, single, strict=True)
        ]
        counts = _scored(run, metric)
        groups = [families[facts[c].variant] if spec.track == "fidelity" else "" for c in grid.cells]
        on, chance = _frontier_by_level(levels, metric, spec, groups)
        # which cell of a group is best in a draw hangs on all of them, and of a cell value the draws know nothing
        unsure = {group for group, one in zip(groups, single, strict=True) if one}
        chance = np.where([group in unsure for group in groups], np.nan, chance)
        rows += [
            common[i]
            | _spread("quality", quality[i], "quality")
            | {
                "metric": metric,
                "direction": spec.direction,
                "track": spec.track,
                "on_frontier": bool(on[i]),
                "p_on_frontier": None if np.isnan(chance[i]) else float(chance[i]),
            }
            | counts.get(cell, _NO_COUNT)
            for i, cell in enumerate(grid.cells)
        ]
    return pl.DataFrame(rows, schema=POINT_COLUMNS)


def energy_estimates(grid: Grid, means: Means) -> list[Estimate]:
    """J/image of each cell, from draws of the cells' energies.

    A cell of one window group has no interval: its windows hold the same prompts, so nothing is known of the scatter
    between prompts. A cell is drawn by its own groups where those are finer than the common ones of all cells, or so
    few that they need draws of Student's t.
    """
    counts, common, estimates = grid.group_counts(), grid.common_groups(), []
    for column, n in enumerate(counts):
        known, draws, place = grid.energy_known[:, column], means, column
        few = n < STUDENT_BELOW and not means.student
        if n > 1 and (few or n != len(np.unique(common[known]))):
            own = grid.energy_j[..., [column]]
            draws = resample_windows(own, [0], grid.groups[:, [column]], resamples=len(means.resamples))
            place = 0
        estimate = _column(draws, place, int(n), ENERGY_METHOD)
        alone = n == 1 and known.sum() > 1
        estimates.append(replace(estimate, method=f"{ENERGY_METHOD}; {ONE_GROUP}") if alone else estimate)
    return estimates


def cell_value(estimate: Estimate, facts: CellFacts) -> Estimate:
    """A number that a table states for a whole cell: no interval, and as many images as the table states, or 1."""
    return replace(estimate, low=None, high=None, n=facts.stated_n or 1, method=CELL_VALUE)


def _column(means: Means, column: int, n: int, what: str) -> Estimate:
    return means.of([column]).estimate(lambda rows: rows[:, 0], what=what, n=n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Level:
    """Cells that are compared on common prompts: those that have all prompts of `judged`, whose frontier it decides."""

    columns: tuple[int, ...]
    judged: tuple[int, ...]
    draws: Draws


def _levels(run: Run, grid: Grid, draws: Draws) -> Iterator[_Level]:
    """One level for all cells; in a race one for each number of prompts that cells have."""
    race = run.race
    everything = tuple(range(len(grid.cells)))
    if race is None or not race.dropped:
        yield _Level(columns=everything, judged=everything, draws=draws)
        return
    counts = np.array([race.prompts_of(cell) for cell in grid.cells])
    for prompts in sorted(set(counts.tolist()), reverse=True):
        columns = np.flatnonzero(counts >= prompts).tolist()
        part = grid.of_prompts(prompt_places(run, grid, prompts)).of_cells(columns)
        yield _Level(
            columns=tuple(columns),
            judged=tuple(np.flatnonzero(counts == prompts).tolist()),
            draws=part.drawn(len(draws.joint.resamples)),
        )


def _frontier_by_level(
    levels: Sequence[_Level], metric: str, spec: MetricSpec, groups: list[str]
) -> tuple[Array | Any, Array]:
    """`_frontier`, each cell among the cells of its level."""
    on, chance = np.zeros(len(groups), bool), np.full(len(groups), np.nan)
    for level in levels:
        members = [groups[column] for column in level.columns]
        level_on, level_chance = _frontier(level.draws.energy, level.draws.quality(metric), spec, members)
        judged = np.isin(level.columns, level.judged)
        on[list(level.judged)] = level_on[judged]
        chance[list(level.judged)] = level_chance[judged]
    return on, chance


def _frontier(energy: Means, quality: Means, spec: MetricSpec, groups: list[str]) -> tuple[Array | Any, Array]:
    """Who is on the frontier of its group, and in which share of the resamples."""
    on, chance = np.zeros(len(groups), bool), np.full(len(groups), np.nan)
    sign = spec.sign
    for group in sorted(set(groups)):
        members = np.flatnonzero(np.array(groups) == group)
        point_e, point_q = energy.point[:, members], sign * quality.point[:, members]
        on[members] = non_dominated(point_e, point_q)[0]
        if len(energy.resamples) and np.isfinite(point_e).any() and np.isfinite(point_q).any():
            rows_e, rows_q = energy.resamples[:, members], sign * quality.resamples[:, members]
            # one window group or one scored prompt has no draws: it keeps its place, and no chance is known of it
            undrawn_e, undrawn_q = np.isnan(rows_e).all(0), np.isnan(rows_q).all(0)
            shares = non_dominated(np.where(undrawn_e, point_e, rows_e), np.where(undrawn_q, point_q, rows_q)).mean(0)
            chance[members] = np.where(undrawn_e | undrawn_q, np.nan, shares)
    return on, chance


def _scored(run: Run, metric: str) -> dict[str, dict[str, int]]:
    known = pl.col("value").is_not_null() & pl.col("value").is_finite()
    stated = known & (pl.col("prompt_id") != WHOLE_CELL)
    frame = (
        run.scores.filter(pl.col("metric") == metric)
        .group_by("cell_id")
        .agg(
            n_prompts=pl.col("prompt_id").filter(stated).n_unique(),
            n_seeds=pl.col("seed").filter(known).drop_nulls().n_unique(),
            unscored_count=(~known.fill_null(False)).sum(),
        )
    )
    return {row.pop("cell_id"): row for row in frame.to_dicts()}


def _metered(run: Run) -> dict[str, dict[str, int]]:
    """How many prompts and seeds have joules, by cell."""
    stated = pl.col("prompt_ids") != WHOLE_CELL
    frame = (
        run.trials.filter(pl.col("energy_j").is_not_null())
        .explode("prompt_ids", "seeds")
        .group_by("cell_id")
        .agg(
            n_prompts=pl.col("prompt_ids").filter(stated).n_unique(),
            n_seeds=pl.col("seeds").drop_nulls().n_unique(),
            unscored_count=pl.lit(0),
        )
    )
    return {row.pop("cell_id"): row for row in frame.to_dicts()}


def _spread(prefix: str, estimate: Estimate, column: str) -> dict[str, float | int | str | None]:
    return {
        column: estimate.value,
        f"{prefix}_low": estimate.low,
        f"{prefix}_high": estimate.high,
        f"{prefix}_n": estimate.n,
        f"{prefix}_method": estimate.method,
    }
