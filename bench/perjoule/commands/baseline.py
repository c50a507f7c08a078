"""`perjoule baseline save|list|show|promote|prune|log`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.baseline_log import log
from perjoule.commands.options import Json, RunArgument, Wide, print_record, print_text, terminal_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.gating.baselines import Baseline, UnreadableBaseline

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the baseline: main, release-1.2, …", autocompletion=completing.baselines
    ),
]
Suite = Annotated[str | None, typer.Option("--suite", help="Suite, if several suites have a baseline of this name.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Store runs by name, to compare others with.", no_args_is_help=True)
    verbs = (("save", save), ("list", list_), ("show", show), ("promote", promote), ("prune", prune), ("log", log))
    for verb, function in verbs:
        group.command(verb)(function)
    app.add_typer(group, name="baseline")


def save(name: Name, run: RunArgument, as_json: Json = False) -> None:
    """Store the trials and scores of a run.

    Says which loss of quality its prompts can show, and what to write into the suite if the margin is smaller.

    Example: perjoule baseline save main runs/demo
    """
    from perjoule.gating import GateConfig, baselines
    from perjoule.gating.margins import resolvable_words
    from perjoule.runs.directory import load_run

    stored = load_run(run)
    _print([baselines.save(stored, name)], as_json)
    metric = stored.suite.metrics.primary
    if metric and (words := resolvable_words(stored, metric, GateConfig())) is not None:
        sys.stderr.write(f"perjoule: {words}\n")


def list_(wide: Wide = False, as_json: Json = False) -> None:
    """List the stored baselines, oldest first.

    Exits with 4 if a file cannot be read, after those that can be read.

    Example: perjoule baseline list
    """
    from perjoule.gating import baselines

    stored = baselines.listed()
    _print(stored.baselines, as_json, terminal_width(wide), stored.unreadable)
    baselines.require_readable(stored)


def show(name: Name, suite: Suite = None, wide: Wide = False, as_json: Json = False) -> None:
    """Print the operating points of a baseline.

    Example: perjoule baseline show main
    """
    from contextlib import ExitStack

    from perjoule.commands import tables
    from perjoule.gating import baselines

    with ExitStack() as stack:
        run = baselines.unpacked(name, stack, suite=suite)
        tables.print_frontier(run, None, "json" if as_json else "table", terminal_width(wide))


def promote(
    name: Name, to: Annotated[str, typer.Argument(metavar="TO")], suite: Suite = None, as_json: Json = False
) -> None:
    """Store a baseline under a second name.

    Use it for releases: slow drift is measured against a baseline that stays.

    Example: perjoule baseline promote main release-1.2
    """
    from perjoule.gating import baselines

    _print([baselines.promote(name, to, suite=suite)], as_json)


def prune(
    keep: Annotated[int, typer.Option(help="How many baselines to keep per suite and system.")] = 5,
    as_json: Json = False,
) -> None:
    """Delete all but the newest baselines.

    Never deletes main and release-….

    Example: perjoule baseline prune --keep 3
    """
    from perjoule.gating import baselines

    _print(baselines.prune(keep), as_json)


def _print(
    stored: Sequence[Baseline],
    as_json: bool,
    width: int | None = None,
    unreadable: Sequence[UnreadableBaseline] = (),
) -> None:
    from perjoule.commands import tables
    from perjoule.display import moment
    from perjoule.gating.baselines import Baselines
    from perjoule.text_table import text_table

    if as_json:
        print_record(Baselines(baselines=tuple(stored), unreadable=tuple(unreadable)))
    elif stored or not unreadable:
        rows = [{**asdict(baseline), "saved_utc": moment(baseline.saved_utc)} for baseline in stored]
        print_text(text_table(rows, width, tables.LEAST))
