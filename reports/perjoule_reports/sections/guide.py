"""What every section says about itself: how many units, which intervals, what would change the conclusion."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Evidence
from perjoule_reports.trust import counted

BOOTSTRAP = (
    "95 % BCa intervals by a paired bootstrap: 10 000 draws of prompts, each with all its seeds, one draw for "
    "all cells "
    "and metrics. They cover the choice of prompts, not other machines, other days or a constant error of the meter."
)
NONE = "No intervals: what stands here was counted or recorded."


def intervals(evidence: Evidence) -> str:
    """Which intervals there are; those of an imported table of cells are none."""
    if evidence.imported and not evidence.has_intervals:
        return "No intervals: the table gives one number for each cell, so the scatter is not known."
    return BOOTSTRAP


def sample(evidence: Evidence) -> str:
    """Prompts, seeds and cells, as far as they are known."""
    cells = fmt.plural(len(evidence.arms), "cell")
    if not evidence.prompt_count and evidence.imported:
        return f"{cells}; the table does not state prompts."
    return f"{counted(evidence)} in {cells}; the prompts are the independent units."
