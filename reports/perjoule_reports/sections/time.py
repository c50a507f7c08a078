"""Section 5: wall time by phase."""

from __future__ import annotations

from perjoule_reports import format as fmt
from perjoule_reports.drawing import phases
from perjoule_reports.drawing.canvas import NARROW, WIDE
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Figure, RunData, Section
from perjoule_reports.sections import guide


def phases_section(run: RunData, evidence: Evidence) -> Section:
    """Build the section."""
    cells = phases.phase_seconds(run, evidence)
    shown = {
        "anchor": "phases",
        "title": "Time by phase",
        "deep": True,
        "how_to_read": "Shares of wall time, not of joules: energy is metered per window, and a phase with higher "
        "power "
        "takes a larger share of the energy than of the time. Fewer steps reduce only the time of "
        "denoising.",
        "sample": f"All windows of {fmt.plural(len(cells), 'cell')}.",
        "interval": guide.NONE,
        "change": "Large differences in power between phases: the power trace shows them if there are samples.",
    }
    if not cells:
        why = "a table does not state them" if evidence.imported else "no trial recorded them"
        return Section(**shown, empty=f"times of the phases ({why})")  # type: ignore[arg-type]
    labelled = [(fmt.shorten(fmt.clean(arm.cell_id), 28), seconds) for arm, seconds in cells]
    wide = phases.phase_shares(labelled, "phase-shares", WIDE)
    narrow = phases.phase_shares(labelled, "phase-shares-narrow", NARROW)
    figure = Figure(
        name="phase-shares",
        title="Share of wall time per pipeline phase",
        svg=wide.markup,
        narrow=narrow.markup,
        data=phases.phase_table(evidence, cells),
        rules=wide.rules | narrow.rules,
    )
    return Section(**shown, figures=(figure,))  # type: ignore[arg-type]
