"""The run in one sentence: what fewer steps save, and what the intervals let us say about the loss.

The anchor is the longest run. The sentence never says *equal*; it says what the interval of the paired difference still
allows. Numbers that were not measured say so in the sentence itself.
"""

from __future__ import annotations

import math

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.format import Interval
from perjoule_reports.pairing import Contrast, contrast
from perjoule_reports.records import Headline, RunData, Tile

MIN_PROMPTS = 8  # with fewer, 95 % percentile intervals hold far less often than they say


def headline(run: RunData, evidence: Evidence) -> Headline:
    """Write the sentence that the evidence carries, or say what is missing."""
    axis = evidence.primary
    if not evidence.arms:
        return Headline(sentence="This run holds no finished trials, so there is nothing to compare.")
    if all(a.energy.value is None for a in evidence.arms):
        return Headline(
            sentence="Energy was not measured in this run, so no cost can be stated.",
            support=("Every cell lacks a reading; the warnings below say why. Absent is not zero.",),
        )
    if axis is None or all(_quality(a, axis).value is None for a in evidence.arms):
        return Headline(sentence="The images have not been scored, so the joules have nothing to be held against.")
    rivals = _rivals(evidence, axis)
    anchor = max(rivals, key=lambda a: (a.role == "fixed", a.steps or 0, a.energy.value or 0), default=None)
    if anchor is None or len(rivals) < 2:
        return _single(rivals, axis)
    contrasts = [c for a in rivals if a is not anchor and (c := contrast(run, axis, a, anchor)) is not None]
    enough = max((c.prompt_count for c in contrasts), default=0)
    if enough < MIN_PROMPTS:
        return _few(anchor, axis, enough)
    cheaper = sorted((c for c in contrasts if (c.energy_ratio.high or 1) < 1), key=lambda c: c.energy_ratio.value or 0)
    if axis.within_family:
        return _fidelity(cheaper, anchor, axis)
    if not cheaper:
        return _not_cheaper(anchor)
    unharmed = [c for c in cheaper if not _worse(c.quality, axis)]
    if not any(_worse(c.quality, axis) for c in contrasts):
        return _unresolved(anchor, axis, contrasts)
    if not unharmed:
        return _needed(anchor, axis, cheaper)
    return _saving(unharmed[0], axis)


def _rivals(evidence: Evidence, axis: Axis) -> list[Arm]:
    """Return the arms that may be compared: one boundary, one provenance, and one family if the metric needs it."""
    arms = [a for a in evidence.arms if a.energy.value and _quality(a, axis).value is not None]
    if not arms:
        return []
    first = next((a for a in arms if a.role == "fixed"), arms[0])
    return [
        a
        for a in arms
        if (a.boundary, a.provenance) == (first.boundary, first.provenance)
        and (not axis.within_family or a.family == first.family)
    ]


def _quality(arm: Arm, axis: Axis) -> Interval:
    return arm.quality.get(axis.name, Interval())


def _worse(difference: Interval, axis: Axis) -> bool:
    """True if the interval of the difference lies wholly on the bad side of zero."""
    if difference.low is None or difference.high is None:
        return True
    return difference.high < 0 if axis.higher else difference.low > 0


def _better(difference: Interval, axis: Axis) -> bool:
    if difference.low is None or difference.high is None:
        return False
    return difference.low > 0 if axis.higher else difference.high < 0


def _name(arm: Arm, other: Arm) -> str:
    named = fmt.step_count(arm.steps)
    return named if arm.variant == other.variant else f"{arm.variant} at {named}"


def _uses(arm: Arm, other: Arm) -> str:
    single = arm.variant != other.variant or arm.steps == 1
    return f"{_name(arm, other)} {'uses' if single else 'use'}"


def _saved(ratio: Interval) -> tuple[str, str]:
    value = fmt.percent(1 - (ratio.value or 0))
    if ratio.low is None or ratio.high is None:
        return value, ""
    return value, f"[{fmt.percent(1 - ratio.high)}, {fmt.percent(1 - ratio.low)}]"


def _joules(arm: Arm) -> str:
    """Return the word for this arm's energy: `energy`, or `estimated energy`."""
    return "energy" if arm.provenance == "measured" else f"{arm.provenance or 'unattributed'} energy"


def _bound_remark(arm: Arm) -> tuple[str, ...]:
    return () if arm.energy.bounded else ("The interval of the saving is the meter's own bound: one batch per cell.",)


def _saving(found: Contrast, axis: Axis) -> Headline:
    arm, anchor = found.arm, found.anchor
    share, share_interval = _saved(found.energy_ratio)
    quality, base = fmt.interval(_quality(arm, axis)), fmt.interval(_quality(anchor, axis))
    delta = fmt.interval(found.quality, signed=True)
    better = _better(found.quality, axis)
    claim = (
        f"and better scores in {axis.name}"
        if better
        else f"with no loss in {axis.name} score that {fmt.plural(found.prompt_count, 'prompt')} can resolve"
    )
    worst = found.quality.low if axis.higher else found.quality.high
    allowed = (
        "" if better or worst is None else f" The interval still allows a loss of up to {fmt.number(abs(worst), 2)}."
    )
    return Headline(
        sentence=f"{_uses(arm, anchor)} {share} less {_joules(arm)} than {_name(anchor, arm)}, {claim}.",
        support=(
            f"{axis.name}: {quality[0]} {quality[1]} against {base[0]} {base[1]}, "
            f"paired difference {delta[0]} {delta[1]}.{allowed}",
            *_bound_remark(arm),
        ),
        tiles=(
            Tile(value=f"\N{MINUS SIGN}{share}", detail=share_interval, label="energy per image", brand=arm.brand),
            Tile(value=delta[0], detail=delta[1], label=f"{axis.name}, paired difference"),
            *_time_tile(arm, anchor),
        ),
    )


