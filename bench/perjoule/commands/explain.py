"""`perjoule explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, print_record, print_text
from perjoule.errors import UnknownNameError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(explain)


def explain(
    code: Annotated[str, typer.Argument(help="Warning code, such as W203.", autocompletion=completing.codes)],
    as_json: Json = False,
) -> None:
    """Explain a warning code.

    Prints its meaning, its consequence and the remedy.

    Example: perjoule explain W203
    """
    from dataclasses import asdict

    from perjoule.commands.records import WarningCode
    from perjoule.warnings import WARNINGS

    entry = WARNINGS.get(code.upper())
    if entry is None:
        raise UnknownNameError("warning code", code, WARNINGS)
    fields = asdict(entry)
    if as_json:
        print_record(WarningCode(code=code.upper(), **fields))
    else:
        print_text("\n".join([code.upper(), *(f"  {name}: {text}" for name, text in fields.items())]))
