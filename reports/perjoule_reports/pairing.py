"""A cell against the anchor, prompt by prompt.

A prompt's difficulty is shared by all cells, so two cells are compared by their differences on the same prompts; the
intervals of single cells may overlap although the difference is clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perjoule.statistics.resampling import METHOD as BOOTSTRAP
from perjoule.statistics.resampling import resample_means
from perjoule_reports.evidence import Arm, Axis
from perjoule_reports.format import Interval
from perjoule_reports.records import RunData

METHOD = f"paired differences of prompt means over seeds; {BOOTSTRAP}, 95 %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A cell against the anchor. `quality` is cell minus anchor; `energy_ratio` is cell over anchor."""

    arm: Arm
    anchor: Arm
    quality: Interval
    energy_ratio: Interval
    prompt_count: int


def contrast(run: RunData, axis: Axis, arm: Arm, anchor: Arm) -> Contrast | None:
    """Compare a cell with the anchor over the prompts that both have scores for; None if there are fewer than 2."""
    if not {"cell_id", "prompt_id", "metric", "value"} <= set(run.scores.columns):
        return None
    means = (
        run.scores.filter(
            (pl.col("metric") == axis.name)
            & pl.col("cell_id").is_in([arm.cell_id, anchor.cell_id])
            & pl.col("value").is_finite()
        )
        .group_by("cell_id", "prompt_id")
        .agg(pl.col("value").mean())
        .to_dicts()
    )
    by_cell: dict[str, dict[str, float]] = {arm.cell_id: {}, anchor.cell_id: {}}
    for row in means:
        by_cell[row["cell_id"]][row["prompt_id"]] = row["value"]
    shared = sorted(by_cell[arm.cell_id].keys() & by_cell[anchor.cell_id].keys())
    if len(shared) < 2:
        return None
    differences = [by_cell[arm.cell_id][p] - by_cell[anchor.cell_id][p] for p in shared]
    return Contrast(
        arm=arm,
        anchor=anchor,
        quality=_bootstrap(differences),
        energy_ratio=_ratio(_span(arm), _span(anchor)),
        prompt_count=len(shared),
    )


def _bootstrap(values: list[float]) -> Interval:
    means = resample_means(np.array(values)[:, None, None])
    found = means.estimate(lambda rows: rows[:, 0])
    return Interval(value=found.value, low=found.low, high=found.high)


def _span(arm: Arm) -> Interval:
    """Return the energy with its interval, or, where one batch gave none, with the bound on the meter's error."""
    value, bound = arm.energy.value, arm.energy_bound_j
    if arm.energy.bounded or value is None or bound is None:
        return arm.energy
    return Interval(value=value, low=value - bound, high=value + bound)


def _ratio(a: Interval, b: Interval) -> Interval:
    """Divide two intervals end against end: wider than a paired interval, never narrower."""
    if not a.value or not b.value:
        return Interval()
    if not (a.bounded and b.bounded) or min(a.low or 0, b.low or 0) <= 0:
        return Interval(value=a.value / b.value)
    return Interval(value=a.value / b.value, low=(a.low or 0) / (b.high or 1), high=(a.high or 0) / (b.low or 1))
