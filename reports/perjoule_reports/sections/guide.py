"""What every section says about itself: how many units, which intervals, what would change the conclusion."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Evidence

BOOTSTRAP = (
    "95 % BCa intervals by a paired bootstrap: 10 000 draws of prompts, each with all its seeds, one draw for "
    "all cells "
    "and metrics. They cover the choice of prompts, not other machines, other days or a constant error of the meter."
)
NONE = "No intervals: what stands here was counted or recorded."


def sample(evidence: Evidence) -> str:
    """Prompts, seeds and cells."""
    return (
        f"{fmt.plural(evidence.prompt_count, 'prompt')} × {fmt.plural(evidence.seed_count, 'seed')} in "
        f"{fmt.plural(len(evidence.arms), 'cell')}; the prompts are the independent units."
    )
