"""Cells against the anchor as the report needs them: arms, not ids; the meter's bound where nothing was drawn.

The differences themselves are those of `perjoule.statistics.contrasts`: paired by prompt, on one draw for all cells.
"""

from __future__ import annotations

from dataclasses import dataclass

from perjoule.statistics.benefit import Quadrants
from perjoule.statistics.contrasts import Contrast
from perjoule.types import Interval
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Arm, Axis, Evidence

LEAST_PROMPTS = 8  # with fewer, 95 % intervals hold far less often than they say


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """A cell against the anchor. `quality` is cell minus anchor; `energy_ratio` is cell over anchor.

    `by_bound`: the interval of the energies is the meter's own bound (or what an imported table states as uncertainty),
    since one window group gave nothing to draw from. `bound`: which of the two, in words.
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
        """True if the interval of the difference lies wholly on the bad side of zero, or is not known."""
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
        """The largest loss that the interval still allows, 0 if it allows none; None without an interval."""
        end = self.quality.low if axis.higher else self.quality.high
        if end is None:
            return None
        return max(0.0, -end if axis.higher else end)


def versus_anchor(evidence: Evidence, analysis: Analysis) -> dict[str, Versus]:
    """Every cell that can be compared with the anchor, by cell id."""
    by_id = {arm.cell_id: arm for arm in evidence.arms}
    anchor = by_id.get(analysis.anchor)
    if anchor is None:
        return {}
    alike = [
        (by_id[cell], contrast)
        for cell, contrast in analysis.contrasts.items()
        if cell in by_id and (by_id[cell].boundary, by_id[cell].provenance) == (anchor.boundary, anchor.provenance)
    ]
    return {arm.cell_id: _versus(arm, anchor, contrast) for arm, contrast in alike}


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
    """The ratio with the meter's bounds end against end: wider than any paired interval."""
    ends = [(a.energy.value, a.energy_bound_j) for a in (arm, anchor)]
    if any(not value or bound is None or bound >= value for value, bound in ends):
        return Interval(value=ratio)
    (e, de), (a, da) = ((value or 0.0, bound or 0.0) for value, bound in ends)
    return Interval(value=ratio, low=(e - de) / (a + da), high=(e + de) / (a - da))
