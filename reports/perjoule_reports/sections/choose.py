"""Section: which operating point to deploy for which quality floor, as a table and, with JavaScript, as sliders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from perjoule.statistics.safe import LEAST_PROMPTS
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.choosing import Choosing, Option, code_of, decision
from perjoule_reports.evidence import Evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.pages.schema import ResultChoices, ResultOption
from perjoule_reports.records import Cell, Column, RunData, Section, Table
from perjoule_reports.sections import guide
from perjoule_reports.sections.tables import interval_cells

_ONE = fmt.Scale(factor=1.0, unit="")


def choose_section(
    evidence: Evidence, analysis: Analysis, plan: Choosing | None, *, recommends: bool = True
) -> Section:
    """Build the section; the options are listed, but none is marked, if the report recommends no cell."""
    if plan is None:
        return Section(
            anchor="choose",
            title="Choose",
            how_to_read="",
            empty=f"a choice for a quality floor, which needs {LEAST_PROMPTS} prompts with scores in comparable cells",
        )
    marked = " Its row is marked." if plan.safe else ""
    advice = f" {decision(plan, evidence, analysis)}{marked}" if recommends else ""
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
            f"value under “keeps”.{only}{advice}",
        ),
        tables=(_table(plan, evidence.energy_unit, plan.safe if recommends else None),),
    )


def choices(
    run: RunData, evidence: Evidence, plan: Choosing | None, *, recommends: bool = True
) -> ResultChoices | None:
    """Return the options for the page's sliders and for other programs; none is chosen if none is recommended."""
    if plan is None:
        return None
    unit = evidence.energy_unit
    return ResultChoices(
        metric=plan.axis.name,
        label=plan.axis.label,
        floor=plan.floor,
        margin=plan.margin,
        chosen=plan.safe.arm.cell_id if plan.safe and recommends else None,
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


def _rounded(
    values: Sequence[float | None], towards: Callable[[float], int], unit: fmt.Scale, brands: Sequence[str] = ()
) -> list[Cell]:
    """Return numbers rounded towards the worse side: what is printed is kept."""
    digits = 10.0 ** (fmt.decimals_of([Interval(value=value) for value in values], unit) or 0) / unit.factor
    # the product of a number that has these digits may end in ...99999
    rounded = [None if value is None else towards(round(value * digits, 6)) / digits for value in values]
    cells = interval_cells([Interval(value=value) for value in rounded], unit, brands, fmt.ABSENT)
    return [replace(cell, sort=value) for cell, value in zip(cells, values, strict=True)]


def _table(plan: Choosing, unit: fmt.Scale, chosen: Option | None) -> Table:
    stairs = plan.stairs
    brands = [option.arm.brand for option in stairs]
    worse = math.floor if plan.axis.higher else math.ceil
    rows = tuple(
        zip(
            [Cell(text=capitalised(option.arm.words, option.arm.variant)) for option in stairs],
            _rounded([option.quality for option in stairs], worse, _ONE),
            interval_cells([option.arm.energy for option in stairs], unit, brands),
            _rounded([option.energy_j for option in stairs], math.ceil, unit, brands),
            strict=True,
        )
    )
    columns = (
        Column(title="operating point"),
        Column(title="keeps", unit=f"{plan.axis.label}, in 90 % of the draws", numeric=True),
        Column(title="energy", unit=f"{unit.unit}/image", numeric=True),
        Column(title="stays within", unit=f"{unit.unit}/image, in 90 %", numeric=True),
    )
    marked = frozenset(i for i, option in enumerate(stairs) if option is chosen)
    return Table(caption="The safe choice by quality floor", columns=columns, rows=rows, marked=marked)
