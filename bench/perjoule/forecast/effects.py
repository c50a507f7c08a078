"""The minimal detectable effect of a run that has not been made: can so many prompts answer the question at all?

    MDE = (z_{1−α} + z_{0.8}) · s_d / √n

s_d is the standard deviation over prompts of the paired difference between two cells. An earlier run
gives it (neighbouring cells are compared); without one the effect is stated in units of s_d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from perjoule.forecast.records import Effect
from perjoule.gating.pairing import energy_by_unit, quality_by_prompt
from perjoule.runs.directory import Run
from perjoule.statistics.detectable import minimal_detectable_effect
from perjoule.statistics.grid import cell_order
from perjoule.statistics.lines import Array
from perjoule.statistics.window_groups import linked
from perjoule.text import listed
from perjoule.types import Assignment

ALPHA = 0.05
# fewer say next to nothing of a scatter
LEAST_UNITS = 8
_EQUAL = 1e-12


def effects(plan: Sequence[Assignment], metrics: Sequence[str], run: Run | None) -> list[Effect]:
    """One for energy and one for each metric; `run` gives the scatter."""
    first = plan[0].cell.cell_id
    windows = [[p.prompt_id for p in a.prompts] for a in plan if a.cell.cell_id == first]
    prompts = {p.prompt_id for a in plan for p in a.prompts}
    effects = [_effect("energy", "relative", _group_count(windows), _energy_sd(run) if run else None, run)]
    for metric in metrics:
        spec = run.metrics.get(metric) if run else None
        sd = _quality_sd(run, metric) if run and spec else None
        effects.append(_effect(metric, spec.unit if spec else "of the metric", len(prompts), sd, run))
    return effects


def _group_count(windows: Sequence[Sequence[str]]) -> int:
    """How many window groups a plan has."""
    place = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for window in windows for prompt in window))}
    pairs = np.array([(place[prompt], place[window[0]]) for window in windows for prompt in window], np.intp)
    return len(np.unique(linked(len(place), pairs[:, 0], pairs[:, 1])))


def _effect(axis: str, unit: str, n: int, sd: float | None, run: Run | None) -> Effect:
    if n < 2:
        reason = "2 prompts are the least"
        if axis == "energy":
            reason = "all prompts share one window group: at least 2 groups, so fewer images per window, are needed"
        return Effect(axis=axis, unit=unit, n=n, mde=None, mde_in_sd=None, reason=reason)
    in_sd = minimal_detectable_effect(1 / math.sqrt(n), ALPHA)
    if not sd:
        return Effect(axis=axis, unit=unit, n=n, mde=None, mde_in_sd=in_sd, reason=_no_scatter(axis, sd, run))
    mde = in_sd * sd
    return Effect(
        axis=axis,
        unit=unit,
        n=n,
        mde=math.expm1(mde) if axis == "energy" else mde,
        mde_in_sd=in_sd,
        sd=sd,
        source=f"scatter between neighbouring cells of {run.path}{_imported(run)}" if run else "",
    )


def _no_scatter(axis: str, sd: float | None, run: Run | None) -> str:
    """Why there is no standard deviation; a standard deviation of 0 is not a scatter to plan with."""
    if run is None:
        return "the scatter is not known: --from a scored run of these variants"
    if axis == "energy" and run.is_imported:
        return f"{run.path} was imported: its rows are images, not windows"
    if axis != "energy" and axis not in run.metrics:
        return f"{run.path} has no scores of {axis}: scored are {listed(sorted(run.metrics)) or 'none'}"
    if sd == 0:
        return f"{run.path}: neighbouring cells differ by the same amount for every prompt"
    return f"{run.path} has no two cells of a variant with {LEAST_UNITS} prompts or windows in common"


def _imported(run: Run) -> str:
    return " (imported; its scale is taken to be that of the metric here)" if run.is_imported else ""


def _energy_sd(run: Run) -> float | None:
    """Differences of ln E between neighbouring cells, per window group."""
    if run.is_imported:
        return None
    frame = energy_by_unit(run).filter(pl.col("energy") > 0)
    return _pooled(run, frame.with_columns(value=pl.col("energy").log()))


def _quality_sd(run: Run, metric: str) -> float | None:
    """Differences of the metric between neighbouring cells, per prompt."""
    return _pooled(run, quality_by_prompt(run, metric))


def _pooled(run: Run, frame: pl.DataFrame) -> float | None:
    """Root mean square over pairs of neighbours of the standard deviation of their differences; None without pairs."""
    variances = [_variance(d) for d in _differences(run, frame) if len(d) >= LEAST_UNITS]
    return math.sqrt(sum(variances) / len(variances)) if variances else None


def _variance(values: Array) -> float:
    """0 for equal values, whose last bits may differ."""
    return 0.0 if np.ptp(values) <= _EQUAL * max(1.0, float(np.abs(values).max())) else float(values.var(ddof=1))


def _differences(run: Run, frame: pl.DataFrame) -> Iterator[Array]:
    variants = dict(run.trials.select("cell_id", "variant").unique().iter_rows())
    for one, other in pairwise(cell_order(run)):
        if variants[one] == variants[other]:
            left, right = (frame.filter(pl.col("cell_id") == cell).select("unit", "value") for cell in (one, other))
            both = left.join(right, on="unit", suffix="_other", maintain_order="left").drop_nulls()
            yield np.asarray((both["value_other"] - both["value"]).to_numpy(), np.float64)
