"""`perjoule import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import")(import_)


def import_(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet or JSONL, one row an image.")],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    lower: Annotated[list[str] | None, typer.Option(help="Metric for which lower is better; repeatable.")] = None,
    fidelity: Annotated[
        list[str] | None, typer.Option(help="Full-reference metric, compared within one family only; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn measurements made elsewhere into a run.

    The table has the columns variant, prompt_id, seed, energy_j and quality:<metric>.

    Example: perjoule import measured.csv --out runs/theirs
    """
    from perjoule.importing import import_table

    run = import_table(table, out, lower=lower or (), fidelity=fidelity or ())
    found = {"schema": 1, "run": str(run.path), "trials": len(run.trials), "metrics": sorted(run.metrics)}
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['run']}: {found['trials']} images, {', '.join(sorted(run.metrics))}")
