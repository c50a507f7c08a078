"""Section 1: quality against joules, under the primary metric and, in small figures, under the others."""

from __future__ import annotations

from itertools import islice

from perjoule_reports.analysis import Analysis
from perjoule_reports.drawing.figures import Arrow, Panel, frontier, panels
from perjoule_reports.evidence import Axis, Evidence
from perjoule_reports.format import percent
from perjoule_reports.records import Figure, Section
from perjoule_reports.sections import guide, tables

_MOST_SMALL = 12


def frontier_section(evidence: Evidence, analysis: Analysis, test: str = "") -> Section:
    """Build the section; `test` is the cell of the headline, whose arm's saving is drawn as an arrow."""
    primary = evidence.primary
    tested = next((a.variant for a in evidence.arms if a.cell_id == test), "")
    main = _figures(evidence, analysis, primary, tested) if primary else []
    # one after the other, because each takes a tenth of a second to draw
    drawn = (figure for axis in evidence.axes if axis is not primary for figure in _small(evidence, axis))
    others = tuple(islice(drawn, _MOST_SMALL))
    if not main and not others:
        return Section(anchor="frontier", title="Frontier", how_to_read="", empty=f"a frontier ({_why_none(evidence)})")
    return Section(
        anchor="frontier",
        title="Frontier",
        how_to_read="Left is cheaper, up is better. Each point is one step count (labelled with its number if "
        "there is room); a line joins the step counts of one variant; crosses are 95 % intervals. A ring marks a point "
        "that no other point beats in both energy and quality; the ringed points beat everything in the pale area, and "
        "the frontier lies in the darker band in 90 % of the draws. Equal distances to the right multiply the energy "
        "by equal factors. An arrow shows the energy saved at equal quality.",
        sample=guide.sample(evidence),
        interval=guide.intervals(evidence),
        change="A metric that measures something else (see the small figures below), or other kinds of prompts. "
        "More prompts narrow the crosses" + ("." if evidence.imported else "; they do not change the meter's bound."),
        paragraphs=() if main else (f"There is no figure of the primary metric: {_why_none(evidence)}.",),
        figures=(*main, *others),
    )


def _why_none(evidence: Evidence) -> str:
    if evidence.primary is None and evidence.imported:
        return "the table states no quality"
    return "no cell has both joules and a score under the primary metric"


def _figures(evidence: Evidence, analysis: Analysis, axis: Axis, tested: str) -> list[Figure]:
    """Return a large figure with the anchor and small ones of other families; all are large without an anchor."""
    every = panels(evidence, axis)
    anchored = any(a.cell_id == analysis.anchor for panel in every for a in panel.arms)
    figures = []
    for i, panel in enumerate(every):
        held = any(a.cell_id == analysis.anchor for a in panel.arms)
        figures.append(
            frontier(
                evidence,
                panel,
                f"frontier-{evidence.axes.index(axis)}-{i}",
                data=tables.panel_table(evidence, panel),
                band=analysis.attainment if held else None,
                arrow=_arrow(analysis, panel, tested) if held else None,
                small=anchored and not held,
            )
        )
    return figures


def _small(evidence: Evidence, axis: Axis) -> list[Figure]:
    """Return one small figure for a metric; for a metric within families, the family with the most cells."""
    every = panels(evidence, axis)
    if not every:
        return []
    largest = max(every, key=lambda panel: len(panel.arms))
    name = f"frontier-{evidence.axes.index(axis)}-{every.index(largest)}"
    return [frontier(evidence, largest, name, data=tables.panel_table(evidence, largest), small=True)]


def _arrow(analysis: Analysis, panel: Panel, tested: str) -> Arrow | None:
    """Return the saving of the headline's arm at equal quality, if it is resolved."""
    record = next((r for r in analysis.comparisons if r.test == tested), None)
    if record is None or record.at_quality is None or record.saving_reason:
        return None
    saving, at = record.iso_quality_saving, record.at_quality
    ladder = [a for a in panel.arms if a.variant == record.anchor and a.energy.value]
    if saving.value is None or saving.low is None or saving.low <= 0 or not ladder:
        return None
    near = min(ladder, key=lambda a: abs((a.quality_of(panel.axis).value or 0) - at))
    from_j = near.energy.value or 0.0
    words = f"{percent(saving.value)} less at equal quality"
    return Arrow(quality=at, from_j=from_j, to_j=from_j * (1 - saving.value), words=words)