def _time_tile(arm: Arm, anchor: Arm) -> tuple[Tile, ...]:
    if not arm.duration_s or not anchor.duration_s:
        return ()
    change = arm.duration_s / anchor.duration_s - 1
    sign = "+" if change > 0 else "\N{MINUS SIGN}"
    both = f"{fmt.quantity(arm.duration_s, 's')} against {fmt.quantity(anchor.duration_s, 's')}"
    return (Tile(value=f"{sign}{fmt.percent(abs(change))}", detail=both, label="time per image"),)


def _not_cheaper(anchor: Arm) -> Headline:
    why = "" if anchor.energy.bounded or anchor.energy_bound_j else " Energies have no interval: one batch per cell."
    return Headline(
        sentence="No cell is resolved as cheaper than the longest run, so no saving can be claimed.",
        support=(f"The longest run is {anchor.variant} at {fmt.step_count(anchor.steps)}.{why}",),
    )


def _few(anchor: Arm, axis: Axis, count: int) -> Headline:
    unit = fmt.scale([anchor.energy.value], "J")
    energy = fmt.interval(anchor.energy, unit)
    return Headline(
        sentence=f"{fmt.plural(count, 'prompt').capitalize()} with scores in two cells are too few to say what the "
        f"extra joules buy in {axis.name}: this run shows costs.",
        support=(f"Quality is compared from {MIN_PROMPTS} prompts up; below, a resampling interval is too narrow.",),
        tiles=(
            Tile(
                value=f"{energy[0]} {unit.unit}",
                detail=energy[1],
                label=f"energy per image, {anchor.variant} at {fmt.step_count(anchor.steps)}",
                brand=anchor.brand,
            ),
        ),
    )


def _unresolved(anchor: Arm, axis: Axis, contrasts: list[Contrast]) -> Headline:
    n = max((c.prompt_count for c in contrasts), default=0)
    counted = f"with {fmt.plural(n, 'prompt')}" if n else "without scores per prompt"
    return Headline(
        sentence=f"No cell is resolved as worse in {axis.name} than {anchor.variant} at {fmt.step_count(anchor.steps)} "
        f"{counted}: this run cannot say what the extra joules buy.",
        support=("That is a lack of evidence, not evidence of equal quality. More prompts narrow the intervals.",),
    )


def _needed(anchor: Arm, axis: Axis, cheaper: list[Contrast]) -> Headline:
    near = max(cheaper, key=lambda c: (c.quality.value or 0) * (1 if axis.higher else -1))
    share, share_interval = _saved(near.energy_ratio)
    delta = fmt.interval(near.quality, signed=True)
    return Headline(
        sentence=f"Every cheaper cell scores worse in {axis.name} than {anchor.variant} at "
        f"{fmt.step_count(anchor.steps)}; the nearest, {_name(near.arm, anchor)}, saves {share} "
        f"of the {_joules(near.arm)}.",
        support=(f"Its paired difference is {delta[0]} {delta[1]}.", *_bound_remark(near.arm)),
        tiles=(
            Tile(value=f"\N{MINUS SIGN}{share}", detail=share_interval, label="energy per image", brand=near.arm.brand),
            Tile(value=delta[0], detail=delta[1], label=f"{axis.name}, paired difference"),
        ),
    )


def _fidelity(cheaper: list[Contrast], anchor: Arm, axis: Axis) -> Headline:
    if not cheaper:
        return _not_cheaper(anchor)
    near = min(cheaper, key=lambda c: abs(math.log2(c.energy_ratio.value or 1) + 1))
    share, share_interval = _saved(near.energy_ratio)
    quality = fmt.interval(_quality(near.arm, axis))
    return Headline(
        sentence=f"{_uses(near.arm, anchor)} {share} less {_joules(near.arm)} than "
        f"{fmt.steps(anchor.steps)} , at {quality[0]} {quality[1]} {axis.name} of that run.",
        support=(
            "The longest run is the reference itself, so this axis can show closeness, never improvement.",
            *_bound_remark(near.arm),
        ),
        tiles=(
            Tile(value=f"\N{MINUS SIGN}{share}", detail=share_interval, label="energy per image", brand=near.arm.brand),
            Tile(value=quality[0], detail=quality[1], label=f"{axis.name} to the longest run"),
        ),
    )


def _single(arms: list[Arm], axis: Axis) -> Headline:
    if not arms:
        return Headline(sentence="No cell has both joules and a score, so nothing can be compared.")
    arm = arms[0]
    unit = fmt.scale([arm.energy.value], "J")
    energy, quality = fmt.interval(arm.energy, unit), fmt.interval(_quality(arm, axis))
    return Headline(
        sentence=f"{arm.variant} at {fmt.step_count(arm.steps)} costs {energy[0]} {unit.unit} of {_joules(arm)} per "
        f"image and scores {quality[0]} in {axis.name}; with one comparable cell there is no frontier.",
        support=(f"Energy {energy[1] or 'without interval'}, {axis.name} {quality[1] or 'without interval'}.",),
        tiles=(
            Tile(value=f"{energy[0]} {unit.unit}", detail=energy[1], label="energy per image", brand=arm.brand),
            Tile(value=quality[0], detail=quality[1], label=axis.name),
        ),
    )
