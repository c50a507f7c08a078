"""Cells of the policy `router` in a run, as measured: the replay can be compared with them."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from perjoule.runs.directory import Run
from perjoule.statistics.grid import read_grid
from perjoule.statistics.mixtures import cheapest_mixture
from perjoule.statistics.resampling import RESAMPLES, Array, over_seeds, resample_means, resample_windows
from perjoule_suites.router.arms import ArmScores
from perjoule_suites.router.records import RoutedCell

PHASE, SWITCH = "predictor", "switch"  # of the decision, as in other step policies; and of loading a model


def phase_share(trials: pl.DataFrame, phase: str) -> float | None:
    """Return the share of the windows' time that a phase takes; None if no window has phases."""
    known = [json.loads(phases) for phases in trials["phases_s"]]
    if not any(known):
        return None
    spent_s = float(sum(phases.get(phase, 0.0) for phases in known))
    return spent_s / float((trials["duration_s"] / trials["iterations"]).sum())


def routed_cells(run: Run, scores: ArmScores, resamples: int = RESAMPLES) -> tuple[RoutedCell, ...]:
    """Return each cell of the policy `router` with its saving against mixtures of the fixed arms of equal quality.

    Args:
        run: The run.
        scores: Its fixed arms.
        resamples: Bootstrap draws.
    """
    windows = run.windows.filter((pl.col("policy") == "router") & pl.col("energy_j").is_not_null())
    if windows.is_empty():
        return ()
    grid = read_grid(run, (scores.metric,))
    arms = [grid.cells.index(arm.cell_id) for arm in scores.arms]
    count = len(arms) + 1

    def saving(rows: Array) -> Array:
        energy_j, quality = rows[:, :count], rows[:, count:]
        mixture_j = cheapest_mixture(energy_j[:, :-1], quality[:, :-1], quality[:, -1:])[:, 0]
        return np.where(np.isfinite(mixture_j), 1 - energy_j[:, -1] / mixture_j, np.inf)

    cells = []
    for cell_id in sorted(windows["cell_id"].unique()):
        columns = [*arms, grid.cells.index(cell_id)]
        known = np.flatnonzero(np.isfinite(over_seeds(grid.quality[scores.metric][:, :, columns])).all(1))
        if not len(known):  # nobody was asked about its images
            continue
        part = grid.of_prompts(known)
        values = np.concatenate([part.energy_j[:, :, columns], part.quality[scores.metric][:, :, columns]], axis=2)
        means = (
            resample_means(values, resamples=resamples)
            if run.is_counted
            else resample_windows(values, range(count), part.groups[:, columns], resamples=resamples)
        )
        if scores.metric in grid.common_errors:
            means = means.plus(grid.common_errors[scores.metric][:, columns], slice(count, None))
        own = windows.filter(pl.col("cell_id") == cell_id)
        cells.append(
            RoutedCell(
                cell_id=cell_id,
                energy_j_per_image=float(means.point[0, count - 1]),
                quality=float(means.point[0, -1]),
                saving=means.estimate(saving, what="1 − E/E of the cheapest mixture of fixed arms at equal quality"),
                decision_share=phase_share(own, PHASE),
                switch_share=phase_share(own, SWITCH),
            )
        )
    return tuple(cells)
