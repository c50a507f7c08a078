"""Builds a report from a run: every word and figure, without the layout.

run ── read_evidence ──► Evidence ──┐
    ── analyse ────────► Analysis ──┼── stamp, headline, glance         ten seconds
                                    ├── gate, choice, images, frontier, arms  a minute
                                    ├── the other sections              ten minutes
                                    └── payload                         machines
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from perjoule.running.reporting import ReportRequest
from perjoule_reports import format as fmt
from perjoule_reports import trust
from perjoule_reports.advice import RUN, caveats, deployment
from perjoule_reports.analysis import analyse
from perjoule_reports.choosing import choosing
from perjoule_reports.evidence import read_evidence
from perjoule_reports.glance import glance
from perjoule_reports.headline import headline
from perjoule_reports.pages import payload as data
from perjoule_reports.pairing import versus_anchor
from perjoule_reports.records import Report, RunData
from perjoule_reports.sections.adaptation import adaptation_section
from perjoule_reports.sections.arms import arms_section
from perjoule_reports.sections.choose import choices, choose_section
from perjoule_reports.sections.curves import curves_section
from perjoule_reports.sections.frontier import frontier_section
from perjoule_reports.sections.gate import gate_section, stamp, verdict_headline
from perjoule_reports.sections.method import method_section
from perjoule_reports.sections.noise import noise_section
from perjoule_reports.sections.notes import warnings_section
from perjoule_reports.sections.people import badge, people_section, with_gain
from perjoule_reports.sections.pictures import pictures_section
from perjoule_reports.sections.power import power_section
from perjoule_reports.sections.prompts import prompts_section
from perjoule_reports.sections.record import carbon_section, data_section, system_section
from perjoule_reports.sections.time import phases_section


def build_report(run: RunData, request: ReportRequest | None = None, page: Path | None = None) -> Report:
    """Build the whole report of a run. The function only reads: the run's tables and images.

    Args:
        run: The run.
        request: A baseline to gate against, and other options.
        page: The HTML file, if it will be written: images in the run directory are then linked from it.

    Raises:
        UsageError: If grams of CO2 are requested and the country is unknown.
    """
    asked = request or ReportRequest()
    evidence = read_evidence(run)
    analysis = analyse(run, evidence, asked)
    versus = versus_anchor(evidence, analysis)
    plan = choosing(run, evidence, analysis)
    safe = plan.safe.arm.cell_id if plan is not None and plan.safe is not None else ""
    top = with_gain(headline(evidence, analysis, versus, safe), run, analysis)
    pair = versus.get(top.test)
    deploy, call = deployment(run, evidence, analysis, pair, plan, asked.address or RUN)
    top = replace(top, deploy=deploy, call=call, beware=caveats(run, evidence, analysis, versus, pair))
    top = verdict_headline(top, run, asked.baseline, evidence, analysis)
    deployed = safe if analysis.recommends else ""
    notes = {
        "warnings": trust.warnings_table(run),
        "failures": trust.failures_table(run),
        "unscored": trust.unscored_table(run),
    }
    made = (
        gate_section(run, asked.baseline, evidence, analysis),
        choose_section(evidence, analysis, plan, recommends=analysis.recommends),
        pictures_section(run, evidence, top, asked.baseline, page, deployed),
        frontier_section(evidence, analysis, top.test),
        people_section(run, evidence, analysis),
        arms_section(evidence, analysis, versus),
        warnings_section(run, evidence, analysis, notes),
        adaptation_section(run, evidence, analysis),
        curves_section(evidence, analysis),
        prompts_section(run, evidence, analysis, top),
        phases_section(run, evidence),
        power_section(run, evidence),
        noise_section(evidence, analysis),
        system_section(run, evidence),
        method_section(run, evidence, analysis),
        data_section(run, evidence),
        carbon_section(analysis),
    )
    sections = tuple(section for section in made if section is not None)
    seen = glance(run, asked.baseline, evidence, analysis, top, deployed)
    figures = (seen.figure, *(figure for section in sections for figure in section.figures))
    rules = frozenset().union(*(figure.rules for figure in figures if figure is not None))
    verdict = stamp(analysis.verdict)
    options = choices(run, evidence, plan, recommends=analysis.recommends)
    return Report(
        title=fmt.clean(run.suite.title or run.suite.name),
        subtitle=_subtitle(run),
        provenance=evidence.provenance,
        imported=evidence.imported,
        stamp=verdict,
        headline=top,
        badges=(*trust.badges(run, evidence), *badge(run)),
        glance=seen,
        sections=sections,
        css_rules=tuple(sorted(rules)),
        payload=data.payload(run, evidence, analysis, verdict, top, notes, options),
    )


def _subtitle(run: RunData) -> str:
    system = run.system
    if run.is_imported:
        return f"imported from {fmt.clean(system.imported_from or 'a table')}"
    parts = [f"suite {fmt.clean(run.suite.name)}", fmt.moment(fmt.clean(system.created_utc or "date not recorded"))]
    return " · ".join([*parts, *([f"commit {fmt.clean(system.commit)[:12]}"] if system.commit else [])])
