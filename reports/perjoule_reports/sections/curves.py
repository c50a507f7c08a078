"""Section 7: the curves compared over all qualities, and how sensitive the number is."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from perjoule.display import fixed
from perjoule.statistics.records import RelativeCurve, Sensitivity
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.drawing.plots import colour, dash, grid, make_figure, marker, of_joules
from perjoule_reports.drawing.svg import INK
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Cell, Column, Figure, Section, Table
from perjoule_reports.sections import guide
from perjoule_reports.sections.tables import PERCENT, difference_cells

_DATA_PLACES = 9


def curves_section(evidence: Evidence, analysis: Analysis) -> Section:
    """Build the section."""
    curves = [(r.test, r.relative_curve) for r in analysis.comparisons]
    drawn = [(test, curve) for test, curve in curves if curve is not None and len(curve.quality) > 1]
    table = _sensitivity(evidence, analysis)
    resolved = any(record.resolved for record in analysis.sensitivity)
    return Section(
        anchor="curves",
        title="Curves",
        how_to_read="The figure shows, at each quality that both reach, how much more or less energy an arm "
        "needs than "
        "its ladder; below zero it saves energy. BD-energy is the mean of that line over quality (of the logarithm). A "
        "line that crosses zero cannot be summarised by one number: the arm needs less energy at some qualities and "
        "more at others. The table gives BD-energy under every metric and with two other interpolations.",
        sample=guide.sample(evidence),
        interval=guide.intervals(evidence)
        + " BD by PCHIP of ln E over quality on the upper envelope (Bjøntegaard 2001). The error "
        "of interpolation is not included: see the effect of leaving out one rung, and Akima compared with PCHIP.",
        change="A metric under which the sign changes; a value no larger than its leave-one-out error; overlap below "
        "60 %; more rungs near the knee.",
        empty="" if drawn or table else "two curves that share a quality",
        figures=(_figure(evidence, drawn),) if drawn else (),
        tables=(table,) if table and resolved else (),
        folded=(replace(table, caption=f"{table.caption}: none is resolved"),) if table and not resolved else (),
    )


def _figure(evidence: Evidence, drawn: list[tuple[str, RelativeCurve]]) -> Figure:
    axis = evidence.primary
    name = axis.label if axis else "quality"

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        axes.axhline(0, color=INK, linewidth=1)
        for test, curve in drawn:
            series = evidence.series(test)
            axes.plot(curve.quality, [100 * c for c in curve.energy_change], color=colour(series),
                      linestyle=dash(series), linewidth=2, marker=marker(series), markevery=8, markersize=6,
                      gid=f"arm{series}-curve")  # fmt: skip
        axes.set_xlabel(name + (f" ({axis.unit})" if axis and axis.unit else ""))
        axes.set_ylabel(of_joules("energy against the ladder (%", evidence.provenance) + ")")
        axes.xaxis.set_major_locator(MaxNLocator(6 if size[0] > 6 else 4))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.margins(x=0.02, y=0.12)
        if axis and not axis.higher:
            axes.invert_xaxis()
        grid(axes)

    places = [i * 32 // (_DATA_PLACES - 1) for i in range(_DATA_PLACES)]
    rows = tuple(
        (
            Cell(text=evidence.label_of(test), series=evidence.series(test)),
            Cell(text=fmt.number(curve.quality[i])),
            Cell(text=fmt.number(100 * curve.energy_change[i], 3)),
        )
        for test, curve in drawn
        for i in places
        if i < len(curve.quality)
    )
    columns = (Column(title="arm"), Column(title=name, numeric=True), Column(title="energy", unit="%", numeric=True))
    return make_figure(
        "relative-curves",
        "Energy against the fixed ladder, by quality",
        draw,
        caption="below zero the arm needs less energy for the same quality",
        description=f"{fmt.plural(len(drawn), 'line')} of relative energy over {name}. The table next to the figure "
        "contains some of their points.",
        data=Table(caption="Some points of the lines", columns=columns, rows=rows),
        legend=[(evidence.series(test), evidence.label_of(test)) for test, _ in drawn],
    )


def _sensitivity(evidence: Evidence, analysis: Analysis) -> Table | None:
    """Return BD-energy by arm and metric, with its sensitivity."""
    records = [(r, r.bd_energy) for r in analysis.sensitivity if r.bd_energy and r.bd_energy.value is not None]
    if not records:
        return None
    order = {name: i for i, name in enumerate(evidence.variants())}
    records.sort(key=lambda r: order.get(r[0].test, 0))
    brands = {arm.variant: arm.brand for arm in evidence.arms}
    differences = difference_cells([bd_energy for _, bd_energy in records], PERCENT)
    anchors = {record.anchor for record, _ in records}
    rows = []
    for (record, _), bd in zip(records, differences, strict=True):
        rows.append((
            Cell(text=evidence.label_of(record.test),
                 detail="" if len(anchors) == 1 else f"against {evidence.label_of(record.anchor)}",
                 series=evidence.series(record.test)),
            Cell(text=evidence.metric_label(record.metric)),
            replace(bd, strong=bd.strong and record.resolved, brand=brands.get(fmt.clean(record.test), "")),
            _percent(record.akima),
            _percent(record.saturating),
            _percent(record.leave_one_out, signed=False),
            Cell(text=f"{100 * (record.overlap or 0):.0f}", sort=record.overlap),
            Cell(text=", ".join(map(str, record.dropped or ()))),
            Cell(text="yes" if record.resolved else "no", strong=record.resolved),
            Cell(text=_reason(record)),
        ))  # fmt: skip
    columns = (
        Column(title="arm"),
        Column(title="metric"),
        Column(title="BD-energy", unit="%, PCHIP", numeric=True),
        Column(title="Akima", unit="%", numeric=True),
        Column(
            title="stretched", unit="%", numeric=True, hint="interpolated over −ln(bound + ε − Q), for bounded metrics"
        ),
        Column(title="one rung out", unit="± %", numeric=True, hint="largest change when one inner rung is left out"),
        Column(title="overlap", unit="%", numeric=True, hint="of the qualities that either reaches; 60 % are needed"),
        Column(title="dropped", numeric=True, hint="number of rungs below the envelope: arm, ladder"),
        Column(title="resolved"),
        Column(title="reason"),
    )
    against = f" against {evidence.label_of(anchors.pop())}" if len(anchors) == 1 else ""
    return Table(caption=f"BD-energy{against} by metric and interpolation", columns=columns, rows=tuple(rows))


def _reason(record: Sensitivity) -> str:
    """Return why a value is not resolved; the share of the overlap has its own column."""
    reason = fmt.clean(record.reason or "")
    return "small overlap" if reason.startswith("insufficient overlap") else reason


def _percent(value: float | None, *, signed: bool = True) -> Cell:
    if value is None:
        return Cell(text=fmt.ABSENT)
    text = fixed(100 * value, 1)
    return Cell(text=f"+{text}" if signed and value > 0 else text, sort=value)
