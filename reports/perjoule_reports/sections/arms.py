"""Section 2: every cell with its cost and quality, and every arm compared with its ladder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from perjoule.statistics.preference import Preference
from perjoule.statistics.records import Comparison
from perjoule.statistics.sensor_errors import mean_power_w, sentence
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Evidence
from perjoule_reports.format import Scale
from perjoule_reports.pairing import Versus
from perjoule_reports.records import Cell, Column, Section, Table
from perjoule_reports.sections import guide, tables
from perjoule_reports.sections.tables import PERCENT, difference_cell


def arms_section(evidence: Evidence, analysis: Analysis, versus: Mapping[str, Versus]) -> Section:
    """Build the section."""
    compared = comparisons_table(evidence, analysis)
    anchor = f" The anchor is {evidence.words_of(analysis.anchor)}." if analysis.anchor else ""
    return Section(
        anchor="arms",
        title="Arms",
        how_to_read="There is one row per variant and step count; the 95 % interval is under each number. ↑ means that "
        f"more is better, ↓ that less is better.{anchor} Differences from the anchor are paired by prompt: ~ marks a "
        "difference whose "
        "interval includes zero, bold one whose interval excludes it. The second table compares whole arms with the "
        "fixed ladder of their family: the energy saved at the quality of the ladder's longest run, and BD-energy, the "
        "mean over all qualities that both reach. 10th percentile: one image in ten is worse.",
        sample=guide.sample(evidence),
        interval=guide.intervals(evidence)
        + " For BD-energy and savings, every draw repeats the whole computation from the "
        "means; the error of interpolation is not included (see Curves)."
        if evidence.has_intervals or not evidence.imported
        else guide.intervals(evidence),
        change="More prompts may turn a difference marked ~ either way. A bold difference is valid for prompts like "
        f"these{'' if evidence.imported else ' on this machine'}.",
        paragraphs=_sensor_errors(evidence, analysis) if evidence.arms else ("No trial was finished.",),
        tables=tuple(t for t in (_cells(evidence, analysis, versus), compared) if t is not None),
    )


def _sensor_errors(evidence: Evidence, analysis: Analysis) -> tuple[str, ...]:
    """How far each saving moves with the sensor's gain and offset, if its arms draw different power."""
    variants = {arm.variant for arm in evidence.arms}
    powers_w = {
        evidence.label_of(name): mean_power_w(
            (a.energy.value, a.duration_s, a.provenance) for a in evidence.arms if a.variant == name
        )
        for name in variants
    }
    said = (
        sentence(evidence.label_of(one.test), evidence.label_of(one.anchor), one.iso_quality_saving.value, powers_w)
        for one in analysis.comparisons
    )
    return tuple(f"{text}." for text in said if text)


def _cells(evidence: Evidence, analysis: Analysis, versus: Mapping[str, Versus]) -> Table | None:
    if not evidence.arms:
        return None
    points = analysis.frontier.points if analysis.frontier else ()
    tails = {p.cell_id: p.quality_p10 for p in points}
    return tables.arms_table(evidence, versus, tails, analysis.anchor)


def comparisons_table(evidence: Evidence, analysis: Analysis) -> Table | None:
    """Return the arms compared with their anchors; None if there is nothing to compare."""
    records = analysis.comparisons
    if not records or evidence.primary is None:
        return None
    unit = evidence.primary.unit or evidence.primary.label
    per_joule = _per_joule(records)
    columns: tuple[Column, ...] = (
        Column(title="arm", hint="a variant with all its cells; below it the ladder that it is compared with"),
        Column(title="saving", unit="% at equal quality", numeric=True, hint="1 − E_T(q)/E_A(q), and q"),
        Column(title="BD-energy", unit="%", numeric=True, hint="mean change of energy over the common qualities"),
        Column(title="gain", unit=f"{unit} at equal energy", numeric=True),
        Column(title="gain per joule", unit=f"{unit} per {per_joule.unit}", numeric=True, more=True,
               hint="relative to the ladder's cheapest run: (Q − Q0)/(E − E0)"),
        Column(title="preference", unit="JOD-eq.", numeric=True, more=True,
               hint=_preference_hint(evidence)),
        Column(title="resolved", hint="enough overlap, no crossing, and larger than the error of interpolation"),
        Column(title="reason or remark"),
    )  # fmt: skip
    several = len({record.anchor for record in records}) > 1
    ladders = [f"against the ladder of {evidence.label_of(record.anchor)}" for record in records]
    rows = tuple(
        _compared(evidence, record, per_joule, ladder if several else "")
        for record, ladder in zip(records, ladders, strict=True)
    )
    if evidence.primary.track == "preference":  # choices were made, not predicted
        place = [column.title for column in columns].index("preference")
        columns = columns[:place] + columns[place + 1 :]
        rows = tuple(row[:place] + row[place + 1 :] for row in rows)
    caption = "Arms against their fixed ladders" if several else f"Arms {ladders[0]}"
    return Table(caption=caption, columns=columns, rows=rows)


def _preference_hint(evidence: Evidence) -> str:
    if evidence.imported:
        return "computed from the scores of the table, comparing the most expensive cells"
    return "predicted by the metric, comparing the most expensive cells; no human ratings"


def _compared(evidence: Evidence, record: Comparison, per_joule: Scale, against: str) -> tuple[Cell, ...]:
    brand = next((a.brand for a in evidence.arms if a.variant == record.test), "")
    saving = difference_cell(record.iso_quality_saving, PERCENT, brand=brand)
    if record.at_quality is not None and saving.sort is not None:
        saving = replace(saving, detail=f"{saving.detail} at {fmt.number(record.at_quality)}".strip())
    elif record.saving_bound is not None:
        more = "more than" if "more than" in (record.saving_reason or "") else "less than"
        saving = Cell(text=f"{more} {fmt.percent(record.saving_bound)}", brand=brand)
    resolved = record.resolved
    bd = difference_cell(record.bd_energy, PERCENT, brand=brand)
    if not resolved:
        bd = replace(bd, strong=False)
    holm = "" if record.resolved_holm == resolved else "; not after Holm's correction"
    return (
        Cell(
            text=evidence.label_of(record.test),
            detail=", ".join(filter(None, (evidence.id_of(record.test), record.role, against))),
            series=evidence.series(record.test),
        ),
        saving,
        bd,
        difference_cell(record.iso_energy_gain),
        difference_cell(record.gain_per_joule, per_joule),
        _preference(record.preference),
        Cell(
            text="yes" if resolved else "no",
            detail=f"overlap {100 * record.overlap:.0f} %",
            sort=record.overlap,
            strong=resolved,
        ),
        Cell(text=_of_ladder(record.reason) if record.reason else f"BD-energy may be quoted{holm}"),
    )


def _of_ladder(reason: str) -> str:
    """Return a reason in the words of this section, whose anchor is a cell: an arm is compared with a ladder."""
    return re.sub(r"\banchor\b", "ladder", fmt.clean(reason))


def _preference(preference: Preference | None) -> Cell:
    if preference is None:
        return Cell(text=fmt.ABSENT)
    cell = difference_cell(preference.gain)
    wins = preference.win_rate.value
    if wins is None:
        return cell
    return replace(cell, detail=f"{cell.detail} {fmt.percent(wins)} wins".strip())


def _per_joule(records: Sequence[Comparison]) -> Scale:
    values = [abs(r.gain_per_joule.value) for r in records if r.gain_per_joule.value]
    small = bool(values) and sorted(values)[len(values) // 2] < 0.01
    return Scale(factor=1e-3, unit="kJ") if small else Scale(factor=1.0, unit="J")
