"""Comparisons of cells with the anchor for the report: arms instead of ids; the meter's bound if nothing was drawn.

The differences come from `perjoule.statistics.contrasts`: paired by prompt, with the same draws for all cells.
"""

from __future__ import annotations

from dataclasses import dataclass

from perjoule.statistics.benefit import Quadrants
from perjoule.statistics.contrasts import Contrast
from perjoule.types import Interval
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Arm, Axis, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """A cell compared with the anchor. `quality` is cell minus anchor; `energy_ratio` is cell over anchor.

    `by_bound`: the interval of the energies is the meter's own bound (or the uncertainty stated in an imported table),
    because a single window group cannot be resampled. `bound`: which of the two, in words.
    """

    arm: Arm
    anchor: Arm
    quality: Interval
    energy_ratio: Interval
    by_bound: bool
    bound: str
    prompt_count: int
    quadrants: Quadrants | None

    @property
    def cheaper(self) -> bool:
        """True if the interval of the energies lies wholly below the anchor."""
        return self.energy_ratio.high is not None and self.energy_ratio.high < 1

    def worse(self, axis: Axis) -> bool:
        """True if the interval of the difference lies wholly on the bad side of zero, or is unknown."""
        low, high = self.quality.low, self.quality.high
        if low is None or high is None:
            return True
        return high < 0 if axis.higher else low > 0

    def better(self, axis: Axis) -> bool:
        """True if the interval of the difference lies wholly on the good side of zero."""
        low, high = self.quality.low, self.quality.high
        if low is None or high is None:
            return False
        return low > 0 if axis.higher else high < 0

    def allowed_loss(self, axis: Axis) -> float | None:
        """Return the largest loss that the interval includes, 0 if it excludes any loss; None without an interval."""
        end = self.quality.low if axis.higher else self.quality.high
        if end is None:
            return None
        return max(0.0, -end if axis.higher else end)


def versus_anchor(evidence: Evidence, analysis: Analysis) -> dict[str, Versus]:
    """Compare every comparable cell with the anchor, by cell id."""
    by_id = {arm.cell_id: arm for arm in evidence.arms}
    anchor = by_id.get(analysis.anchor)
    if anchor is None:
        return {}
    comparable = [
        (by_id[cell], contrast)
        for cell, contrast in analysis.contrasts.items()
        if cell in by_id and (by_id[cell].boundary, by_id[cell].provenance) == (anchor.boundary, anchor.provenance)
    ]
    return {arm.cell_id: _versus(arm, anchor, contrast) for arm, contrast in comparable}


def _versus(arm: Arm, anchor: Arm, contrast: Contrast) -> Versus:
    ratio: Interval = contrast.energy_ratio
    by_bound = ratio.value is not None and not ratio.bounded
    if by_bound:
        ratio = _by_bounds(ratio.value or 0.0, arm, anchor)
    return Versus(
        arm=arm,
        anchor=anchor,
        quality=contrast.quality,
        energy_ratio=ratio,
        by_bound=by_bound,
        bound="the uncertainty that the table states" if arm.energy_is_stated else "the meter's own bound",
        prompt_count=contrast.quality.n,
        quadrants=contrast.quadrants,
    )


def _by_bounds(ratio: float, arm: Arm, anchor: Arm) -> Interval:
    """Return the ratio with the worst case of the meter's bounds: wider than any paired interval."""
    ends = [(a.energy.value, a.energy_bound_j) for a in (arm, anchor)]
    if any(not value or bound is None or bound >= value for value, bound in ends):
        return Interval(value=ratio)
    (e, de), (a, da) = ((value or 0.0, bound or 0.0) for value, bound in ends)
    return Interval(value=ratio, low=(e - de) / (a + da), high=(e + de) / (a - da))
