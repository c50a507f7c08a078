"""The run in one sentence: the energy that fewer steps save, and what the intervals say about the loss of quality.

The anchor is the longest run. The sentence never says *equal*; it says what the interval of the paired difference does
not exclude. If numbers were not measured, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from perjoule.statistics.safe import LEAST_PROMPTS
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis, advisable, apart_from_odd, rivals
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.pairing import Versus
from perjoule_reports.records import Headline, Tile

_PARTS = (
    (1 / 2, "half"), (1 / 3, "a third"), (2 / 3, "two thirds"), (1 / 4, "a quarter"), (3 / 4, "three quarters"),
    (1 / 5, "a fifth"), (1 / 10, "a tenth"), (1 / 20, "a twentieth"),
)  # fmt: skip


def headline(evidence: Evidence, analysis: Analysis, versus: Mapping[str, Versus], safe: str = "") -> Headline:
    """Write the sentence that the evidence supports, or say what is missing.

    Args:
        evidence: The arms.
        analysis: Its anchor is the cell that the others are compared with.
        versus: Comparisons of cells with the anchor.
        safe: The cell of the safe choice, which the sentence prefers to cheaper ones.
    """
    axis = evidence.primary
    if not evidence.arms:
        return Headline(sentence="This run holds no finished trials, so there is nothing to compare.")
    if evidence.imported and (top := _one_sided(evidence)):
        return top
    if all(a.energy.value is None for a in evidence.arms):
        return Headline(
            sentence="Energy was not measured in this run, so no cost can be stated.",
            support=("No cell has a reading; the warnings below say why. Missing joules are not zero.",),
        )
    if axis is None or all(a.quality_of(axis).value is None for a in evidence.arms):
        return Headline(sentence="The images have not been scored, so the joules cannot be compared with quality.")
    comparable = advisable(evidence, axis)
    if not comparable and evidence.left_out and rivals(evidence, axis):
        return Headline(
            sentence="The joules of all comparable cells are odd, so no saving is stated.",
            support=("What is odd is listed under Beware.",),
        )
    anchor = next((a for a in comparable if a.cell_id == analysis.anchor), None)
    if evidence.is_cell_value(axis):
        return _cell_values(comparable, axis)
    if anchor is None or len(comparable) < 2:
        return _single(comparable, axis)
    contrasts = [v for a in comparable if (v := versus.get(a.cell_id)) is not None and a.role != "control"]
    enough = max((v.prompt_count for v in contrasts), default=0)
    if enough < LEAST_PROMPTS:
        return _few(anchor, axis, enough)
    cheaper = sorted((v for v in contrasts if v.cheaper), key=lambda v: v.energy_ratio.value or 0)
    if axis.within_family:
        top, test = _fidelity(cheaper, anchor, axis, evidence)
    elif not cheaper:
        top, test = _not_cheaper(anchor, axis, evidence), None
    elif not any(v.worse(axis) for v in contrasts):
        top, test = _unresolved(anchor, axis, contrasts, evidence), None
    else:
        unharmed = [v for v in cheaper if not v.worse(axis)]
        test = next((v for v in unharmed if v.arm.cell_id == safe), unharmed[0] if unharmed else None)
        if test is None:
            test = max(cheaper, key=lambda v: (v.quality.value or 0) * (1 if axis.higher else -1))
            top = _needed(anchor, axis, test, evidence)
        else:
            top = _saving(test, axis, evidence)
    other = test or max(contrasts, key=lambda v: v.arm.energy.value or 0)
    return replace(top, test=other.arm.cell_id, anchor=anchor.cell_id)


def _one_sided(evidence: Evidence) -> Headline | None:
    """Headline of a table that has only joules or only quality."""
    if all(a.energy.value is None for a in evidence.arms):
        return Headline(
            sentence="The table states no energy, so no cost can be stated.",
            support=("Absent is not zero.",),
        )
    axis = evidence.primary
    if axis is None or all(a.quality_of(axis).value is None for a in evidence.arms):
        unit = evidence.energy_unit
        known = sorted((a for a in evidence.arms if a.energy.value is not None), key=lambda a: a.energy.value or 0.0)
        low, high = (fmt.interval(a.energy, unit)[0] for a in (known[0], known[-1]))
        title = fmt.provenance_title(evidence.provenance, imported=True).lower()
        mark = "" if evidence.provenance == "measured" else f" ({title})"
        span = f"{low} {unit.unit}" if len(known) == 1 else f"{low} to {high} {unit.unit}"
        return Headline(
            sentence=f"The table states no quality: its {fmt.plural(len(known), 'cell')} "
            f"{'costs' if len(known) == 1 else 'cost'} {span} per image"
            f"{mark}; what quality that buys is unknown.",
        )
    return None


def _cell_values(arms: list[Arm], axis: Axis) -> Headline:
    """Headline of a table with one quality per cell: numbers can be listed, but differences cannot be judged."""
    if not arms:
        return _single(arms, axis)
    best = max(arms, key=lambda a: (a.quality_of(axis).value or 0.0) * (1 if axis.higher else -1))
    cheapest = min(arms, key=lambda a: a.energy.value or 0.0)
    unit = fmt.scale([best.energy.value], "J")
    return Headline(
        sentence=f"The table gives one {axis.label} for each cell, so differences in {axis.label} may be "
        "due to chance: this run shows numbers, not a saving.",
        support=(
            f"The highest-ranked of {fmt.plural(len(arms), 'cell')} is {best.words} with "
            f"{fmt.number(best.quality_of(axis).value)} at {fmt.number((best.energy.value or 0.0) / unit.factor)} "
            f"{unit.unit} per image; the cheapest is {cheapest.words}.",
        ),
    )


def _quality(arm: Arm, axis: Axis) -> Interval:
    return arm.quality_of(axis)


def _name(arm: Arm, other: Arm) -> str:
    if arm.variant == other.variant and arm.steps is not None:
        return fmt.step_count(arm.steps)
    return arm.words


def _costs(arm: Arm, anchor: Arm, ratio: Interval) -> str:
    """Return e.g. `The few-step student at 2 steps costs a tenth of the energy of the full model at 25 steps`."""
    same = arm.variant == anchor.variant and arm.steps is not None
    words = f"{_name(arm, anchor)} {'cost' if same and arm.steps != 1 else 'costs'} {_part(ratio.value or 0.0)} of the "
    words += f"{_joules(arm)} of {_name(anchor, arm)}"
    words += f" ({arm.label})" if same else ""
    return capitalised(words, arm.variant)


def _part(ratio: float) -> str:
    """Return a ratio below 1 as a part: `a tenth` if it rounds to one, else `43 %`."""
    near = next((word for value, word in _PARTS if abs(ratio / value - 1) < 0.05), "")
    return f"about {near}" if near else fmt.percent(ratio)


def _absolute(arm: Arm, anchor: Arm, unit: fmt.Scale) -> str:
    """Return e.g. `19.1 → 1.00 J per image`."""
    before, after = (fmt.number((one.energy.value or 0.0) / unit.factor) for one in (anchor, arm))
    return f"{before} → {after} {unit.unit} per image"


def _saved(ratio: Interval) -> tuple[str, str]:
    """Return the share saved, and the interval of the change, which is negative if energy is saved."""
    value = fmt.percent(1 - (ratio.value or 0))
    if ratio.low is None or ratio.high is None:
        return value, ""
    return value, f"[{_signed(ratio.low - 1)}, {_signed(ratio.high - 1)}]"


def _signed(change: float) -> str:
    shown = fmt.percent(abs(change))
    sign = "" if shown.startswith("0 ") else "+" if change > 0 else "\N{MINUS SIGN}"
    return f"{sign}{shown}"


def _joules(arm: Arm) -> str:
    """Return the word for this arm's energy: `energy`, or `estimated energy`."""
    if arm.provenance == "not stated":
        return "energy of unstated provenance"
    return "energy" if arm.provenance == "measured" else f"{arm.provenance or 'unattributed'} energy"


