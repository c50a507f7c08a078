"""`perjoule list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, Wide, print_json, print_text, terminal_width
from perjoule.errors import UnknownNameError, UsageError

LISTS = ("suites", "variants", "prompts", "metrics", "meters", "runs")
_SENTENCES = ("description", "scale")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("list")(list_)


def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help=f"One of: {', '.join(LISTS)}.", autocompletion=lambda: list(LISTS))
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Folder of the runs to list; runs by default.")
    ] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List suites, prompts, metrics, meters, runs.

    Example: perjoule list meters

    Example: perjoule list runs results
    """
    from perjoule.commands import tables
    from perjoule.display import moment
    from perjoule.text_table import text_table
    from perjoule.types.documents import document

    if what not in LISTS:
        raise UnknownNameError("list", what, LISTS)
    if folder is not None and what != "runs":
        raise UsageError(f"list {what} {folder}: only `list runs` takes a folder: leave it out")
    listed = document(tables.listing(what, folder or Path("runs")))
    rows = listed[what]
    if as_json:
        print_json({"schema": listed["schema"], what: rows})
    else:  # sentences are in the JSON only
        short = [{key: value for key, value in row.items() if key not in _SENTENCES} for row in rows]
        for row in short:
            if row.get("created"):
                row["created"] = moment(row["created"])
        print_text(text_table(short, terminal_width(wide), tables.LEAST))
