"""JOD per kilojoule, as observers see it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from perjoule.runs.directory import Run
from perjoule.statistics.benefit import gain_per_joule
from perjoule.statistics.drawn import drawn_once
from perjoule.statistics.grid import CELL_VALUE, ENERGY
from perjoule.types import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Gain of a cell over the cheapest cell of the study.

    Attributes:
        cell_id: The cell.
        over: The cheapest cell.
        jod_per_kj: Difference of the scores per kilojoule; the value is None if the joules do not differ clearly.
        reason: Why it is None.
    """

    cell_id: str
    over: str
    jod_per_kj: Estimate
    reason: str | None


def gains(run: Run, metric: str, cells: Collection[str]) -> tuple[Gain, ...]:
    """Compare each of some cells with the cheapest of them, on the draws of the frontier; cheapest first."""
    drawn = drawn_once(run)
    grid, draws = drawn.grid, drawn.draws
    energy = draws.energy.point[0]
    known = [i for i, cell in enumerate(grid.cells) if cell in cells and np.isfinite(energy[i])]
    known.sort(key=lambda place: float(energy[place]))
    stated = grid.is_cell_value(ENERGY)
    made = []
    for place in known[1:]:
        gain, reason = gain_per_joule(draws.paired(metric, [known[0]], [place]), (2, 3), (0, 1))
        value, low, high = (None if end is None else 1000 * end for end in (gain.value, gain.low, gain.high))
        method = gain.method
        if stated[place] or stated[known[0]]:
            low, high, method = None, None, CELL_VALUE
        made.append(
            Gain(
                cell_id=grid.cells[place],
                over=grid.cells[known[0]],
                jod_per_kj=replace(gain, value=value, low=low, high=high, method=method),
                reason=reason,
            )
        )
    return tuple(made)
