"""`perjoule plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import (
    Json,
    Limit,
    MaxJoules,
    MaxMinutes,
    MeterName,
    Models,
    Offline,
    SuiteArgument,
    Wide,
    print_record,
    print_text,
    terminal_width,
)

if TYPE_CHECKING:
    from perjoule.forecast import Forecast
    from perjoule.forecast.budget import Budget
    from perjoule.running.prepared import Prepared
    from perjoule.work.profile import WorkProfile


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(plan)


def plan(
    suite: SuiteArgument,
    limit: Limit = None,
    model: Models = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Take energy per step and variance from this earlier run.",
            autocompletion=completing.runs,
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure a few images first: both ends of each ladder, three windows each."),
    ] = False,
    meter: MeterName = "auto",
    max_joules: MaxJoules = None,
    max_minutes: MaxMinutes = None,
    offline: Offline = False,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show what a run would do and cost.

    Prints cells, images, joules, minutes, disk, and the smallest difference that the run could detect. Joules come
    from published figures, from an earlier run, or from a calibration; each names its source. With --meter work, or if
    nothing is known of any cell, they are those of counted work, by the configurations of the networks, and nothing is
    drawn. Exits with 2 if the plan cannot fit into --max-joules or --max-minutes.

    Example: perjoule plan demo --calibrate

    Example: perjoule plan demo --meter work
    """
    from perjoule.errors import UsageError
    from perjoule.forecast.budget import Budget
    from perjoule.meters import require_meter
    from perjoule.running.prepared import prepare

    if calibrate and measured is not None:
        raise UsageError("plan: give either --from or --calibrate")
    require_meter(meter)
    kind, _, name = meter.partition(":")
    counts = kind == "work" and not calibrate
    if counts and measured is not None:
        raise UsageError("plan: give either --from or --meter work")
    budget = Budget(max_joules=max_joules, max_minutes=max_minutes)
    prepared = prepare(suite, limit, models=model or ())
    if counts:
        from perjoule.meters.work import choose_profile

        show_plan(prepared, budget, as_json, profile=choose_profile(name), wide=wide)
    else:
        show_plan(prepared, budget, as_json, measured=measured, meter=meter if calibrate else None, wide=wide)


def show_plan(
    prepared: Prepared,
    budget: Budget,
    as_json: bool,
    *,
    measured: Path | None = None,
    meter: str | None = None,
    profile: WorkProfile | None = None,
    wide: bool = True,
) -> None:
    """Print the forecast of a plan.

    Args:
        prepared: The plan.
        budget: Limits that the plan must meet.
        as_json: Print JSON instead of text.
        measured: Run directory to take prices from.
        meter: Calibrate with this meter; None does not calibrate.
        profile: Profile to take prices of counted work from.
        wide: Print all columns on a terminal that is too narrow for them.

    Raises:
        UsageError: If the plan cannot fit; it is printed nevertheless.
    """
    from perjoule.commands.console import TerminalReporter
    from perjoule.commands.plan_text import as_text
    from perjoule.forecast.forecasting import require_fit
    from perjoule.running import pipeline
    from perjoule.runs.directory import load_run

    if meter is not None:
        forecast = pipeline.calibrate(prepared, meter, TerminalReporter())
    else:
        forecast = pipeline.foresee(prepared, load_run(measured) if measured is not None else None, profile)
        if forecast.energy_j is None and measured is None and profile is None:
            forecast = _by_counted_work(prepared) or forecast
    print_record(forecast) if as_json else print_text(as_text(forecast, terminal_width(wide)))
    require_fit(forecast, budget)


def _by_counted_work(prepared: Prepared) -> Forecast | None:
    """Return the forecast by this machine's profile of counted work; None if there is no profile or no count."""
    from dataclasses import replace

    from perjoule.errors import MeterError
    from perjoule.meters.work import choose_profile
    from perjoule.running import pipeline

    try:
        forecast = pipeline.foresee(prepared, profile=choose_profile())
    except MeterError:
        return None
    if forecast.energy_j is None:
        return None
    note = (
        "the joules are those of counted work, because none are published for these models: trust their ratios, not "
        "their absolute values; --calibrate meters a few images, --from RUN takes those of a run"
    )
    return replace(forecast, notes=(note, *forecast.notes))
