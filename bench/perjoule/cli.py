"""The `perjoule` command: arguments in, stages of `perjoule.running.pipeline` called, result on stdout.

Heavy imports stand inside the commands, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule import __version__, commands
from perjoule.commands import completing, outcome
from perjoule.commands.options import (
    Json,
    Limit,
    MaxJoules,
    MaxMinutes,
    MeterName,
    Metric,
    Models,
    Offline,
    Quiet,
    RunArgument,
    SuiteArgument,
    print_json,
)
from perjoule.commands.plan import show_plan
from perjoule.commands.verbs import Verbs
from perjoule.errors import EvidenceError, MeterError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from perjoule.commands.console import TerminalReporter

app = typer.Typer(
    name="perjoule",
    help="How much do people perceptually gain from a generated image, per joule?\n\n"
    "Example: perjoule run demo --out runs/demo",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Executor(StrEnum):
    """Where trials run."""

    local = "local"
    ray = "ray"


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


class Listable(StrEnum):
    """What `perjoule list` knows."""

    suites = "suites"
    variants = "variants"
    prompts = "prompts"
    metrics = "metrics"
    meters = "meters"


class Shell(StrEnum):
    """Shells with completion."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"perjoule {__version__}")
        raise typer.Exit


@app.command()
def run(
    suite: SuiteArgument,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/<date>-<suite> by default.")] = None,
    meter: MeterName = "auto",
    limit: Limit = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume: do failed trials, and those without joules, again."),
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="Where trials run: here, or on every GPU of a Ray cluster.")
    ] = Executor.local,
    max_joules: MaxJoules = None,
    max_minutes: MaxMinutes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan, as `perjoule plan` does.")] = False,
    model: Models = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Rehearse: each variant once, one prompt at its shortest rung.")
    ] = False,
    size: Annotated[int | None, typer.Option(help="Side of a rehearsal's images, in pixels.")] = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate, measure, score and report.

    With --max-joules or --max-minutes the run stops before the first window that would exceed the limit and exits
    with 130. --resume continues it under a larger limit; what was spent before counts.

    A trial whose pipeline raises, or makes NaN, fails with the reason, and the run goes on; --resume leaves it failed,
    --resume --retry-failed repeats it. Exits with 4 if a planned cell has no finished trial in the end.

    Example: perjoule run demo --out runs/demo --max-minutes 10
    """
    from perjoule.commands import tables
    from perjoule.forecast.budget import Budget
    from perjoule.running import pipeline
    from perjoule.running.prepared import prepare
    from perjoule.runs.trial_counts import trial_counts

    if retry_failed and not resume:
        raise UsageError("--retry-failed goes on with a run that is there: add --resume")
    budget = Budget(max_joules=max_joules, max_minutes=max_minutes)
    prepared = prepare(suite, limit, models=model or (), smoke=smoke, side_px=size, resume=out if resume else None)
    if dry_run:
        show_plan(prepared, budget, as_json)
        return
    reporter = _reporter(quiet)
    folder = out or pipeline.default_out(prepared.suite)
    command = ["perjoule", *sys.argv[1:]]
    done = pipeline.run(
        prepared,
        out=folder,
        meter_name=meter,
        resume=resume,
        command=command,
        reporter=reporter,
        budget=budget,
        executor=executor.value,
        retry_failed=retry_failed,
    )
    tables.print_frontier(done, None, "json" if as_json else "table")
    reporter.message(f"report: {done.path / 'report.html'}")
    counts = trial_counts(done)
    for words in counts.words():
        sys.stderr.write(f"perjoule: {words}\n")
    if counts.empty_cells:
        raise typer.Exit(EvidenceError.exit_code)


@app.command()
def score(
    run: RunArgument,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metric to score; may be repeated.", autocompletion=completing.metrics),
    ] = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score the stored images of a run again.

    Needs no meter and generates nothing.

    Example: perjoule score runs/demo --metric lsnr
    """
    from perjoule.commands import tables
    from perjoule.running import pipeline
    from perjoule.runs.directory import load_run

    loaded = load_run(run)
    done = pipeline.score(loaded, pipeline.metrics_for(loaded, metric or []), _reporter(quiet))
    summary = tables.score_summary(done)
    print_json(summary) if as_json else typer.echo(tables.score_text(summary))


@app.command()
def frontier(
    run: RunArgument,
    metric: Metric = None,
    fmt: Annotated[TableFormat, typer.Option("--format", help="How to print it.")] = TableFormat.table,
    as_json: Json = False,
) -> None:
    """Print operating points and their frontier.

    Example: perjoule frontier runs/demo --metric clip_text --format md
    """
    from perjoule.commands import tables
    from perjoule.runs.directory import load_run

    tables.print_frontier(load_run(run), metric, "json" if as_json else fmt.value)


