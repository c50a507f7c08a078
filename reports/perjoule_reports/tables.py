"""The tables about arms: what each cell costs, what it gives, and the numbers behind every picture."""

from __future__ import annotations

from dataclasses import replace

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.figures import Panel
from perjoule_reports.format import Interval, Scale
from perjoule_reports.records import Cell, Column, Table

_ENERGY_HINT = "gross energy of the windows over the images they made, with its interval"


def arms_table(evidence: Evidence) -> Table:
    """One row per cell: part, steps, cost in several units, every quality, and the frontier."""
    unit = fmt.scale((a.energy.value for a in evidence.arms), "J")
    time = fmt.scale((a.duration_s for a in evidence.arms), "s")
    primary = evidence.primary
    columns = [
        Column(title="cell", hint="variant and step count; under it the part it plays"),
        Column(title="steps", numeric=True, hint="denoising steps asked for; the mean for an adaptive policy"),
        Column(title="NFE", numeric=True, hint="denoiser evaluations per image; guidance counts two a step"),
        Column(title="energy", unit=f"{unit.unit}/image", numeric=True, hint=_ENERGY_HINT),
        Column(title="energy", unit="Wh/1000 images", numeric=True, hint="1 J/image is 0.2778 Wh per 1000 images"),
        Column(title="time", unit=f"{time.unit}/image", numeric=True, hint="wall time of the windows per image"),
        Column(title="power", unit="W", numeric=True, hint="energy over time"),
        *(_quality_column(axis) for axis in evidence.axes),
        Column(title="frontier", hint=f"no other cell is cheaper and better in {primary.name}" if primary else ""),
    ]
    rows = [_arm_row(evidence, arm, unit, time) for arm in evidence.arms]
    marked = {i for i, a in enumerate(evidence.arms) if primary and a.on_frontier.get(primary.name)}
    caption = "Every cell of the run" + (f"; frontier by {primary.name}" if primary else "")
    return Table(caption=caption, columns=tuple(columns), rows=tuple(rows), marked=frozenset(marked))


def panel_table(evidence: Evidence, panel: Panel) -> Table:
    """The numbers of one frontier picture."""
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
        Column(title="energy", unit=f"{unit.unit}/image", numeric=True, hint=_ENERGY_HINT),
        Column(title="meter bound", unit=f"± {unit.unit}", numeric=True, hint="bound on the meter's own error"),
        _quality_column(panel.axis),
        Column(title="on frontier"),
        Column(title="P(on frontier)", numeric=True, hint="share of resamples in which the cell is on the frontier"),
    )
    remark = f" ({panel.remark})" if panel.remark else ""
    return Table(caption=f"Data of the picture: {panel.axis.name}{remark}", columns=columns, rows=tuple(rows))


def arm_cell(evidence: Evidence, arm: Arm) -> Cell:
    """The head of an arm's row, with the variant's colour and marker."""
    return Cell(text=fmt.clean(arm.cell_id), series=evidence.series(arm.variant))


def interval_cell(value: Interval, unit: Scale | None = None, brand: str = "", absent: str = "not scored") -> Cell:
    """A number over its interval; what is absent says so in words."""
    if value.value is None:
        return Cell(text=absent)
    text, detail = fmt.interval(value, unit)
    return Cell(text=text, detail=detail, brand=brand, sort=value.value)


def _arm_row(evidence: Evidence, arm: Arm, unit: Scale, time: Scale) -> tuple[Cell, ...]:
    watt_hours = Scale(factor=1 / fmt.WH_PER_1000_PER_JOULE, unit="Wh")
    part = arm.role if arm.policy in {"fixed", arm.role} else f"{arm.role} ({arm.policy})"
    primary = evidence.primary
    on = bool(primary and arm.on_frontier.get(primary.name))
    measured = arm.energy.value is not None
    return (
        replace(arm_cell(evidence, arm), detail=fmt.clean(part)),
        Cell(text=fmt.steps(arm.steps), sort=arm.steps),
        Cell(text=fmt.steps(arm.nfe), sort=arm.nfe),
        interval_cell(arm.energy, unit, arm.brand, absent="not measured"),
        Cell(
            text=fmt.interval(arm.energy, watt_hours)[0] if measured else "not measured",
            brand=arm.brand,
            sort=arm.energy.value,
        ),
        Cell(text=fmt.number(None if arm.duration_s is None else arm.duration_s / time.factor), sort=arm.duration_s),
        Cell(text=fmt.number(arm.mean_power_w), brand=arm.brand, sort=arm.mean_power_w),
        *(interval_cell(arm.quality.get(axis.name, Interval())) for axis in evidence.axes),
        Cell(text="yes" if on else "no", detail=_resampled(arm, primary) if primary else ""),
    )


def _resampled(arm: Arm, axis: Axis) -> str:
    chance = arm.p_on_frontier.get(axis.name)
    return "" if chance is None else f"P {chance:.2f}"


def _bound(arm: Arm, unit: Scale) -> Cell:
    bound = arm.energy_bound_j
    return Cell(text=fmt.ABSENT if bound is None else fmt.number(bound / unit.factor, 2), brand=arm.brand, sort=bound)


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
