"""The tables about arms: cost and quality of each cell, and the numbers of every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.figures import Panel
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.format import Scale
from perjoule_reports.pairing import Versus
from perjoule_reports.records import Cell, Column, Table

PERCENT = Scale(factor=0.01, unit="%")
_DIFFERENCE_HINT = "paired by prompt; ~ if the interval includes zero, bold if not"


def no_joules(evidence: Evidence) -> str:
    """Return the text for absent joules; it is unknown whether those of a table were measured."""
    return "not stated" if evidence.imported else "not measured"


def _energy_hint(evidence: Evidence) -> str:
    if evidence.imported:
        return "energy per image as the table states it, mean over prompts"
    return "gross energy of the windows divided by their images, with its interval"


def _time_hint(evidence: Evidence) -> str:
    return "seconds per image as the table states them" if evidence.imported else "wall time of the windows per image"


def _nfe_hint(evidence: Evidence) -> str:
    hint = "denoiser evaluations per image"
    return f"{hint}, as the table states them" if evidence.imported else f"{hint}; guidance counts two per step"


FLOPS_HINT = "floating-point operations of all networks, counted and not measured; a multiply-add is two"


def arms_table(
    evidence: Evidence, versus: Mapping[str, Versus], tails: Mapping[str, Interval], anchor: str = ""
) -> Table:
    """Return one row per cell: role, steps, cost in several units, every quality, the frontier, and the differences.

    Args:
        evidence: The arms.
        versus: Comparisons of cells with the anchor.
        tails: 10th percentile of the primary metric, by cell.
        anchor: The cell that the others are compared with.
    """
    unit = fmt.scale((a.energy.value for a in evidence.arms), "J")
    time = fmt.scale((a.duration_s for a in evidence.arms), "s")
    flops = fmt.scale((a.flops for a in evidence.arms), "FLOP")
    counted = any(arm.flops is not None for arm in evidence.arms)
    primary = evidence.primary
    others = [axis for axis in evidence.axes if axis is not primary]
    columns = [
        Column(title="cell", hint="a variant at one step count; below it, its role"),
        Column(title="steps", numeric=True, hint="denoising steps; for an adaptive policy the mean, and 5 % to 95 %"),
        Column(title="energy", unit=f"{unit.unit}/image", numeric=True, hint=_energy_hint(evidence)),
        Column(title="energy", unit="Wh/1000 images", numeric=True, hint="1 J/image is 0.2778 Wh per 1000 images"),
        *([Column(title="Δ energy", unit="% vs anchor", numeric=True, hint=_DIFFERENCE_HINT)] if versus else []),
        *([_quality_column(primary)] if primary else []),
        *([Column(title=f"Δ {primary.name}", unit="vs anchor", numeric=True, hint=_DIFFERENCE_HINT)]
          if versus and primary else []),
        *([Column(title=f"{primary.name}", unit="10th percentile", numeric=True, hint="one image in ten is worse")]
          if tails and primary else []),
        *([Column(title="frontier", hint="below it, the share of draws in which the cell is on the frontier")]
          if primary else []),
        Column(title="time", unit=f"{time.unit}/image", numeric=True, hint=_time_hint(evidence)),
        Column(title="power", unit="W", numeric=True, hint="energy divided by time"),
        Column(title="NFE", numeric=True, hint=_nfe_hint(evidence)),
        *([Column(title="work", unit=f"{flops.unit}/image", numeric=True, hint=FLOPS_HINT)] if counted else []),
        *(_quality_column(axis) for axis in others),
    ]  # fmt: skip
    rows = []
    for arm in evidence.arms:
        pair = versus.get(arm.cell_id)
        cells = [*_cost_cells(evidence, arm, unit)]
        if versus:
            cells.append(_energy_change(evidence, pair, arm, anchor))
        if primary:
            cells.append(interval_cell(arm.quality_of(primary)))
            if versus:
                cells.append(_quality_change(pair, arm, anchor, primary))
            if tails:
                absent = fmt.ABSENT if primary.name in arm.cell_values else "not scored"
                cells.append(interval_cell(tails.get(arm.cell_id, Interval()), absent=absent))
        if primary:
            on = bool(arm.on_frontier.get(primary.name))
            cells.append(Cell(text="yes" if on else "no", detail=_resampled(arm, primary), strong=on))
        seconds = None if arm.duration_s is None else arm.duration_s / time.factor
        cells += [
            Cell(text=fmt.number(seconds), sort=arm.duration_s),
            Cell(text=fmt.number(arm.mean_power_w), brand=arm.brand if arm.mean_power_w else "", sort=arm.mean_power_w),
            Cell(text=fmt.steps(arm.nfe), sort=arm.nfe),
            *([_work_cell(arm, flops)] if counted else []),
            *(interval_cell(arm.quality_of(axis)) for axis in others),
        ]
        rows.append(tuple(cells))
    marked = {i for i, a in enumerate(evidence.arms) if primary and a.on_frontier.get(primary.name)}
    caption = "Every cell of the run" + (f"; frontier by {primary.name}" if primary else "")
    return Table(caption=caption, columns=tuple(columns), rows=tuple(rows), marked=frozenset(marked))


def panel_table(evidence: Evidence, panel: Panel) -> Table:
    """Return the numbers of one frontier figure."""
    unit = fmt.scale((a.energy.value for a in panel.arms), "J")
    rows = [
        (
            arm_cell(evidence, arm),
            Cell(text=fmt.steps(arm.steps), sort=arm.steps),
            interval_cell(arm.energy, unit, arm.brand),
            _bound(arm, unit),
            interval_cell(arm.quality[panel.axis.name]),
            Cell(text="yes" if arm.on_frontier.get(panel.axis.name) else "no"),
            _chance(arm, panel.axis),
        )
        for arm in panel.arms
    ]
    columns = (
        Column(title="cell"),
        Column(title="steps", numeric=True),
        Column(title="energy", unit=f"{unit.unit}/image", numeric=True, hint=_energy_hint(evidence)),
        Column(title="uncertainty", unit=f"± {unit.unit}", numeric=True, hint="as the table states it")
        if evidence.imported
        else Column(title="meter bound", unit=f"± {unit.unit}", numeric=True, hint="bound on the meter's own error"),
        _quality_column(panel.axis),
        Column(title="on frontier"),
        Column(title="P(on frontier)", numeric=True, hint="share of draws in which the cell is on the frontier"),
    )
    remark = f" ({panel.remark})" if panel.remark else ""
    return Table(caption=f"Data of the figure: {panel.axis.name}{remark}", columns=columns, rows=tuple(rows))


def arm_cell(evidence: Evidence, arm: Arm) -> Cell:
    """Return the head of an arm's row, with the variant's colour and marker."""
    return Cell(text=fmt.clean(arm.cell_id), series=evidence.series(arm.variant))


def interval_cell(value: Interval, unit: Scale | None = None, brand: str = "", absent: str = "not scored") -> Cell:
    """Return a number with its interval below; absent numbers are named in words."""
    if value.value is None:
        return Cell(text=absent)
    text, detail = fmt.interval(value, unit)
    return Cell(text=text, detail=detail, brand=brand, sort=value.value)


def difference_cell(value: Interval, unit: Scale | None = None, *, brand: str = "") -> Cell:
    """Return a difference: bold if its interval excludes zero, marked ~ if not."""
    if value.value is None:
        return Cell(text=fmt.ABSENT)
    text, detail = fmt.interval(value, unit, signed=True)
    known = value.low is not None and value.high is not None
    clear = known and ((value.low or 0) > 0 or (value.high or 0) < 0)
    return Cell(
        text=text if clear or not known else f"~ {text}", detail=detail, brand=brand, sort=value.value, strong=clear
    )


def _cost_cells(evidence: Evidence, arm: Arm, unit: Scale) -> tuple[Cell, ...]:
    watt_hours = Scale(factor=1 / fmt.WH_PER_1000_PER_JOULE, unit="Wh")
    part = arm.role if arm.policy in {"fixed", arm.role} else f"{arm.role} ({arm.policy})"
    measured = arm.energy.value is not None
    return (
        replace(arm_cell(evidence, arm), detail=fmt.clean(part)),
        Cell(text=fmt.steps(arm.steps), detail=_spread(arm), sort=arm.steps),
        interval_cell(arm.energy, unit, arm.brand, absent=no_joules(evidence)),
        Cell(
            text=fmt.interval(arm.energy, watt_hours)[0] if measured else no_joules(evidence),
            brand=arm.brand,
            sort=arm.energy.value,
        ),
    )


def _work_cell(arm: Arm, unit: Scale) -> Cell:
    return Cell(text=fmt.number(None if arm.flops is None else arm.flops / unit.factor), sort=arm.flops)


def _spread(arm: Arm) -> str:
    """Return the range from 5 % to 95 % of the steps, if they vary."""
    if arm.steps_spread is None or arm.steps_spread[0] == arm.steps_spread[1]:
        return ""
    return f"{fmt.steps(arm.steps_spread[0])} to {fmt.steps(arm.steps_spread[1])}"


def _energy_change(evidence: Evidence, versus: Versus | None, arm: Arm, anchor: str) -> Cell:
    if arm.cell_id == anchor:
        return Cell(text="anchor")
    if versus is None or versus.energy_ratio.value is None:
        return Cell(text=fmt.ABSENT)
    ends = (versus.energy_ratio.value, versus.energy_ratio.low, versus.energy_ratio.high)
    value, low, high = (None if v is None else v - 1 for v in ends)
    cell = difference_cell(Interval(value=value, low=low, high=high), PERCENT, brand=arm.brand)
    bound = "stated uncertainty" if evidence.imported else "meter's bound"
    return replace(cell, detail=f"{cell.detail} {bound}") if versus.by_bound and cell.detail else cell


def _quality_change(versus: Versus | None, arm: Arm, anchor: str, axis: Axis) -> Cell:
    if arm.cell_id == anchor:
        return Cell(text="anchor")
    if versus is None:
        return Cell(text="not compared" if axis.within_family else fmt.ABSENT)
    return difference_cell(versus.quality)


def _resampled(arm: Arm, axis: Axis) -> str:
    chance = arm.p_on_frontier.get(axis.name)
    return "" if chance is None else f"P {chance:.2f}"


def _bound(arm: Arm, unit: Scale) -> Cell:
    bound = arm.energy_bound_j
    if bound is None:
        return Cell(text=fmt.ABSENT)
    return Cell(text=fmt.number(bound / unit.factor, 2), brand=arm.brand, sort=bound)


def _chance(arm: Arm, axis: Axis) -> Cell:
    chance = arm.p_on_frontier.get(axis.name)
    return Cell(text=fmt.ABSENT if chance is None else f"{chance:.2f}", sort=chance)


def _quality_column(axis: Axis) -> Column:
    arrow = "↑" if axis.higher else "↓"
    notes = [
        axis.description,
        "within one family only" if axis.within_family else "",
        "advisory" if axis.advisory else "",
    ]
    return Column(title=f"{axis.name} {arrow}", unit=axis.unit, numeric=True, hint="; ".join(filter(None, notes)))
