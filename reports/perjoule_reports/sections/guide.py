"""Notes shared by the sections: how many units, which intervals, what would change the conclusion."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Evidence
from perjoule_reports.trust import counted

BOOTSTRAP = (
    "95 % intervals from 10 000 paired draws, the same for all cells and metrics. Quality: draws of prompts, each with "
    "all its seeds. Energy: draws of window groups, i.e. prompts that share energy windows. BCa bootstrap; "
    "Student's t for fewer than 25 window groups. They cover the choice of prompts and the variation of windows, not "
    "other machines, other days or a constant error of the meter."
)
_OF_A_TABLE = (
    "95 % intervals from 10 000 paired draws of prompts, each with all its seeds, the same for all cells and metrics. "
    "BCa bootstrap; Student's t if fewer than 25 prompts have joules. They cover only the choice of prompts."
)
NONE = "No intervals: these numbers were counted or recorded."


def intervals(evidence: Evidence) -> str:
    """Return how the intervals were computed; an imported table of cells has none."""
    if evidence.imported and not evidence.has_intervals:
        return "No intervals: the table gives one number per cell, so the variation is unknown."
    return _OF_A_TABLE if evidence.imported else BOOTSTRAP


def sample(evidence: Evidence) -> str:
    """Return the numbers of prompts, seeds and cells, as far as they are known."""
    cells = fmt.plural(len(evidence.arms), "cell")
    if not evidence.prompt_count and evidence.imported:
        return f"{cells}; the table does not state prompts."
    units = "prompts are the independent units"
    if not evidence.imported:
        units += " for quality, window groups for energy"
    return f"{counted(evidence)} in {cells}; {units}."
