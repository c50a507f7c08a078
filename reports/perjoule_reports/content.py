"""From a run to a report: every word and picture decided here, none of the layout.

run ── read_evidence ──► Evidence ──┬── headline, badges        ten seconds
                                    ├── frontier, arms          a minute
                                    ├── pictures, phases        ten minutes
                                    ├── warnings, system, method, data
                                    └── payload                 machines
"""

from __future__ import annotations

import shlex

from perjoule_reports import format as fmt
from perjoule_reports import payload as data
from perjoule_reports import phases, tables, trust
from perjoule_reports.canvas import NARROW, SMALL, WIDE
from perjoule_reports.evidence import Axis, Evidence, read_evidence
from perjoule_reports.figures import frontier, panels
from perjoule_reports.headline import headline
from perjoule_reports.pictures import pictures_section
from perjoule_reports.power_section import power_section
from perjoule_reports.records import Figure, Report, RunData, Section, Table

_NOTHING = ("No warning, no failed trial, no image without a score.",)


class _Rules:
    """Collects the CSS rules that embedded figures ask for."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def frontier(self, evidence: Evidence, axis: Axis, small: bool) -> list[Figure]:
        """Draw every panel of one metric."""
        figures = []
        for i, panel in enumerate(panels(evidence, axis)):
            name = f"frontier-{evidence.axes.index(axis)}-{i}"
            wide = frontier(evidence, panel, name, SMALL if small else WIDE)
            narrow = None if small else frontier(evidence, panel, name + "-narrow", NARROW)
            self.found |= wide.rules | (narrow.rules if narrow else frozenset())
            said = [
                axis.description.rstrip("."),
                panel.remark,
                "compares with the family's longest run, so never between families" if axis.within_family else "",
                "" if axis.higher else "lower is better, the axis is reversed",
                "advisory" if axis.advisory else "",
            ]
            figures.append(
                Figure(
                    name=name,
                    title=axis.name if small else f"{axis.name} against energy per image",
                    caption="; ".join(filter(None, said)),
                    svg=wide.markup,
                    narrow=narrow.markup if narrow else "",
                    data=tables.panel_table(evidence, panel),
                    small=small,
                )
            )
        return figures


def build_report(run: RunData) -> Report:
    """Build the whole report of a run. Pure: reads the run's tables and pictures, writes nothing."""
    evidence = read_evidence(run)
    rules = _Rules()
    said = headline(run, evidence)
    traced, traced_rules = power_section(run, evidence)
    rules.found |= traced_rules
    notes = {
        "warnings": trust.warnings_table(run),
        "failures": trust.failures_table(run),
        "unscored": trust.unscored_table(run),
    }
    sections = (
        _frontier(evidence, rules),
        _arms(evidence),
        pictures_section(run, evidence),
        _phases(run, evidence, rules),
        traced,
        _warnings(notes, trust.oddities(evidence)),
        _system(run),
        _method(run, evidence),
        _data(run, evidence),
    )
    when = fmt.clean(run.environment.get("created_utc") or "at an unrecorded time")
    return Report(
        title=fmt.clean(run.suite.title or run.suite.name),
        subtitle=f"suite {fmt.clean(run.suite.name)} · run {when}",
        provenance=evidence.provenance,
        headline=said,
        badges=trust.badges(run, evidence),
        sections=tuple(section for section in sections if section is not None),
        css_rules=tuple(sorted(rules.found)),
        payload=data.payload(run, evidence, said, notes),
    )


def _frontier(evidence: Evidence, rules: _Rules) -> Section:
    primary = evidence.primary
    main = rules.frontier(evidence, primary, small=False) if primary else []
    others = [f for axis in evidence.axes if axis is not primary for f in rules.frontier(evidence, axis, small=True)]
    missing = () if main else ("No cell has both joules and a score under the primary metric, so there is no picture.",)
    return Section(
        anchor="frontier",
        title="Frontier",
        how_to_read="Left is cheaper, up is better. Each point is one step count (its number stands beside it); a line "
        "joins the step counts of one variant; bars are 95 % intervals over prompts. A ring marks a point that no "
        "other point beats in both energy and quality; the shade is what the ringed points beat. Equal distances "
        "to the right multiply the cost by equal factors.",
        paragraphs=missing,
        figures=(*main, *others),
    )


def _arms(evidence: Evidence) -> Section:
    return Section(
        anchor="arms",
        title="Cells",
        how_to_read="One row per variant and step count. Under a number stands its 95 % interval. ↑ means more is "
        "better, ↓ less. The meter's own error comes on top of the interval: see the data of the frontier. Compare "
        "rows by the headline's paired differences, not by whether two intervals overlap.",
        paragraphs=() if evidence.arms else ("No trial was finished.",),
        tables=(tables.arms_table(evidence),) if evidence.arms else (),
    )


def _phases(run: RunData, evidence: Evidence, rules: _Rules) -> Section | None:
    cells = phases.phase_seconds(run, evidence)
    if not cells:
        return None
    labelled = [(fmt.shorten(fmt.clean(arm.cell_id), 28), seconds) for arm, seconds in cells]
    wide = phases.phase_shares(labelled, "phase-shares", WIDE)
    narrow = phases.phase_shares(labelled, "phase-shares-narrow", NARROW)
    rules.found |= wide.rules | narrow.rules
    figure = Figure(
        name="phase-shares",
        title="Share of wall time per pipeline phase",
        svg=wide.markup,
        narrow=narrow.markup,
        data=phases.phase_table(evidence, cells),
    )
    return Section(
        anchor="phases",
        title="Where the time goes",
        how_to_read="Shares of wall time, not of joules: energy is metered per window, and a phase that keeps the chip "
        "busier costs more per second than this picture shows. What fewer steps cannot shrink is everything "
        "but denoising.",
        figures=(figure,),
    )


def _warnings(notes: dict[str, Table | None], oddities: tuple[str, ...]) -> Section:
    found = tuple(table for table in notes.values() if table is not None)
    return Section(
        anchor="warnings",
        title="Warnings and gaps",
        how_to_read="What the meter, the protocol and the metrics had to say. `perjoule explain CODE` tells the "
        "consequence and the remedy. What is absent is absent: it counts nowhere as zero.",
        paragraphs=oddities or (() if found else _NOTHING),
        tables=found,
    )


def _system(run: RunData) -> Section:
    short, rest = trust.system_tables(run.environment)
    return Section(
        anchor="system",
        title="System under test",
        how_to_read="Joules compare only between runs whose comparability key agrees.",
        paragraphs=() if short.rows else ("The run does not describe its system.",),
        tables=(short,) if short.rows else (),
        folded=(rest,) if rest else (),
    )


def _method(run: RunData, evidence: Evidence) -> Section:
    return Section(
        anchor="method",
        title="Method",
        how_to_read="Generated from the suite and the run: what was done, not what is usual.",
        paragraphs=trust.method(run, evidence),
    )


def _data(run: RunData, evidence: Evidence) -> Section:
    meter = run.environment.get("meter")
    name = str(meter.get("name", "auto")) if isinstance(meter, dict) else "auto"
    digests = trust.digests_table(run, data.prompt_digest(run.prompts))
    return Section(
        anchor="data",
        title="Provenance and data",
        how_to_read="suite.toml lies in the run directory. The whole result is embedded in this page as JSON "
        "(element `perjoule-result`) and lies beside it as a file; raw windows are in trials.jsonl.",
        tables=(digests,),
        code=f"perjoule run suite.toml --meter {shlex.quote(fmt.clean(name))} --out NEW_RUN\nperjoule report NEW_RUN",
    )
