"""Section 11: the sources of variability that the ± includes, and those that it does not."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Cell, Column, Section, Table
from perjoule_reports.sections import guide
from perjoule_reports.sections.tables import PERCENT

_HOW_TO_READ = (
    "Standard deviations of single windows or images, not of means. The last column says whether the intervals of this "
    "report include a source. "
)
_BOUND = (
    "The meter's bound is not a standard deviation: it is designed to hold for 99.5 % of windows. The part that comes "
    "from gain or idle power is common to all cells and cancels in ratios."
)
_IMPORTED_BOUND = "Only the table's authors know what the uncertainty of an imported energy means."


def noise_section(evidence: Evidence, analysis: Analysis) -> Section:
    """Build the section."""
    sources = analysis.variability
    estimate, why = analysis.drift
    if estimate is None:
        drifted = f"Drift over the run: unknown, {fmt.clean(why)}."
    else:
        text, detail = fmt.interval(estimate, PERCENT, signed=True)
        drifted = (
            f"Drift from the first window to the last: {text} % {detail} of a cell's energy, over "
            f"{fmt.plural(estimate.n, 'window')}."
        )
    return Section(
        anchor="noise",
        title="Noise",
        how_to_read=_HOW_TO_READ + (_IMPORTED_BOUND if evidence.imported else _BOUND),
        sample="Column n gives the number of groups of windows or images, or of windows, for each row.",
        interval=guide.NONE
        if evidence.imported
        else "Drift: 95 %, Student's t over windows, least squares of ln(E / mean of the cell) on the place "
        "in the run.",
        change="A second table of the same cells that differs by more than the intervals here allow."
        if evidence.imported
        else "Two A/A runs of this suite that differ by more than the intervals here allow.",
        paragraphs=(drifted,),
        empty="" if sources else "a finished trial, so the variability is unknown",
        deep=True,
        tables=(_table(evidence, analysis),) if sources else (),
    )


def _table(evidence: Evidence, analysis: Analysis) -> Table:
    name = evidence.primary.label if evidence.primary else "quality"
    rows = []
    for source in analysis.variability:
        absent = source.energy is None and source.quality is None
        rows.append((
            Cell(text=source.name),
            Cell(text=fmt.ABSENT if source.energy is None else fmt.number(100 * source.energy, 2), sort=source.energy),
            Cell(text=fmt.ABSENT if source.quality is None else fmt.number(source.quality, 2), sort=source.quality),
            Cell(text=str(source.n), sort=source.n),
            Cell(text="unknown" if absent else "yes" if source.inside else "no"),
            Cell(text=fmt.clean(source.reason)),
        ))  # fmt: skip
    columns = (
        Column(title="source"),
        Column(title="energy", unit="%", numeric=True),
        Column(title=name, numeric=True),
        Column(title="n", numeric=True),
        Column(title="included in ±"),
        Column(title="reason if absent"),
    )
    return Table(caption="Sources of variability", columns=columns, rows=tuple(rows))
