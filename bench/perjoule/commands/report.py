"""`perjoule report`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import (
    Json,
    MarginEnergy,
    MarginQuality,
    Open,
    StudyOption,
    judged,
    judged_pair,
    page_link,
    print_record,
    print_text,
)
from perjoule.errors import UsageError
from perjoule.shares import share
from perjoule.text import one_line


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(report)


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Run directory, its address s3://BUCKET/PATH, or a folder of run directories.",
            autocompletion=completing.runs,
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Gate against this run directory, address or stored baseline.",
            autocompletion=completing.baselines_and_runs,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; report.html in the run directory by default.")] = None,
    study: StudyOption = None,
    margin_energy: MarginEnergy = None,
    margin_quality: MarginQuality = None,
    co2_country: Annotated[
        str | None, typer.Option(help="Add grams of CO2 by this country's electricity (ISO 3166-1 alpha-3, e.g. FRA).")
    ] = None,
    open_report: Open = False,
    as_json: Json = False,
) -> None:
    """Write the report of a run as one HTML file.

    Also writes the report as Markdown and result.json. With --baseline the report contains the verdict of the gate;
    `perjoule gate` turns the verdict into an exit code.

    For a folder of runs, writes index.html: one line per run, joules and quality over time, links to reports.

    Example: perjoule report runs/demo --out demo.html
    """
    from perjoule.gating import baselines
    from perjoule.gating.records import GateConfig
    from perjoule.running import reporting
    from perjoule.runs.directory import holds_runs, load_run
    from perjoule.runs.remote import fetched_run, is_remote

    if is_remote(run) and out is None:
        raise UsageError(f"{run} is only read: name the file of the report with --out")
    if not is_remote(run) and holds_runs(Path(run)):
        if baseline is not None:
            raise UsageError(f"--baseline {baseline}: {run} is a folder of runs: name one of its runs")
        files, problems = reporting.index(Path(run), out or Path(run) / "index.html")
        _print(files, as_json, open_report, problems)
        return
    with ExitStack() as stack:
        ours = load_run(stack.enter_context(fetched_run(run, pictures=True)))
        theirs, stored = (None, False)
        if baseline is not None:
            theirs, stored = baselines.opened(baseline, ours, stack, pictures=True)
        if theirs is None:
            ours = judged(ours, study, None)
        else:
            ours, theirs = judged_pair(ours, theirs, study, None)
        request = reporting.ReportRequest(
            baseline=theirs,
            gate=GateConfig(
                margin_energy=None if margin_energy is None else share(margin_energy, "--margin-energy"),
                margin_quality=margin_quality,
                mode="stored" if stored else "paired",
            ),
            co2_country=co2_country,
            address=_address(run, study),
        )
        files = reporting.report(ours, out or ours.path / "report.html", request)
    _print(files, as_json, open_report)


def _address(run: str, study: Path | None) -> str:
    """Return the run as arguments of a command, by names alone: a page that is passed on must not contain folders."""
    named = [Path(run).resolve().name, *(["--study", study.name] if study else [])]
    return shlex.join(named)


def _print(files: list[Path], as_json: bool, open_report: bool, problems: Sequence[str] = ()) -> None:
    from perjoule.commands.records import Files

    if open_report and files:
        page_link(files[0], open_it=True)
    if as_json:
        print_record(Files(files=tuple(files), problems=tuple(problems)))
    else:
        for file in files:
            print_text(str(file))
        for problem in problems:
            print_text(f"perjoule: not in the index: {one_line(problem)}", err=True)