@app.command("list")
def list_(
    what: Annotated[Listable, typer.Argument(help="What to list.")],
    as_json: Json = False,
) -> None:
    """List what is built in, and the meters here.

    Example: perjoule list meters
    """
    from perjoule.commands import tables

    rows = tables.listing(what.value)
    if as_json:
        print_json({"schema": 1, what.value: rows})
    else:  # sentences are for the JSON
        short = [{key: value for key, value in row.items() if key not in ("description", "scale")} for row in rows]
        typer.echo(tables.text_table(short))


@app.command()
def doctor(
    suite: Annotated[
        str | None,
        typer.Option(metavar="SUITE", help="Look at what this suite needs instead.", autocompletion=completing.suites),
    ] = None,
    model: Models = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check what can be measured on this machine.

    Tries every meter and says with what error it works, or why it does not. Takes some seconds per meter, during which
    the machine should rest. Exits with 4 if nothing works. With --suite it
    names what a suite needs (packages, weights, licences, tokens, memory, disk) and exits with 4 if some of it is
    missing; nothing is downloaded.

    Example: perjoule doctor --suite few-step
    """
    from perjoule.meters import doctor

    if suite is not None:
        _doctor_of_suite(suite, model or [], as_json)
        return
    found = doctor.examine(_reporter(quiet).message)
    print_json(doctor.as_json(found)) if as_json else typer.echo(doctor.as_text(found))
    if found.auto is None:
        raise typer.Exit(MeterError.exit_code)


def _doctor_of_suite(name: str, models: list[str], as_json: bool) -> None:
    from perjoule.running import suite_doctor
    from perjoule.suite.reading import find_suite, load_suite
    from perjoule.weights.catalogue import with_models

    suite = with_models(load_suite(find_suite(name)), models)
    needs = suite_doctor.examine(suite, find_suite(name))
    found = suite_doctor.as_json(suite, needs)
    print_json(found) if as_json else typer.echo(suite_doctor.as_text(suite, needs))
    if not found["ready"]:
        raise typer.Exit(EvidenceError.exit_code)


@app.command(context_settings={"allow_interspersed_args": False})
def measure(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="Program and arguments.")],
    meter: MeterName = "auto",
    co2_country: Annotated[
        str | None, typer.Option(help="Add grams of CO2 by this country's electricity (ISO 3166-1 alpha-3, FRA say).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the energy of a command.

    The joules go to stderr, since stdout is the command's. With --json they go to stdout, and what the command writes
    to stdout goes to stderr. The command's exit code is passed on: 128 + N if signal N ended it, 127 if there is no
    such command, 126 if it cannot be executed; 4 if it succeeded and no energy could be had.

    Example: perjoule measure -- python generate.py --steps 25
    """
    from perjoule.meters import measure

    done = measure.measure(command, meter, co2_country=co2_country, stdout=sys.stderr.fileno() if as_json else None)
    print_json(measure.as_json(done)) if as_json else typer.echo(measure.as_text(done), err=True)
    raise typer.Exit(done.status)


@app.command()
def schema() -> None:
    """Print the JSON Schemas of suites and output.

    Example: perjoule schema > perjoule.schema.json
    """
    from perjoule.commands import tables

    print_json(tables.schemas())


@app.command()
def explain(
    code: Annotated[str, typer.Argument(help="Warning code, such as W203.", autocompletion=completing.codes)],
    as_json: Json = False,
) -> None:
    """Explain a warning code.

    Prints what it means, what follows and what to do.

    Example: perjoule explain W203
    """
    from dataclasses import asdict

    from perjoule.warnings import WARNINGS

    entry = WARNINGS.get(code.upper())
    if entry is None:
        raise UnknownNameError("warning code", code, WARNINGS)
    fields = asdict(entry)
    if as_json:
        print_json({"schema": 1, "code": code.upper(), **fields})
    else:
        typer.echo("\n".join([code.upper(), *(f"  {name}: {text}" for name, text in fields.items())]))


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print the shell completion script.

    Load it once with `eval "$(perjoule completion zsh)"`, or store it where the shell looks for completions.

    Example: perjoule completion bash > ~/.local/share/bash-completion/completions/perjoule
    """
    typer.echo(completing.script(shell.value))


commands.register(app)


def _reporter(quiet: bool) -> TerminalReporter:
    from perjoule.commands.console import TerminalReporter

    return TerminalReporter(quiet=quiet)


def main() -> None:
    """Entry point of the console script: whatever happens becomes one message and an exit code, never a traceback."""
    sys.exit(outcome.status_of(lambda: app(standalone_mode=False)))
