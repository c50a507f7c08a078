"""`perjoule init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, print_record, print_text


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

    scaffold = write_scaffold(folder)
    if as_json:
        print_record(scaffold)
        return
    for file in scaffold.written:
        print_text(f"wrote {file}")
    for file in scaffold.kept:
        print_text(f"kept  {file} (it exists)")
    print_text("next: perjoule plan perjoule.toml; perjoule run perjoule.toml --out runs/first")
