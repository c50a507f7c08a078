"""`perjoule merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, print_record, print_text


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(merge)


def merge(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories.", autocompletion=completing.runs)
    ],
    out: Annotated[Path, typer.Option(help="Directory of the merged run.")],
    as_json: Json = False,
) -> None:
    """Join runs that did parts of one plan.

    The runs must agree in suite and system, e.g. shards of the prompts on several machines with the same board. They
    stay as they are. The merged run has no scores: `perjoule score` and `perjoule report` come next.

    Example: perjoule merge runs/part1 runs/part2 --out runs/whole
    """
    from perjoule.commands.records import MergedRun
    from perjoule.runs.merging import merge_runs
    from perjoule.statistics.devices import require_one_device

    run = merge_runs(runs, out, require_one_device)
    result = MergedRun(
        run=str(run.path),
        parts=len(runs),
        prompts=len(run.prompt_set),
        trials=len(run.trials),
        planned=run.planned_trials or 0,
    )
    if as_json:
        print_record(result)
        return
    print_text(f"{result.run}: {result.trials} of {result.planned} trials from {result.parts} runs")
