"""`perjoule init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Repository; the working directory by default.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Add a suite, a CI workflow, a pytest example.

    Files that exist already are not changed.

    Example: perjoule init
    """
    from perjoule.commands.scaffold import write_scaffold

    written, kept = write_scaffold(folder)
    if as_json:
        print_json({"schema": 1, "written": [str(f) for f in written], "kept": [str(f) for f in kept]})
        return
    for file in written:
        typer.echo(f"wrote {file}")
    for file in kept:
        typer.echo(f"kept  {file} (it was there)")
    typer.echo("next: perjoule plan perjoule.toml; perjoule run perjoule.toml --out runs/first")
