"""What a measurement took, and what half the intervals would take: the price of certainty.

Intervals over prompts shrink with the square root of their number, so half an interval needs four times the prompts:
three times the windows again. Joules that were counted repeat exactly, so more prompts shrink the interval of quality
alone. The meter's own bound does not shrink.
"""

from __future__ import annotations

import polars as pl

from perjoule.files import read_json_lines
from perjoule.runs.columns import FINISHED
from perjoule.runs.directory import Run, located
from perjoule.runs.stored import SUPERSEDED
from perjoule.types import weakest
from perjoule.types.price import TIMES, Halving, Price


def price_of(*runs: Run) -> Price | None:
    """Return the price of one or more runs together; None if a run was imported, as the price of a table is unknown.

    In a race only the cells that are still measured would get further prompts.
    """
    if any(run.is_imported for run in runs):
        return None
    spent = pl.concat([_spent(run) for run in runs])
    further = pl.concat([_still_measured(run) for run in runs])
    return Price(
        energy_j=_sum(spent["energy_j"]),
        duration_s=_sum(spent["duration_s"]),
        windows=len(spent),
        unmetered=spent["energy_j"].null_count(),
        provenance=weakest(spent.filter(pl.col("energy_j").is_not_null())["provenance"].fill_null("not stated")),
        halving=Halving(
            energy_j=_sum(further["energy_j"], TIMES - 1),
            duration_s=_sum(further["duration_s"], TIMES - 1),
            shrinks="quality" if all(run.is_counted for run in runs) else "energy and quality",
        ),
    )


_COLUMNS = {"energy_j": pl.Float64, "duration_s": pl.Float64, "provenance": pl.String}


def _spent(run: Run) -> pl.DataFrame:
    """Return all windows, also those of attempts that were repeated."""
    file = run.path / SUPERSEDED
    with located(file):
        rows = [{name: row.get(name) for name in _COLUMNS} for row in read_json_lines(file)]
        earlier = pl.DataFrame(rows, schema=_COLUMNS)
    windows = pl.concat([run.trials.select(list(_COLUMNS)), earlier])
    return windows.filter(pl.col("duration_s").is_not_null() | pl.col("energy_j").is_not_null())


def _still_measured(run: Run) -> pl.DataFrame:
    dropped = list(run.race.dropped) if run.race is not None else []
    return run.trials.filter(FINISHED & ~pl.col("cell_id").is_in(dropped)).select(list(_COLUMNS))


def _sum(values: pl.Series, times: float = 1) -> float | None:
    known = values.drop_nulls().to_list()
    return times * sum(known) if known else None
