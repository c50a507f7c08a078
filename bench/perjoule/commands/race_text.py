"""Races and their dropped cells in tables."""

from __future__ import annotations

from typing import Any

from perjoule.runs.directory import Run
from perjoule.statistics.records import Point


def raced(row: dict[str, Any], point: Point) -> dict[str, Any]:
    """Return the row of a cell of a race, with its number of prompts; a dropped cell has no place on the frontier."""
    place = {} if point.dropped is None or "frontier" not in row else {"frontier": "dropped"}
    return row | place | {"prompts": point.n_prompts}


def race_notes(run: Run) -> list[str]:
    """Return which cells a race dropped, and on which prompts they are compared."""
    if run.race is None or not run.race.dropped:
        return []
    cells = [f"  {cell.cell_id}: {cell.words}" for cell in run.race.dropped.values()]
    head = (
        f"Race by {run.race.metric}: {len(cells)} of {len(run.race.cells)} cells have fewer prompts. Each is compared "
        "with the others on its own prompts; the frontier is that of the other cells, on all prompts."
    )
    return ["\n".join([head, *cells])]
