"""Cells against one cell, prompt by prompt.

A prompt's difficulty is shared by all cells, so two cells are compared by their differences on the same prompts; the
intervals of single cells may overlap although the difference is clear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perjoule.errors import EvidenceError
from perjoule.statistics.benefit import Quadrants, quadrants
from perjoule.statistics.comparisons import Arm, Evidence
from perjoule.statistics.grid import CELL_VALUE
from perjoule.statistics.resampling import Array
from perjoule.types import Estimate

RATIO_METHOD = "ratio of mean J/image"
DIFFERENCE_METHOD = "mean paired difference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A cell against the anchor cell.

    Attributes:
        cell_id: The cell.
        anchor_cell_id: What it is compared with.
        energy_ratio: Cell over anchor.
        quality: Cell minus anchor, in units of the metric and on its own scale.
        quadrants: Shares of the resamples by sign of both; better is better, whichever way the metric points. None if
            one of the qualities is a cell value, or one of the energies that of a single window group.
    """

    cell_id: str
    anchor_cell_id: str
    energy_ratio: Estimate
    quality: Estimate
    quadrants: Quadrants | None


def contrasts(evidence: Evidence, anchor_cell_id: str) -> dict[str, Contrast]:
    """Every cell that may be compared with the anchor cell and shares a prompt with it, by cell id.

    Under a full-reference metric only the anchor's own family may be.
    """
    arms = {column: arm for arm in evidence.arms for column in arm.columns}
    at = {evidence.grid.cells[column]: column for column in arms}
    if anchor_cell_id not in at:
        return {}
    anchor = _one(arms, at[anchor_cell_id])
    stated = evidence.grid.is_cell_value(evidence.spec.name)
    by_cell = {}
    for cell, column in at.items():
        arm = _one(arms, column)
        if column == at[anchor_cell_id] or (evidence.spec.track == "fidelity" and arm.family != anchor.family):
            continue
        try:
            by_cell[cell] = _contrast(evidence, arm, anchor)
        except EvidenceError:  # no prompt was measured and scored in both
            continue
        made = by_cell[cell]
        if stated[column] or stated[at[anchor_cell_id]]:
            quality = replace(made.quality, low=None, high=None, method=CELL_VALUE)
            by_cell[cell] = replace(made, quality=quality, quadrants=None)
    return by_cell


def _one(arms: dict[int, Arm], column: int) -> Arm:
    return replace(arms[column], columns=(column,))


def _contrast(evidence: Evidence, arm: Arm, anchor: Arm) -> Contrast:
    paired = evidence.drawn(arm, anchor)
    means = paired.means  # columns: E and Q of the cell, E and Q of the anchor
    sign = evidence.spec.sign

    def ratio(rows: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(rows[:, 0] / rows[:, 2])

    return Contrast(
        cell_id=evidence.grid.cells[arm.columns[0]],
        anchor_cell_id=evidence.grid.cells[anchor.columns[0]],
        energy_ratio=means.estimate(ratio, what=RATIO_METHOD),
        quality=paired.by_prompt.estimate(lambda rows: sign * (rows[:, 0] - rows[:, 1]), what=DIFFERENCE_METHOD),
        quadrants=quadrants(means, (0, 1), (2, 3)),
    )
