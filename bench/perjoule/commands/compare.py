"""`perjoule compare`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, Metric, StudyOption, judged_pair, print_record, print_text, terminal_width


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(compare)


def compare(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="Run directory, or the name of a stored baseline.",
            autocompletion=completing.baselines_and_runs,
        ),
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="Run directory.", autocompletion=completing.runs)],
    metric: Metric = None,
    study: StudyOption = None,
    as_json: Json = False,
) -> None:
    """Show how two runs differ, without margins.

    Prints the changes of energy and quality from A to B with 95 % intervals, by cell, and the settings that differ.
    There is no verdict: `perjoule gate` decides. Exits with 4 if nothing can be compared.

    Example: perjoule compare runs/main runs/pr
    """
    from perjoule.gating import baselines, comparing, render
    from perjoule.runs.directory import load_run

    second = load_run(after)
    with ExitStack() as stack:
        first, _ = baselines.opened(before, second, stack)
        second, first = judged_pair(second, first, study, metric)
        comparison = comparing.compare(first, second, metric)
    print_record(comparison) if as_json else print_text(render.compared(comparison, terminal_width()))
