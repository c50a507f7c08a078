"""What went wrong in a run that went on, in sentences for the end of `perjoule run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perjoule.runs.directory import Run
    from perjoule.runs.trial_counts import TrialCounts


def notes_of(run: Run, counts: TrialCounts) -> Iterator[str]:
    """Yield a sentence each about disturbed windows, missing scores, and failed trials, which come last."""
    from perjoule.commands.tables import score_summary
    from perjoule.gating.disturbances import disturbance

    windows = run.windows["warnings"].to_list()
    disturbed = [text for text in (disturbance(texts or ()) for texts in windows) if text is not None]
    if disturbed:
        yield f"{len(disturbed)} of {len(windows)} windows are not valid for a verdict, e.g. {disturbed[0]}"
    for row in score_summary(run).metrics:
        if row.unscored:
            total = row.scored + row.unscored
            yield f"{row.unscored} of {total} scores of {row.metric} are missing: {'; '.join(row.reasons)}"
    yield from counts.words()
