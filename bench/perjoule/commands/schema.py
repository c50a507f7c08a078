"""`perjoule schema`."""

from __future__ import annotations

import typer

from perjoule.commands.options import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(schema)


def schema() -> None:
    """Print the JSON Schemas of suites and output.

    Example: perjoule schema > perjoule.schema.json
    """
    from perjoule.commands.schemas import schemas

    print_json(schemas())
