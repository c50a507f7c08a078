"""`perjoule run`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import (
    Json,
    Limit,
    MaxJoules,
    MaxMinutes,
    MeterName,
    Models,
    Offline,
    Open,
    Quiet,
    SensorChoice,
    SuiteArgument,
    page_link,
    print_text,
    reporter,
    terminal_width,
)
from perjoule.commands.plan import show_plan
from perjoule.errors import EvidenceError, UsageError


class Executor(StrEnum):
    """Where trials run."""

    local = "local"
    ray = "ray"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(run)


def run(
    suite: SuiteArgument,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/<date>-<suite> by default.")] = None,
    meter: MeterName = "auto",
    sensor: SensorChoice = None,
    limit: Limit = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume: repeat trials that failed or have no joules."),
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts of the prompts; see `perjoule merge`.")
    ] = None,
    race: Annotated[
        bool, typer.Option("--race", help="Stop measuring cells that are surely dominated in energy and quality.")
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="Where trials run: on this machine or on all GPUs of a Ray cluster.")
    ] = Executor.local,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto|local",
            help="Ray cluster; RAY_ADDRESS by default, else a new one on this machine (local).",
        ),
    ] = None,
    max_joules: MaxJoules = None,
    max_minutes: MaxMinutes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop, like `perjoule plan`.")] = False,
    model: Models = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Rehearse: one prompt per variant, at its fewest steps.")
    ] = False,
    size: Annotated[int | None, typer.Option(help="Width and height of the images of a rehearsal, in pixels.")] = None,
    offline: Offline = False,
    open_report: Open = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate, measure, score and report.

    Prints the headline of the report, the three best cells, and the report's link. `perjoule frontier` prints all.

    With --max-joules or --max-minutes the run stops before the first window that would exceed the limit and exits
    with 130. --resume continues it under a larger limit; what was spent before counts.

    A trial whose pipeline raises an error or produces NaN is recorded as failed, with the reason, and the run
    continues. --resume leaves it failed, --resume --retry-failed repeats it. Exits with 4 if a cell of the plan has no
    finished trial at the end.

    With --race cells are compared after 12 prompts, 18, 27, and so on. A cell that another one surely dominates, in
    energy and in quality, gets no further prompts. --resume continues a race as a race.

    Example: perjoule run demo --out runs/demo --max-minutes 10

    Example: perjoule run demo --out runs/race --race
    """
    from perjoule.commands import tables
    from perjoule.commands.notes import notes_of
    from perjoule.forecast.budget import Budget
    from perjoule.meters import require_meter
    from perjoule.meters.sensor import with_sensor
    from perjoule.running import pipeline
    from perjoule.running.prepared import prepare
    from perjoule.running.race import race_of
    from perjoule.runs.trial_counts import trial_counts

    if retry_failed and not resume:
        raise UsageError("--retry-failed continues an existing run: add --resume")
    if address is not None and executor is not Executor.ray:
        raise UsageError("--address names a Ray cluster: add --executor ray")
    require_meter(meter)
    meter = with_sensor(meter, sensor)
    budget = Budget(max_joules=max_joules, max_minutes=max_minutes)
    prepared = prepare(
        suite,
        limit,
        models=model or (),
        smoke=smoke,
        side_px=size,
        resume=out if resume else None,
        shard=shard,
    )
    if dry_run:
        if race:
            race_of(prepared)  # refuses what cannot be a race
        show_plan(prepared, budget, as_json)
        return
    shown = reporter(quiet)
    folder = out or pipeline.default_out(prepared.suite)
    command = ["perjoule", *sys.argv[1:]]
    done = pipeline.run(
        prepared,
        out=folder,
        meter_name=meter,
        resume=resume,
        command=command,
        reporter=shown,
        budget=budget,
        executor=executor.value,
        address=address,
        retry_failed=retry_failed,
        racing=race,
    )
    link = page_link(done.path / "report.html", open_it=open_report)
    if as_json:
        tables.print_frontier(done, None, "json")
        shown.message(f"report: {link}")
    else:
        tables.print_outcome(done, link, terminal_width())
    counts = trial_counts(done)
    for words in notes_of(done, counts):
        print_text(f"perjoule: {words}", err=True)
    if counts.empty_cells:
        raise typer.Exit(EvidenceError.exit_code)
