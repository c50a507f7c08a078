"""Section 10: power over time with the phases, and a table of the joules of each phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from perjoule.meters.conditions import THROTTLE_REASONS
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import NARROW, WIDE
from perjoule_reports.drawing.phases import phase_colour, phase_word
from perjoule_reports.drawing.plots import make_figure
from perjoule_reports.drawing.svg import CARD, GRID, INK, MUTED
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.power import MOST_WINDOWS, PhaseEnergy, PowerWindow, phase_energies, power_windows, thinned
from perjoule_reports.records import Cell, Column, RunData, Section, Table
from perjoule_reports.sections.tables import arm_cell

MOST_TRACES = 3
_MOST_BANDS = 40  # a window with many short calls is drawn without bands

_SECTION = Section(
    anchor="power",
    title="Power trace",
    deep=True,
    how_to_read="The line shows the readings of the power sensor in one window, not smoothed; the dashed line is the "
    "power at rest, measured before the window. Runs record how long each phase took but not when, so the bands are "
    "laid end to end in the pipeline's order, and the rest of the window counts as denoising. The metered joules of a "
    "window are divided among the phases by the samples. Conditions are reported per window: the time of a throttle "
    "inside it is not recorded.",
    interval="± is the change of a phase's joules if each of its ends moves by one refresh of the sensor; a phase "
    "shorter than that refresh is not resolved.",
    change="A sensor with a faster refresh, or longer windows: phases of many refreshes have small bounds.",
)


def power_section(run: RunData, evidence: Evidence) -> Section:
    """Build section 10 of a report; without samples it gives the reason."""
    windows = power_windows(run, evidence)
    if not windows:
        return replace(_SECTION, empty=f"a power trace ({_why_none(run)})")
    costs = {window.trial_id: phase_energies(window) for window in windows}
    figures = [
        make_figure(
            f"power-{i}",
            f"{fmt.clean(window.arm.cell_id)}: power over one window",
            partial(trace, window),
            caption=_caption(window),
            description=_described(window),
            wide=(WIDE[0], 2.9),
            narrow=(NARROW[0], 3.1),
            data=_window_table(window, costs[window.trial_id]),
        )
        for i, window in enumerate(_chosen(windows))
    ]
    table = _phase_table(evidence, windows, costs)
    return replace(
        _SECTION,
        sample=f"{fmt.plural(len(windows), 'window')} with samples, at most {MOST_WINDOWS} per cell.",
        paragraphs=() if table else ("No trial recorded how long its phases took, so the joules cannot be divided.",),
        figures=tuple(figures),
        tables=(table,) if table else (),
    )


def trace(window: PowerWindow, axes: Axes, size: tuple[float, float]) -> None:
    """Draw watts over seconds, with the phases as bands behind them, and rest before and after."""
    t_s, power_w = thinned(window.t_s, window.power_w)
    end_s, margin_s = window.duration_s, 0.07 * window.duration_s
    top_w = max(float(power_w.max()), window.idle_w or 0.0) * 1.28
    shown = window.bands if len(window.bands) <= _MOST_BANDS else ()

    for band in shown:
        colour = phase_colour(band.phase)
        axes.axvspan(band.begin_s, band.end_s, facecolor=colour, alpha=0.16, linewidth=0)
        room = (band.end_s - band.begin_s) / (end_s + 2 * margin_s) * size[0]  # inches, about
        word = phase_word(band.phase)
        upright = room > 0.085 * len(word) + 0.1
        if upright or room > 0.22:
            axes.text((band.begin_s + band.end_s) / 2, top_w * 0.985, word, ha="center", va="top", color=INK,
                      fontsize=9, rotation=0 if upright else 90,
                      bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.5})  # fmt: skip
    if window.idle_w is not None:
        axes.plot([-margin_s, end_s + margin_s], [window.idle_w] * 2, color=MUTED, linestyle=(0, (4, 3)),
                  linewidth=1.1)  # fmt: skip
        axes.annotate(f"idle {fmt.number(window.idle_w)} W", (end_s, window.idle_w), xytext=(-4, 4),
                      textcoords="offset points", ha="right", color=MUTED, fontsize=9)  # fmt: skip
    axes.step(t_s, power_w, where="pre", color=INK, linewidth=1.3, gid="trace")
    for edge_s in (0.0, end_s):
        axes.axvline(edge_s, color=MUTED, linewidth=0.8)
    axes.set_xlim(-margin_s, end_s + margin_s)
    axes.set_ylim(0, top_w)
    mark = fmt.brand(window.arm.provenance)
    axes.set_xlabel("seconds from the start of the window")
    axes.set_ylabel("power (W)" + (f", {fmt.provenance_title(window.arm.provenance or '')}" if mark else ""))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(True, axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _described(window: PowerWindow) -> str:
    phases = ", ".join(dict.fromkeys(phase_word(band.phase) for band in window.bands))
    return (
        f"{fmt.plural(len(window.t_s), 'sample')} over {fmt.quantity(window.duration_s, 's')}, from "
        f"{fmt.number(float(window.power_w.min()))} to {fmt.number(float(window.power_w.max()))} W. "
        f"{'Phases in order: ' + phases if phases else 'No phases were recorded'}. The table below contains the joules."
    )


def _chosen(windows: Sequence[PowerWindow]) -> list[PowerWindow]:
    """Return one window each of the cheapest, the middle and the most expensive cell: the one of median energy."""
    by_cell: dict[str, list[PowerWindow]] = {}
    for window in windows:
        by_cell.setdefault(window.arm.cell_id, []).append(window)
    cells = sorted(by_cell.values(), key=lambda some: (some[0].arm.energy.value or 0.0, some[0].arm.cell_id))
    places = sorted({round(i * (len(cells) - 1) / (MOST_TRACES - 1)) for i in range(MOST_TRACES)})
    return [
        sorted(cells[place], key=lambda w: (w.energy_j or 0.0, w.trial_id))[(len(cells[place]) - 1) // 2]
        for place in places
    ]


def _conditions(windows: Sequence[PowerWindow]) -> str:
    """Return temperatures, clocks and throttling of the boards over all windows of a cell."""
    boards = [board for window in windows for board in window.conditions]
    temperatures = [t for board in boards for t in board.temperature_c if t is not None]
    clocks = [c for board in boards for c in board.sm_clock_mhz or ()]
    slowed = sum(any(board.throttle_reasons for board in window.conditions) for window in windows)
    conditions = [f"{min(temperatures)} to {max(temperatures)} °C"] if temperatures else []
    conditions += [f"{min(clocks)} to {max(clocks)} MHz"] if clocks else []
    if any(board.throttle_reasons is not None for board in boards):
        conditions.append(f"▲ slowed down in {slowed} of {len(windows)}" if slowed else "not slowed down")
    return ", ".join(conditions) or "not recorded"


def _caption(window: PowerWindow) -> str:
    facts = [f"trial {fmt.clean(window.trial_id)}", fmt.clean(window.source)]
    if len(window.t_s) > len(thinned(window.t_s, window.power_w)[0]):
        facts.append(f"{fmt.plural(len(window.t_s), 'sample')}, drawn as lows and highs")
    if len(window.bands) > _MOST_BANDS:
        facts.append("too many pipeline calls in the window to draw their phases")
    for board in window.conditions:
        before_c, after_c = board.temperature_c
        if before_c is not None and after_c is not None:
            facts.append(f"{before_c} → {after_c} °C")
        if board.sm_clock_mhz:
            low, high = board.sm_clock_mhz
            facts.append(f"SM clock {low} MHz" if low == high else f"SM clock {low} to {high} MHz")
        if board.throttle_reasons is not None:
            names = [name for bit, name in THROTTLE_REASONS.items() if board.throttle_reasons & bit]
            facts.append(f"▲ slowed down: {', '.join(names)}" if names else "not slowed down")
    if not window.conditions:
        facts.append("temperature, clocks and throttling were not recorded")
    return "; ".join(facts)


def _window_table(window: PowerWindow, costs: dict[str, PhaseEnergy]) -> Table:
    """Return the numbers of one figure."""
    brand = window.arm.brand
    rows = [
        (
            Cell(text=phase_word(phase)),
            Cell(text=fmt.number(cost.seconds), sort=cost.seconds),
            Cell(text=fmt.number(cost.energy_j / cost.seconds if cost.seconds else None), brand=brand),
            Cell(text=fmt.number(cost.energy_j), detail=f"± {fmt.number(cost.bound_j, 2)}", brand=brand,
                 sort=cost.energy_j),
        )
        for phase, cost in costs.items()
    ]  # fmt: skip
    rows.append(
        (
            Cell(text="window"),
            Cell(text=fmt.number(window.duration_s), sort=window.duration_s),
            Cell(text=fmt.number(window.energy_j / window.duration_s if window.energy_j else None), brand=brand),
            Cell(text=fmt.number(window.energy_j) if window.energy_j is not None else "not metered", brand=brand,
                 sort=window.energy_j),
        )
    )  # fmt: skip
    if window.idle_w is not None:
        rest_j = window.idle_w * window.duration_s
        rows.append(
            (
                Cell(text="of which idle"),
                Cell(text=fmt.number(window.duration_s), sort=window.duration_s),
                Cell(text=fmt.number(window.idle_w), brand=brand, sort=window.idle_w),
                Cell(text=fmt.number(rest_j), brand=brand, sort=rest_j),
            )
        )
    columns = (
        Column(title="phase"),
        Column(title="time", unit="s", numeric=True),
        Column(title="mean power", unit="W", numeric=True),
        Column(title="energy", unit="J", numeric=True),
    )
    return Table(caption=f"Phases of trial {fmt.clean(window.trial_id)}", columns=columns, rows=tuple(rows))


def _phase_table(
    evidence: Evidence, windows: Sequence[PowerWindow], costs: dict[str, dict[str, PhaseEnergy]]
) -> Table | None:
    """Return joules per image of each phase, one row per cell, over all windows that have samples and phases."""
    by_cell: dict[str, list[PowerWindow]] = {}
    for window in windows:
        if costs[window.trial_id] and window.image_count:
            by_cell.setdefault(window.arm.cell_id, []).append(window)
    names = list(dict.fromkeys(phase for some in by_cell.values() for w in some for phase in costs[w.trial_id]))
    if not by_cell:
        return None
    means = {cell: _per_image(some, costs, names) for cell, some in by_cell.items()}
    unit = fmt.scale((mean for row in means.values() for mean, _ in row.values()), "J")
    rows = []
    for cell, some in by_cell.items():
        arm = some[0].arm
        total = sum(mean for mean, _ in means[cell].values())
        rows.append(
            (
                arm_cell(evidence, arm),
                *(_phase_cell(*means[cell][name], total, unit, arm) if name in means[cell] else Cell(text=fmt.ABSENT)
                  for name in names),
                Cell(text=fmt.number(total / unit.factor), brand=arm.brand, sort=total),
                _idle_cell(some, unit),
                Cell(text=str(len(some)), sort=float(len(some))),
                Cell(text=_conditions(some)),
            )
        )  # fmt: skip
    columns = (
        Column(title="cell"),
        *(Column(title=phase_word(name), unit=f"{unit.unit}/image", numeric=True,
                 hint="below it, the share of the total and the bound") for name in names),
        Column(title="all", unit=f"{unit.unit}/image", numeric=True, hint="gross energy of these windows"),
        Column(title="of which idle", unit=f"{unit.unit}/image", numeric=True, hint="power at rest multiplied by time"),
        Column(title="windows", numeric=True, hint=f"with samples; at most {MOST_TRACES} are drawn"),
        Column(title="conditions"),
    )  # fmt: skip
    return Table(caption="Joules of each phase, by cell", columns=columns, rows=tuple(rows))


def _per_image(
    windows: Sequence[PowerWindow], costs: dict[str, dict[str, PhaseEnergy]], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    images = sum(window.image_count for window in windows)
    totals = {}
    for name in names:
        some = [costs[window.trial_id][name] for window in windows if name in costs[window.trial_id]]
        if some:
            totals[name] = sum(c.energy_j for c in some) / images, sum(c.bound_j for c in some) / images
    return totals


def _phase_cell(mean_j: float, bound_j: float, total_j: float, unit: fmt.Scale, arm: Arm) -> Cell:
    share = f"{fmt.percent(mean_j / total_j)}, " if total_j > 0 else ""
    return Cell(
        text=fmt.number(mean_j / unit.factor),
        detail=f"{share}± {fmt.number(bound_j / unit.factor, 2)}",
        brand=arm.brand,
        sort=mean_j,
    )


def _idle_cell(windows: Sequence[PowerWindow], unit: fmt.Scale) -> Cell:
    known = [w for w in windows if w.idle_w is not None]
    if len(known) < len(windows):
        return Cell(text="not measured")
    mean_j = sum((w.idle_w or 0.0) * w.duration_s for w in known) / sum(w.image_count for w in known)
    return Cell(text=fmt.number(mean_j / unit.factor), brand=windows[0].arm.brand, sort=mean_j)


def _why_none(run: RunData) -> str:
    name = fmt.clean((run.system.meter and run.system.meter.name) or "")
    if run.is_imported:
        return "an imported table has no power samples"
    if name == "estimate":
        return "the estimate comes from a power model without samples"
    if name.startswith("work"):
        return "counted work has no power samples"
    return f"the meter {name} recorded no power samples" if name else "no power samples"