def _bound_remark(pair: Versus) -> tuple[str, ...]:
    if not pair.by_bound:
        return ()
    return (f"The interval of the saving is {pair.bound}: there is only one energy per cell.",)


def _saving(pair: Versus, axis: Axis, evidence: Evidence) -> Headline:
    arm, anchor = pair.arm, pair.anchor
    quality, base = fmt.interval(_quality(arm, axis)), fmt.interval(_quality(anchor, axis))
    better = pair.better(axis)
    claim = (
        f"and scores better in {axis.label}"
        if better
        else f"with no loss of {axis.label} that {fmt.plural(pair.prompt_count, 'prompt')} can show"
    )
    allowed = "" if better else _allowed(pair, axis)
    return Headline(
        sentence=f"{_costs(arm, anchor, pair.energy_ratio)}, {claim}.",
        support=(
            f"{_called(axis)}: {quality[0]} {quality[1]} against {base[0]} {base[1]}, paired by prompt: "
            f"{' '.join(fmt.difference(pair.quality)).strip()}.{allowed}",
            *_bound_remark(pair),
        ),
        tiles=(_energy_tile(pair, evidence.energy_unit), _quality_tile(pair, axis), *_time_tile(arm, anchor)),
    )


def _called(axis: Axis) -> str:
    """Return the name of a metric with its label, e.g. `Attributes drawn (scene)`."""
    return axis.name if axis.label == axis.name else f"{axis.label[:1].upper()}{axis.label[1:]} ({axis.name})"


