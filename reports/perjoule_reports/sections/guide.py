"""What every section says about itself: how many units, which intervals, what would change the conclusion."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Evidence

BOOTSTRAP = (
    "95 % intervals from 10 000 paired draws, one draw for all cells and metrics: of prompts, each with all its seeds, "
    "for quality; of window groups, the prompts that share energy windows, for whatever holds energy. BCa bootstrap; "
    "Student's t for fewer than 25 window groups. They cover the choice of prompts and the scatter of windows, not "
    "other machines, other days or a constant error of the meter."
)
NONE = "No intervals: what stands here was counted or recorded."


def sample(evidence: Evidence) -> str:
    """Prompts, seeds and cells."""
    return (
        f"{fmt.plural(evidence.prompt_count, 'prompt')} × {fmt.plural(evidence.seed_count, 'seed')} in "
        f"{fmt.plural(len(evidence.arms), 'cell')}; prompts are the independent units of quality, window groups those "
        "of energy."
    )
