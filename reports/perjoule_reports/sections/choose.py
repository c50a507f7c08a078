"""Section: which operating point to deploy for which quality floor, as a table and, with JavaScript, as sliders."""

from __future__ import annotations

import math
from dataclasses import replace

from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.choosing import Choosing, Option, code_of, decision
from perjoule_reports.evidence import Evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.pages.schema import ResultChoices, ResultOption
from perjoule_reports.pairing import LEAST_PROMPTS
from perjoule_reports.records import Cell, Column, RunData, Section, Table
from perjoule_reports.sections import guide
from perjoule_reports.sections.tables import interval_cells


def choose_section(evidence: Evidence, analysis: Analysis, plan: Choosing | None) -> Section:
    """Build the section."""
    if plan is None:
        return Section(
            anchor="choose",
            title="Choose",
            how_to_read="",
            empty=f"a choice for a quality floor, which needs {LEAST_PROMPTS} prompts with scores in comparable cells",
        )
    marked = " Its row is marked." if plan.safe else ""
    several = plan.axis.within_family and len({arm.family for arm in evidence.arms}) > 1
    only = f" Only cells of {plan.best.arm.family} are compared." if several else ""
    return Section(
        anchor="choose",
        title="Choose",
        how_to_read="The operating points that are the safe choice for some quality floor: the cheapest that keeps it. "
        f"A point keeps a floor if its mean {plan.axis.label} reaches it in at least 90 % of the draws.",
        sample=guide.sample(evidence),
        interval=guide.intervals(evidence),
        change="More prompts raise what each point keeps; perjoule recommend --confidence takes another share.",
        paragraphs=(
            f"How good must the images be? Each row is the cheapest cell for a floor of {plan.axis.label} up to the "
            f"value under “keeps”.{only} {decision(plan, evidence, analysis)}{marked}",
        ),
        tables=(_table(plan, evidence.energy_unit),),
    )


def choices(run: RunData, evidence: Evidence, plan: Choosing | None) -> ResultChoices | None:
    """Return the options for the page's sliders and for other programs."""
    if plan is None:
        return None
    unit = evidence.energy_unit
    return ResultChoices(
        metric=plan.axis.name,
        label=plan.axis.label,
        floor=plan.floor,
        margin=plan.margin,
        chosen=plan.safe.arm.cell_id if plan.safe else None,
        options=tuple(
            ResultOption(
                cell_id=option.arm.cell_id,
                sentence=_sentence(option, plan, unit),
                quality_kept=option.quality,
                energy_j_kept=option.energy_j,
                code=code_of(run, option.arm) or None,
            )
            for option in plan.options
        ),
    )


def _sentence(option: Option, plan: Choosing, unit: fmt.Scale) -> str:
    arm = option.arm
    energy, quality = fmt.interval(arm.energy, unit), fmt.interval(arm.quality_of(plan.axis))
    mark = f" {arm.brand}" if arm.brand else ""
    name = capitalised(arm.words, arm.variant)
    return f"{name}: {energy[0]} {unit.unit}{mark} per image {energy[1]}, {plan.axis.label} {' '.join(quality)}"


def _kept(plan: Choosing) -> list[Cell]:
    """Return what the options of the table keep, rounded towards the worse side: what is printed is kept."""
    values = [option.quality for option in plan.stairs]
    digits = 10.0 ** (fmt.decimals_of([Interval(value=value) for value in values]) or 0)
    towards = math.floor if plan.axis.higher else math.ceil
    cells = interval_cells([Interval(value=towards(value * digits) / digits) for value in values])
    return [replace(cell, sort=value) for cell, value in zip(cells, values, strict=True)]


def _table(plan: Choosing, unit: fmt.Scale) -> Table:
    stairs = plan.stairs
    brands = [option.arm.brand for option in stairs]
    rows = tuple(
        zip(
            [Cell(text=capitalised(option.arm.words, option.arm.variant)) for option in stairs],
            _kept(plan),
            interval_cells([option.arm.energy for option in stairs], unit, brands),
            interval_cells([Interval(value=option.energy_j) for option in stairs], unit, brands, fmt.ABSENT),
            strict=True,
        )
    )
    columns = (
        Column(title="operating point"),
        Column(title="keeps", unit=f"{plan.axis.label}, in 90 % of the draws", numeric=True),
        Column(title="energy", unit=f"{unit.unit}/image", numeric=True),
        Column(title="stays within", unit=f"{unit.unit}/image, in 90 %", numeric=True),
    )
    marked = frozenset(i for i, option in enumerate(stairs) if option is plan.safe)
    return Table(caption="The safe choice by quality floor", columns=columns, rows=rows, marked=marked)