def _energy_tile(pair: Versus, unit: fmt.Scale) -> Tile:
    share, change = _saved(pair.energy_ratio)
    return Tile(
        value=f"\N{MINUS SIGN}{share}",
        detail=f"{change} {_absolute(pair.arm, pair.anchor, unit)}".strip(),
        label="energy per image",
        brand=pair.arm.brand,
    )


def _quality_tile(pair: Versus, axis: Axis) -> Tile:
    value, detail = fmt.difference(pair.quality)
    return Tile(value=value, detail=detail or "in every prompt", label=f"{axis.label}, paired difference")


def _allowed(pair: Versus, axis: Axis) -> str:
    loss = pair.allowed_loss(axis)
    if loss is None:
        return " Without an interval, a loss cannot be excluded."
    if loss == 0 and pair.quality.low == pair.quality.high:
        return f" All {fmt.plural(pair.prompt_count, 'prompt')} score the same."
    if loss == 0:
        return " The interval ends at no difference and excludes a loss."
    return f" The interval does not exclude a loss of up to {fmt.number(loss, 2)}."


def _time_tile(arm: Arm, anchor: Arm) -> tuple[Tile, ...]:
    if not arm.duration_s or not anchor.duration_s:
        return ()
    change = arm.duration_s / anchor.duration_s - 1
    both = f"{fmt.quantity(arm.duration_s, 's')} against {fmt.quantity(anchor.duration_s, 's')}"
    return (Tile(value=_signed(change), detail=both, label="time per image"),)


def _not_cheaper(anchor: Arm, axis: Axis, evidence: Evidence) -> Headline:
    single = "one number for each cell" if anchor.energy_is_stated else "one window per cell"
    why = "" if anchor.energy.bounded or anchor.energy_bound_j else f" Energies have no interval: {single}."
    return Headline(
        sentence=apart_from_odd(
            evidence,
            axis,
            f"No cell is resolved as cheaper than {evidence.anchor_words(anchor)}, so no saving can be claimed.",
        ),
        support=(
            f"The {'anchor' if anchor.steps is None or evidence.left_out else 'longest run'} is {anchor.words}.{why}",
        ),
    )


