"""Sections 12, 14 and 15: the system, provenance and data, carbon."""

from __future__ import annotations

import shlex

from perjoule_reports import format as fmt
from perjoule_reports import trust
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Evidence
from perjoule_reports.pages import payload as data
from perjoule_reports.records import Cell, Column, RunData, Section, Table
from perjoule_reports.sections import guide


def system_section(run: RunData, evidence: Evidence) -> Section:
    """Build the section about the system that the run was measured on."""
    short, rest = trust.system_tables(run.environment)
    if evidence.imported:
        device = run.system.comparability and run.system.comparability.device
        named = ", ".join(map(fmt.clean, device)) if isinstance(device, list) else "not stated"
        return Section(
            anchor="system",
            title="System under test",
            deep=True,
            how_to_read="This is what the imported table states about the origin of its numbers.",
            sample="Only what the table states is known.",
            change="Another device changes the joules.",
            interval=guide.NONE,
            paragraphs=(f"Device: {named}. perjoule did not measure this run; the rest of the system is unknown.",),
            folded=tuple(table for table in (short, rest) if table is not None and table.rows),
        )
    return Section(
        anchor="system",
        title="System under test",
        deep=True,
        how_to_read="Joules are comparable only between runs with the same comparability key.",
        sample="One system; properties that it does not report are shown as not recorded.",
        interval=guide.NONE,
        change="Another device, driver, power limit or version of torch changes the joules, and the key.",
        paragraphs=() if short.rows else ("The run does not describe its system.",),
        tables=(short,) if short.rows else (),
        folded=(rest,) if rest else (),
    )


def data_section(run: RunData, evidence: Evidence) -> Section:
    """Build the section about reproducing and citing the run."""
    if evidence.imported:
        return _imported_data_section(run)
    name = (run.system.meter and run.system.meter.name) or "auto"
    digests = trust.digests_table(run, data.prompt_digest(run.prompts))
    commands = [
        f"perjoule run suite.toml --meter {shlex.quote(fmt.clean(name))} --out NEW_RUN",
        "perjoule report NEW_RUN",
    ]
    return Section(
        anchor="data",
        title="Provenance and data",
        deep=True,
        how_to_read="suite.toml is in the run directory. The whole result is embedded in this page as JSON "
        "(element `perjoule-result`) and stored next to it as a file; raw windows are in trials.jsonl. Command: "
        f"{_command(run.system.command)}.",
        sample=f"{fmt.plural(run.trials.height, 'trial')}, {fmt.plural(run.images.height, 'image')}, "
        f"{fmt.plural(run.scores.height, 'score')}.",
        interval=guide.NONE,
        change="A different digest means a different run.",
        paragraphs=(_citation(run),),
        tables=(digests,),
        code="\n".join(commands),
    )


def _imported_data_section(run: RunData) -> Section:
    """Build the section about the origin of an imported run and the changes made to its table."""
    system = run.system
    table = fmt.clean(system.imported_from or "a table")
    rows = [
        ("table", table),
        ("SHA-256 of the table", fmt.clean(system.sha256 or "not recorded")),
        ("imported by perjoule", fmt.clean(system.perjoule or "of unknown version")),
    ]
    columns = (Column(title="what"), Column(title="value"))
    origin = Table(
        caption="Origin", columns=columns, rows=tuple((Cell(text=key), Cell(text=value)) for key, value in rows)
    )
    return Section(
        anchor="data",
        title="Provenance and data",
        deep=True,
        how_to_read="The table is not part of the run. The whole result is embedded in this page as JSON (element "
        "`perjoule-result`) and stored next to it as a file.",
        sample=f"{fmt.plural(run.trials.height, 'row')}, {fmt.plural(run.scores.height, 'score')}.",
        interval=guide.NONE,
        change="A table with a different digest means a different run.",
        paragraphs=tuple(f"On import: {fmt.clean(note)}." for note in system.import_notes or ()),
        tables=(origin,),
        code=f"perjoule import {shlex.quote(table)} --out NEW_RUN\nperjoule report NEW_RUN",
    )


def carbon_section(analysis: Analysis) -> Section | None:
    """Build the section about grams of CO2, if they were requested."""
    carbon = analysis.carbon
    if carbon is None:
        return None
    return Section(
        anchor="carbon",
        title="Carbon",
        how_to_read="An operational estimate, not an SCI score: the energy of the measured boundary multiplied by "
        "the yearly mean carbon intensity of "
        "a country's electricity.",
        sample=f"1000 images of {fmt.clean(analysis.anchor)}.",
        interval="The factor has no interval, and its error is larger than that of the energy.",
        change="Another country, year or hour; embodied carbon, which is not included.",
        paragraphs=(f"1000 images of {fmt.clean(analysis.anchor)}: {fmt.clean(carbon.line())}.",),
    )


def _command(command: list[str] | None) -> str:
    if not command:
        return "the command was not recorded"
    return fmt.shorten(fmt.clean(shlex.join(command)), 300)


def _citation(run: RunData) -> str:
    system = run.system
    when = fmt.clean(system.created_utc or "")[:4] or "no date"
    return (
        f"To cite this run: perjoule {fmt.clean(system.perjoule or 'of unknown version')}, commit "
        f"{fmt.clean(system.commit or 'not recorded')}, suite {fmt.clean(run.suite.name)}, {when}, comparability "
        f"key {fmt.clean(system.comparability_key or 'not recorded')}. Its question, how much people "
        "perceptually gain per joule, was left open by BudgetFusion (arXiv 2412.05780)."
    )
