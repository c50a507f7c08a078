"""The tables about arms: cost and quality of each cell, and the numbers of every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.figures import Panel
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.format import Scale
from perjoule_reports.naming import capitalised
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
    unit = evidence.energy_unit
    time = fmt.scale((a.duration_s for a in evidence.arms), "s")
    flops = fmt.scale((a.flops for a in evidence.arms), "FLOP")
    watt_hours = Scale(factor=1 / fmt.WH_PER_1000_PER_JOULE, unit="Wh")
    primary, arms = evidence.primary, evidence.arms
    absent = no_joules(evidence)
    parts: list[tuple[Column, Sequence[Cell]]] = [
        (Column(title="cell", hint="a variant at one step count; below it, its name in commands, and its role"),
         [replace(arm_cell(evidence, arm), detail=", ".join(filter(None, (_id(arm), _part(arm))))) for arm in arms]),
        *_prompt_counts(evidence),
        (Column(title="energy", unit=f"{unit.unit}/image", numeric=True, hint=_energy_hint(evidence)),
         interval_cells([arm.energy for arm in arms], unit, [arm.brand for arm in arms], absent)),
    ]  # fmt: skip
    if versus:
        parts.append((
            Column(title="Δ energy", unit="% vs anchor", numeric=True, hint=_DIFFERENCE_HINT),
            _energy_changes(evidence, versus, anchor),
        ))  # fmt: skip
    if primary:
        parts.append((_quality_column(primary), interval_cells([arm.quality_of(primary) for arm in arms])))
        if versus:
            parts.append((
                Column(title=f"Δ {primary.label}", unit="vs anchor", numeric=True, hint=_DIFFERENCE_HINT),
                _quality_changes(evidence, versus, anchor, primary),
            ))  # fmt: skip
        parts.append((
            Column(title="frontier", hint="below it, the share of draws in which the cell is on the frontier"),
            [_on_frontier(arm, primary) for arm in arms],
        ))  # fmt: skip
    parts += [
        (Column(title="time", unit=f"{time.unit}/image", numeric=True, hint=_time_hint(evidence)),
         interval_cells([Interval(value=arm.duration_s) for arm in arms], time, absent=fmt.ABSENT)),
        (Column(title="steps", numeric=True, more=True,
                hint="denoising steps; for an adaptive policy the mean, and 5 % to 95 %"),
         [Cell(text=fmt.steps(arm.steps), detail=_spread(arm), sort=arm.steps) for arm in arms]),
        (Column(title="energy", unit="Wh/1000 images", numeric=True, more=True,
                hint="1 J/image is 0.2778 Wh per 1000 images"),
         interval_cells([Interval(value=arm.energy.value) for arm in arms], watt_hours, [arm.brand for arm in arms],
                        absent)),
    ]  # fmt: skip
    if tails and primary:
        ends = [tails.get(arm.cell_id, Interval()) for arm in arms]
        unknown = [fmt.ABSENT if primary.name in arm.cell_values else "not scored" for arm in arms]
        parts.append((
            Column(title=primary.label, unit="10th percentile", numeric=True, more=True,
                   hint="one image in ten is worse"),
            [cell if end.value is not None else Cell(text=text)
             for cell, end, text in zip(interval_cells(ends), ends, unknown, strict=True)],
        ))  # fmt: skip
    parts += [
        (Column(title="power", unit="W", numeric=True, more=True, hint="energy divided by time"),
         interval_cells([Interval(value=arm.mean_power_w) for arm in arms], None,
                        [arm.brand if arm.mean_power_w else "" for arm in arms], fmt.ABSENT)),
        (Column(title="NFE", numeric=True, more=True, hint=_nfe_hint(evidence)),
         [Cell(text=fmt.steps(arm.nfe), sort=arm.nfe) for arm in arms]),
    ]  # fmt: skip
    if any(arm.flops is not None for arm in arms):
        parts.append((
            Column(title="work", unit=f"{flops.unit}/image", numeric=True, more=True, hint=FLOPS_HINT),
            interval_cells([Interval(value=arm.flops) for arm in arms], flops, absent=fmt.ABSENT),
        ))  # fmt: skip
    parts += [
        (replace(_quality_column(axis), more=True), interval_cells([arm.quality_of(axis) for arm in arms]))
        for axis in evidence.axes
        if axis is not primary
    ]
    marked = {i for i, a in enumerate(arms) if primary and a.on_frontier.get(primary.name) and not a.dropped}
    return Table(
        caption="Every cell of the run" + (f"; frontier by {primary.label}" if primary else ""),
        columns=tuple(column for column, _ in parts),
        rows=tuple(zip(*(cells for _, cells in parts), strict=True)),
        marked=frozenset(marked),
    )


def panel_table(evidence: Evidence, panel: Panel) -> Table:
    """Return the numbers of one frontier figure."""
    unit = fmt.scale((a.energy.value for a in panel.arms), "J")
    energies = interval_cells([arm.energy for arm in panel.arms], unit, [arm.brand for arm in panel.arms])
    qualities = interval_cells([arm.quality[panel.axis.name] for arm in panel.arms])
    rows = [
        (
            arm_cell(evidence, arm),
            Cell(text=fmt.steps(arm.steps), sort=arm.steps),
            energy,
            _bound(arm, unit),
            quality,
            Cell(text="yes" if arm.on_frontier.get(panel.axis.name) else "no"),
            _chance(arm, panel.axis),
        )
        for arm, energy, quality in zip(panel.arms, energies, qualities, strict=True)
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
    return Table(caption=f"Data of the figure: {panel.axis.label}{remark}", columns=columns, rows=tuple(rows))


def arm_cell(evidence: Evidence, arm: Arm) -> Cell:
    """Return the head of an arm's row, with the variant's colour and marker."""
    return Cell(text=capitalised(arm.words, arm.variant), detail=_id(arm), series=evidence.series(arm.variant))


def _id(arm: Arm) -> str:
    """Return the id of a cell, unless it is its name."""
    return "" if arm.words == arm.cell_id else fmt.clean(arm.cell_id)


def interval_cell(value: Interval, unit: Scale | None = None, brand: str = "", absent: str = "not scored") -> Cell:
    """Return a number with its interval below; absent numbers are named in words."""
    if value.value is None:
        return Cell(text=absent)
    text, detail = fmt.interval(value, unit)
    return Cell(text=text, detail=detail, brand=brand, sort=value.value)


def interval_cells(
    values: Sequence[Interval], unit: Scale | None = None, brands: Sequence[str] = (), absent: str = "not scored"
) -> list[Cell]:
    """Return the cells of a column, which share one number of decimals."""
    decimals = fmt.decimals_of(values, unit)
    cells = []
    for value, brand in zip(values, brands or [""] * len(values), strict=True):
        text, detail = fmt.interval(value, unit, decimals=decimals)
        known = value.value is not None
        cells.append(Cell(text=text, detail=detail, brand=brand, sort=value.value) if known else Cell(text=absent))
    return cells


def difference_cell(
    value: Interval, unit: Scale | None = None, *, brand: str = "", decimals: int | None = None
) -> Cell:
    """Return a difference: bold if its interval excludes zero, marked ~ if not."""
    if value.value is None:
        return Cell(text=fmt.ABSENT)
    text, detail = fmt.difference(value, unit, decimals)
    clear = fmt.excludes_zero(value)
    return Cell(
        text=text if clear or not detail else f"~ {text}",
        detail=detail,
        brand=brand,
        sort=value.value,
        strong=clear,
    )


def difference_cells(values: Sequence[Interval], unit: Scale | None = None, brand: str = "") -> list[Cell]:
    """Return the differences of a column, which share one number of decimals."""
    decimals = fmt.decimals_of(values, unit, smallest=False)
    return [difference_cell(value, unit, brand=brand, decimals=decimals) for value in values]


def _prompt_counts(evidence: Evidence) -> list[tuple[Column, Sequence[Cell]]]:
    """Return the column of prompts of a race, whose cells have different numbers; none of other runs."""
    if not any(arm.dropped for arm in evidence.arms):
        return []
    column = Column(title="prompts", numeric=True, hint="a race gives no further prompts to cells that are dominated")
    return [
        (
            column,
            [
                Cell(text=str(arm.prompt_count), detail=fmt.clean(arm.dropped or ""), sort=arm.prompt_count)
                for arm in evidence.arms
            ],
        )
    ]


def _part(arm: Arm) -> str:
    if arm.role == arm.policy == "fixed":
        return ""
    return fmt.clean(arm.role if arm.policy in {"fixed", arm.role} else f"{arm.role} ({arm.policy})")


def _on_frontier(arm: Arm, axis: Axis) -> Cell:
    if arm.dropped:
        return Cell(text="dropped", detail=_resampled(arm, axis))
    if arm.quality_of(axis).value is None:
        return Cell(text=fmt.ABSENT)
    on = bool(arm.on_frontier.get(axis.name))
    return Cell(text="yes" if on else "no", detail=_resampled(arm, axis), strong=on)


def _spread(arm: Arm) -> str:
    """Return the range from 5 % to 95 % of the steps, if they vary."""
    if arm.steps_spread is None or arm.steps_spread[0] == arm.steps_spread[1]:
        return ""
    return f"{fmt.steps(arm.steps_spread[0])} to {fmt.steps(arm.steps_spread[1])}"


def _energy_changes(evidence: Evidence, versus: Mapping[str, Versus], anchor: str) -> list[Cell]:
    """Return the column of relative energies, less one."""
    changes = {}
    for cell_id, pair in versus.items():
        ends = (pair.energy_ratio.value, pair.energy_ratio.low, pair.energy_ratio.high)
        value, low, high = (None if v is None else v - 1 for v in ends)
        changes[cell_id] = Interval(value=value, low=low, high=high)
    decimals = fmt.decimals_of(changes.values(), PERCENT)
    bound = "stated uncertainty" if evidence.imported else "meter's bound"
    cells = []
    for arm in evidence.arms:
        change = changes.get(arm.cell_id, Interval())
        cell = difference_cell(change, PERCENT, brand=arm.brand, decimals=decimals)
        if change.value is not None and versus[arm.cell_id].by_bound and cell.detail:
            cell = replace(cell, detail=f"{cell.detail} {bound}")
        cells.append(Cell(text="anchor") if arm.cell_id == anchor else cell)
    return cells


def _quality_changes(evidence: Evidence, versus: Mapping[str, Versus], anchor: str, axis: Axis) -> list[Cell]:
    """Return the column of differences of the primary metric."""
    decimals = fmt.decimals_of((pair.quality for pair in versus.values()), None)
    absent = Cell(text="not compared" if axis.within_family else fmt.ABSENT)
    return [
        Cell(text="anchor")
        if arm.cell_id == anchor
        else difference_cell(versus[arm.cell_id].quality, decimals=decimals)
        if arm.cell_id in versus
        else absent
        for arm in evidence.arms
    ]


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
        "" if axis.name in axis.label else axis.name,
        axis.description,
        "within one family only" if axis.within_family else "",
        "advisory" if axis.advisory else "",
    ]
    return Column(title=f"{axis.label} {arrow}", unit=axis.unit, numeric=True, hint="; ".join(filter(None, notes)))