def _few(anchor: Arm, axis: Axis, count: int) -> Headline:
    unit = fmt.scale([anchor.energy.value], "J")
    energy = fmt.interval(anchor.energy, unit)
    return Headline(
        sentence=f"{fmt.plural(count, 'prompt').capitalize()} with scores in two cells {'is' if count == 1 else 'are'} "
        f"too few to say what the extra joules buy in {axis.label}: this run shows only costs.",
        support=(f"A comparison needs {LEAST_PROMPTS} prompts; with fewer, bootstrap intervals are too narrow.",),
        tiles=(
            Tile(
                value=f"{energy[0]} {unit.unit}",
                detail=energy[1],
                label=f"energy per image, {anchor.words}",
                brand=anchor.brand,
            ),
        ),
    )


def _unresolved(anchor: Arm, axis: Axis, contrasts: list[Versus], evidence: Evidence) -> Headline:
    n = max((c.prompt_count for c in contrasts), default=0)
    counted = f"with {fmt.plural(n, 'prompt')}" if n else "without scores per prompt"
    return Headline(
        sentence=apart_from_odd(
            evidence,
            axis,
            f"No cell is resolved as worse in {axis.label} than {anchor.words} {counted}: this run cannot say what the "
            "extra joules buy.",
        ),
        support=("That is a lack of evidence, not evidence of equal quality. More prompts narrow the intervals.",),
    )


def _needed(anchor: Arm, axis: Axis, near: Versus, evidence: Evidence) -> Headline:
    share, _ = _saved(near.energy_ratio)
    return Headline(
        sentence=apart_from_odd(
            evidence,
            axis,
            f"Every cheaper cell scores worse in {axis.label} than {anchor.words}; the nearest, "
            f"{_name(near.arm, anchor)}, saves {share} of the {_joules(near.arm)}.",
        ),
        support=(f"{_called(axis)}: {' '.join(fmt.difference(near.quality)).strip()}, paired by prompt.",
                 *_bound_remark(near)),
        tiles=(_energy_tile(near, evidence.energy_unit), _quality_tile(near, axis)),
    )  # fmt: skip


def _fidelity(cheaper: list[Versus], anchor: Arm, axis: Axis, evidence: Evidence) -> tuple[Headline, Versus | None]:
    imported = evidence.imported
    if not cheaper:
        return _not_cheaper(anchor, axis, evidence), None
    near = min(cheaper, key=lambda c: abs(math.log2(c.energy_ratio.value or 1) + 1))
    quality = fmt.interval(_quality(near.arm, axis))
    reference = (
        f"{capitalised(axis.label, axis.name)} compares with a reference"
        if imported
        else "The longest run is the reference itself"
    )
    return Headline(
        sentence=f"{_costs(near.arm, anchor, near.energy_ratio)}, with {axis.label} at {' '.join(quality).strip()}.",
        support=(
            f"{reference}, so this axis can show closeness but not improvement.",
            *_bound_remark(near),
        ),
        tiles=(
            _energy_tile(near, evidence.energy_unit),
            Tile(
                value=quality[0],
                detail=quality[1],
                label=axis.label,
            ),
        ),
    ), near


def _single(arms: list[Arm], axis: Axis) -> Headline:
    if not arms:
        return Headline(sentence="No cell has both joules and a score, so nothing can be compared.")
    arm = arms[0]
    unit = fmt.scale([arm.energy.value], "J")
    energy, quality = fmt.interval(arm.energy, unit), fmt.interval(_quality(arm, axis))
    return Headline(
        sentence=f"{capitalised(arm.words, arm.variant)} costs {energy[0]} {unit.unit} of {_joules(arm)} per "
        f"image and scores {quality[0]} in {axis.label}; with one comparable cell there is no frontier.",
        support=(f"Energy {energy[1] or 'without interval'}, {axis.label} {quality[1] or 'without interval'}.",),
        tiles=(
            Tile(value=f"{energy[0]} {unit.unit}", detail=energy[1], label="energy per image", brand=arm.brand),
            Tile(value=quality[0], detail=quality[1], label=axis.label),
        ),
    )
