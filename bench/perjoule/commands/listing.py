"""`perjoule list`."""

from __future__ import annotations

from typing import Annotated

import typer

from perjoule.commands.options import Json, print_json, print_text
from perjoule.errors import UnknownNameError

LISTS = ("suites", "variants", "prompts", "metrics", "meters")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("list")(list_)


def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help=f"One of: {', '.join(LISTS)}.", autocompletion=lambda: list(LISTS))
    ],
    as_json: Json = False,
) -> None:
    """List suites, prompts, metrics and meters.

    Example: perjoule list meters
    """
    from perjoule.commands import tables
    from perjoule.types.documents import document

    if what not in LISTS:
        raise UnknownNameError("list", what, LISTS)
    listed = document(tables.listing(what))
    rows = listed[what]
    if as_json:
        print_json({"schema": listed["schema"], what: rows})
    else:  # sentences are in the JSON only
        short = [{key: value for key, value in row.items() if key not in ("description", "scale")} for row in rows]
        print_text(tables.text_table(short))
