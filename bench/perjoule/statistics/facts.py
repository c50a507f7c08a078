"""What is known of a cell whatever the metric: its steps, its seconds, how its joules came about."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from polars import selectors

from perjoule.runs.columns import DRAWN, FINISHED
from perjoule.runs.directory import WHOLE_CELL
from perjoule.types import Provenance, Role, weakest
from perjoule.warnings import is_marked


def was_stopped() -> pl.Expr:
    """True for trials whose window stood still for a while (W251): its seconds are not the work's."""
    return is_marked("W251")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """What does not depend on the metric; fields that are columns of the operating points have their names.

    `stated_n`: how many images a table states for the whole cell; 0 where it states single images.
    """

    variant: str
    role: Role
    policy: str | None
    steps_mean: float | None
    nfe_mean: float | None
    flops_per_image: float | None
    duration_s_per_image: float | None
    energy_bound_j_per_image: float | None
    stated_n: int
    provenance: Provenance | None
    boundary: str | None


def cell_facts(trials: pl.DataFrame) -> dict[str, CellFacts]:
    """The facts of each cell."""
    measured = FINISHED & pl.col("energy_j").is_not_null()
    timed = FINISHED & ~was_stopped() & pl.col("duration_s").is_not_null()
    bounded = measured & pl.col("uncertainty_j").is_not_null()
    whole = pl.col("prompt_ids").list.contains(WHOLE_CELL)
    counted = FINISHED & pl.col("nfe_per_image").is_not_null()
    weight = pl.col("image_count").filter(counted)
    with_work = FINISHED & pl.col("flops_per_image").is_not_null()
    frame = trials.group_by("cell_id").agg(
        pl.col("variant", "role", "policy").first(),
        steps_mean=pl.col("steps").filter(FINISHED).explode().mean(),
        nfe_mean=(pl.col("nfe_per_image").filter(counted) * weight).sum() / weight.sum(),
        flops_per_image=(pl.col("flops_per_image") * DRAWN).filter(with_work).sum() / DRAWN.filter(with_work).sum(),
        duration_s_per_image=pl.col("duration_s").filter(timed).sum() / DRAWN.filter(timed).sum(),
        # bounds of windows add up: an error common to all windows (gain, idle) does not average out
        energy_bound_j_per_image=pl.col("uncertainty_j").filter(bounded).sum() / DRAWN.filter(bounded).sum(),
        seen=pl.col("provenance").filter(measured).fill_null("not stated").unique(),
        boundaries=pl.col("boundary").filter(FINISHED).unique().sort(),
        stated_n=DRAWN.filter(whole).sum(),
    )
    facts = {}
    for row in finite(frame).iter_rows(named=True):
        cell_id, seen, boundaries = (row.pop(name) for name in ("cell_id", "seen", "boundaries"))
        boundary = next(filter(None, boundaries), None)
        facts[cell_id] = CellFacts(**row, provenance=weakest(seen), boundary=boundary)
    return facts


def finite(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with nulls for numbers that are NaN or infinite."""
    numbers = selectors.float()
    return table.with_columns(pl.when(numbers.is_finite()).then(numbers))
