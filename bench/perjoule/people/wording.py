"""Sentences about answers, the same on every surface; they always state who answered."""

from __future__ import annotations

from perjoule.people.scaling import Scale
from perjoule.people.screening import Excluded
from perjoule.text import one_line
from perjoule.types import JudgeProvenance, Judges


def who(provenance: JudgeProvenance, count: int) -> str:
    """Return who answered, e.g. `15 people`; only those who are known to be people are called so."""
    observers = f"observer{'' if count == 1 else 's'}"
    if provenance == "people":
        return f"{count} {'person' if count == 1 else 'people'}"
    if provenance == "simulated":
        return f"{count} SIMULATED {observers}, not people,"
    if provenance == "model":
        return f"a MODEL as judge ({count} {observers}), not people,"
    return f"{count} {observers} of provenance NOT STATED"


def summary_line(scale: Scale) -> str:
    """Return one sentence: who answered how often, and how many were excluded."""
    text = f"{scale.answers} choices by {who(scale.provenance, scale.observers)} for {scale.prompts} prompts"
    text += f"; {len(scale.excluded)} observer{'' if len(scale.excluded) == 1 else 's'} excluded"
    if scale.repeats:
        text += f"; {scale.repeats_agreeing} of {scale.repeats} repeated pairs answered in the same way"
    return text


def judges(scale: Scale) -> Judges:
    """Return who judged, as a record of other documents."""
    return Judges(
        provenance=scale.provenance,
        observers=scale.observers,
        answers=scale.answers,
        prompts=scale.prompts,
        excluded=len(scale.excluded),
        sentence=f"Quality: {summary_line(scale)}.",
    )


def excluded_line(excluded: Excluded) -> str:
    """Return one sentence about an excluded observer."""
    return f"excluded {one_line(excluded.observer)[:40]} ({excluded.n_answers} choices): {excluded.reason}"
