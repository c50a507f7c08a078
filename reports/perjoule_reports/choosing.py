"""Operating points to choose from: what each of them keeps in 90 % of the resamples, and which one is the safe choice.

The floor of the safe choice is the quality of the longest run minus the metric's margin, as in the gate.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np

from perjoule.errors import PerjouleError
from perjoule.statistics.safe import LEAST_PROMPTS, kept
from perjoule.suite.diffusers_code import diffusers_code, policy_code
from perjoule.suite.reading import cells_of
from perjoule.suite.smaller import planned_name
from perjoule_reports.analysis import Analysis, advisable, apart_from_odd
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.format import number
from perjoule_reports.naming import capitalised
from perjoule_reports.records import RunData


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A cell with the quality that it keeps and the J/image that it stays within, each in 90 % of the resamples.

    `energy_j` is None if the cell's energy cannot be resampled, e.g. with a single group of windows.
    """

    arm: Arm
    quality: float
    energy_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """The options from the cheapest to the most expensive, the floor, and its cheapest option (None if none keeps it).

    `margin` is the loss that the floor allows, None if the metric has none: the floor is then what the anchor keeps.
    """

    axis: Axis
    options: tuple[Option, ...]
    floor: float
    margin: float | None
    safe: Option | None

    def keeps(self, option: Option, floor: float) -> bool:
        """Return True if an option keeps a quality."""
        return option.quality >= floor if self.axis.higher else option.quality <= floor

    def choice(self, floor: float) -> Option | None:
        """Return the cheapest option that keeps a quality."""
        return next((option for option in self.options if self.keeps(option, floor)), None)

    @property
    def best(self) -> Option:
        """The option that keeps the most; the cheapest of equals."""
        return self.stairs[-1]

    @property
    def shown(self) -> str:
        """The floor in as few digits as still give the same choice; what the best option keeps if none keeps the floor.

        It is rounded towards the worse side, so that the option keeps the number that is printed.
        """
        floor, option = (self.floor, self.safe) if self.safe else (self.best.quality, self.best)
        return self._rounded(floor, option)

    def _rounded(self, floor: float, option: Option) -> str:
        worse = ROUND_FLOOR if self.axis.higher else ROUND_CEILING
        for digits in range(3, 18):
            text = f"{Context(prec=digits, rounding=worse).create_decimal(repr(floor)):f}"
            if self.choice(float(text)) is option:
                return text
        return repr(floor)

    @property
    def stairs(self) -> tuple[Option, ...]:
        """The options that keep more than every cheaper one: some floor makes each of them the choice."""
        stairs: list[Option] = []
        for option in self.options:
            if all(not self.keeps(cheaper, option.quality) for cheaper in stairs):
                stairs.append(option)
        return tuple(stairs)


def choosing(run: RunData, evidence: Evidence, analysis: Analysis) -> Choosing | None:
    """Return the options of a run; None without resamples of quality or with too few prompts."""
    axis, compared = evidence.primary, analysis.compared
    if axis is None or compared is None or not analysis.anchor:
        return None
    draws = compared.draws
    if draws.by_prompt.n < LEAST_PROMPTS or evidence.is_cell_value(axis):
        return None
    sign = compared.spec.sign
    quality = sign * kept(sign * draws.quality(axis.name).point[0], sign * draws.quality_alone(axis.name).resamples)
    energy = -kept(-draws.energy.point[0], -draws.energy.resamples)
    place = {cell: i for i, cell in enumerate(compared.grid.cells)}
    options = [
        Option(
            arm=arm,
            quality=float(quality[place[arm.cell_id]]),
            energy_j=float(energy[place[arm.cell_id]])
            if np.isfinite(energy[place[arm.cell_id]]) and arm.energy.bounded
            else None,
        )
        for arm in advisable(evidence, axis)
        if arm.role != "control" and arm.quality_of(axis).bounded and np.isfinite(quality[place[arm.cell_id]])
    ]
    anchor = next((option for option in options if option.arm.cell_id == analysis.anchor), None)
    if anchor is None:
        return None
    options.sort(key=lambda option: (option.arm.energy.value or 0.0, -sign * option.quality, option.arm.cell_id))
    margin = run.metrics[axis.name].margin
    floor = anchor.quality if margin is None else (anchor.arm.quality_of(axis).value or 0.0) - sign * margin
    plan = Choosing(axis=axis, options=tuple(options), floor=floor, margin=margin, safe=None)
    return replace(plan, safe=plan.choice(floor))


def decision(plan: Choosing, evidence: Evidence, analysis: Analysis) -> str:
    """Return why the safe choice is safe, or that there is none: the words of the advice and of the section Choose."""
    axis, end = plan.axis, "or more" if plan.axis.higher else "or less"
    anchor = next(option.arm for option in plan.options if option.arm.cell_id == analysis.anchor)
    named = evidence.anchor_words(anchor)
    origin = f"what {named} keeps" if plan.margin is None else (
        f"that of {named} {'less' if axis.higher else 'plus'} the margin {plan.margin:g}"
    )  # fmt: skip
    shown = plan.shown.replace("-", "\N{MINUS SIGN}")
    if plan.safe is None:
        best = plan.best
        return apart_from_odd(
            evidence,
            axis,
            f"No cell keeps {axis.label} at {number(plan.floor)} {end} in 90 % of the draws ({origin}): measure more "
            f"prompts. {capitalised(best.arm.words, best.arm.variant)} keeps the most, {shown}.",
        )
    is_anchor = plan.safe.arm.cell_id == analysis.anchor
    first = "No cheaper cell" if is_anchor and plan.options[0] is not plan.safe else "The cheapest cell that"
    sentence = f"{first} keeps {axis.label} at {shown} {end} in 90 % of the draws: {origin}."
    return apart_from_odd(evidence, axis, sentence)


def recommend_command(plan: Choosing, evidence: Evidence, address: str) -> str:
    """Return the command that makes the choice for a floor that can be kept: that of the choice, if there is one.

    Args:
        plan: The options.
        evidence: The arms; a full-reference metric needs the family of those that are compared.
        address: The run as arguments of a command.
    """
    family = plan.best.arm.family
    several = plan.axis.within_family and len({arm.family for arm in evidence.arms}) > 1
    chosen = f" --family {shlex.quote(family)}" if several else ""
    return f"perjoule recommend {address} --min-quality {plan.shown}{chosen}"


def code_of(run: RunData, arm: Arm) -> str:
    """Return code to paste; empty if the run does not record how its images were made."""
    variant = next((v for v in run.suite.variants if v.name == planned_name(arm.variant)), None)
    if variant is None or run.is_imported:
        return ""
    cell = next((cell for cell in cells_of(run.suite) if cell.cell_id == planned_name(arm.cell_id)), None)
    own = policy_code(cell) if cell else None
    if own:
        return own
    try:
        return diffusers_code(variant, arm.steps if arm.role != "predicted" else None, portable=True)
    except PerjouleError:  # the folder of its model is not on this machine
        return ""
