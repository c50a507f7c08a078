"""Sentences about answers, the same on every surface; they always state who answered."""

from __future__ import annotations

from perjoule.people.records import AnswerProvenance
from perjoule.people.scaling import Scale
from perjoule.people.screening import Excluded
from perjoule.text import one_line


def who(provenance: AnswerProvenance, count: int) -> str:
    """Return who answered, e.g. `15 people`; simulated observers and models are never called people."""
    if provenance == "people":
        return f"{count} {'person' if count == 1 else 'people'}"
    if provenance == "simulated":
        return f"{count} SIMULATED observer{'' if count == 1 else 's'}, not people,"
    return f"a MODEL as judge ({count} observer{'' if count == 1 else 's'}), not people,"


def summary_line(scale: Scale) -> str:
    """Return one sentence: who answered how often, and how many were excluded."""
    text = f"{scale.answers} choices by {who(scale.provenance, scale.observers)} for {scale.prompts} prompts"
    text += f"; {len(scale.excluded)} observer{'' if len(scale.excluded) == 1 else 's'} excluded"
    if scale.repeats:
        text += f"; {scale.repeats_agreeing} of {scale.repeats} repeated pairs answered in the same way"
    return text


def excluded_line(excluded: Excluded) -> str:
    """Return one sentence about an excluded observer."""
    return f"excluded {one_line(excluded.observer)[:40]} ({excluded.n_answers} choices): {excluded.reason}"
