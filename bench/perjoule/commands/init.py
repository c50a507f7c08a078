"""`perjoule init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, print_record, print_text
from perjoule.commands.scaffold import Ci, Runner


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Repository; the working directory by default.")
    ] = Path(),
    ci: Annotated[
        Ci | None, typer.Option(help="CI system; gitlab if the repository has a .gitlab-ci.yml, else github.")
    ] = None,
    runner: Annotated[
        Runner, typer.Option(help="cpu: count work, the same on every runner; gpu: measure both sides in one job.")
    ] = Runner.cpu,
    as_json: Json = False,
) -> None:
    """Add a suite, a CI workflow, a pytest example.

    perjoule.toml is a suite for exploring, perjoule-ci.toml the one that CI draws for every pull request. Files that
    exist already are not changed, except that .gitignore gets the lines that it lacks, for the output of runs.

    Example: perjoule init --ci github --runner cpu
    """
    from perjoule.commands.scaffold import write_scaffold

    scaffold = write_scaffold(folder, ci, runner)
    if as_json:
        print_record(scaffold)
        return
    for file in scaffold.written:
        print_text(f"wrote {file}")
    for file in scaffold.kept:
        print_text(f"kept  {file} (it exists)")
    for step in scaffold.next:
        print_text(f"next: {step}")
