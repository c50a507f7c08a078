"""What is known of a cell whatever the metric: its steps, its seconds, how its joules came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    finished = trials.filter(FINISHED)
    measured = FINISHED & pl.col("energy_j").is_not_null()
    means = {
        "nfe_mean": ("nfe_per_image", pl.col("nfe_per_image") * pl.col("image_count"), pl.col("image_count"), FINISHED),
        "flops_per_image": ("flops_per_image", pl.col("flops_per_image") * DRAWN, DRAWN, FINISHED),
        "duration_s_per_image": ("duration_s", pl.col("duration_s"), DRAWN, FINISHED & ~was_stopped()),
        # bounds of windows add up: an error common to all windows (gain, idle) does not average out
        "energy_bound_j_per_image": ("uncertainty_j", pl.col("uncertainty_j"), DRAWN, measured),
    }
    frame = trials.group_by("cell_id").agg(
        pl.col("variant", "role", "policy").first(),
        **{
            name: total.filter(where & pl.col(column).is_not_null()).sum()
            / weight.filter(where & pl.col(column).is_not_null()).sum()
            for name, (column, total, weight, where) in means.items()
            if trials[column].count()  # a filter in every cell takes long, and imported tables state few of them
        },
    )
    by_cell = {
        "steps": finished.select("cell_id", "steps").explode("steps").group_by("cell_id").agg(pl.col("steps").mean()),
        "stated_n": trials.filter(pl.col("prompt_ids").list.contains(WHOLE_CELL)).group_by("cell_id").agg(DRAWN.sum()),
        "seen": _kinds(trials.filter(measured), pl.col("provenance").fill_null("not stated")),
        "boundaries": _kinds(finished, pl.col("boundary")),
    }
    others = {name: dict(table.iter_rows()) for name, table in by_cell.items()}
    facts = {}
    for row in finite(frame).iter_rows(named=True):
        cell_id = row.pop("cell_id")
        stated: dict[str, Any] = {**dict.fromkeys(means), **row}
        facts[cell_id] = CellFacts(
            **stated,
            steps_mean=others["steps"].get(cell_id),
            stated_n=others["stated_n"].get(cell_id, 0),
            provenance=weakest(others["seen"].get(cell_id, ())),
            boundary=next(filter(None, others["boundaries"].get(cell_id, ())), None),
        )
    return facts


def _kinds(trials: pl.DataFrame, kind: pl.Expr) -> pl.DataFrame:
    """Return each cell's different values, sorted."""
    return trials.select("cell_id", kind.alias("kind")).unique().group_by("cell_id").agg(pl.col("kind").sort())


def finite(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with nulls for numbers that are NaN or infinite."""
    numbers = selectors.float()
    return table.with_columns(pl.when(numbers.is_finite()).then(numbers))
