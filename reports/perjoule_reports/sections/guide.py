"""What every section says about itself: how many units, which intervals, what would change the conclusion."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Evidence
from perjoule_reports.trust import counted

BOOTSTRAP = (
    "95 % intervals from 10 000 paired draws, one draw for all cells and metrics: of prompts, each with all its seeds, "
    "for quality; of window groups, the prompts that share energy windows, for whatever holds energy. BCa bootstrap; "
    "Student's t for fewer than 25 window groups. They cover the choice of prompts and the scatter of windows, not "
    "other machines, other days or a constant error of the meter."
)
_OF_A_TABLE = (
    "95 % intervals from 10 000 paired draws of prompts, each with all its seeds, one draw for all cells and metrics. "
    "BCa bootstrap; Student's t where fewer than 25 prompts have joules. They cover the choice of prompts only."
)
NONE = "No intervals: what stands here was counted or recorded."


def intervals(evidence: Evidence) -> str:
    """Which intervals there are; those of an imported table of cells are none."""
    if evidence.imported and not evidence.has_intervals:
        return "No intervals: the table gives one number for each cell, so the scatter is not known."
    return _OF_A_TABLE if evidence.imported else BOOTSTRAP


def sample(evidence: Evidence) -> str:
    """Prompts, seeds and cells, as far as they are known."""
    cells = fmt.plural(len(evidence.arms), "cell")
    if not evidence.prompt_count and evidence.imported:
        return f"{cells}; the table does not state prompts."
    units = "prompts are the independent units"
    if not evidence.imported:
        units += " of quality, window groups those of energy"
    return f"{counted(evidence)} in {cells}; {units}."
