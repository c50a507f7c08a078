"""Section 4: warnings of the meter, failures, gaps, and anomalies."""

from __future__ import annotations

from collections.abc import Mapping

from perjoule_reports import format as fmt
from perjoule_reports import trust
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import RunData, Section, Table
from perjoule_reports.sections import guide


def warnings_section(
    run: RunData, evidence: Evidence, analysis: Analysis, notes: Mapping[str, Table | None]
) -> Section:
    """Build the section."""
    tables = tuple(table for table in notes.values() if table is not None)
    sentences = (
        *trust.partial(run),
        *trust.prompts(run),
        *trust.more_metrics(evidence),
        *analysis.troubles,
        *(fmt.clean(oddity.words) for oddity in evidence.odd),
        *trust.curves(evidence, analysis),
    )
    return Section(
        anchor="warnings",
        title="Warnings and gaps",
        how_to_read="Warnings of the meter, the protocol, the metrics and the curves. `perjoule explain "
        "CODE` explains "
        "one code. Missing values are left out and never counted as zero.",
        sample=f"All {run.trials.height} trials and {run.scores.height} scores.",
        interval=guide.NONE,
        change="A warning that covers most trials of one cell and few of another: their joules are not comparable.",
        paragraphs=sentences,
        empty="" if sentences or tables else "a warning, a failed trial or an image without a score",
        tables=tables,
    )
