"""The `perjoule` command: the app, its callback and the entry point of the console script."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from perjoule import __version__, commands
from perjoule.commands import outcome
from perjoule.commands.verbs import Verbs
from perjoule.errors import UsageError

app = typer.Typer(
    name="perjoule",
    help="How much do people perceptually gain from a generated image, per joule?\n\n"
    "Example: perjoule run demo --out runs/demo",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    date = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not date.isdecimal():  # numpy and matplotlib raise a ValueError
        raise UsageError(f"SOURCE_DATE_EPOCH = {date!r}: must be whole seconds since 1970: correct it, or unset it")
    if version:
        typer.echo(f"perjoule {__version__}")
        raise typer.Exit


commands.register(app)


def main() -> None:
    """Entry point of the console script: whatever happens becomes one message and an exit code, never a traceback."""
    # before numpy is loaded: its BLAS threads then sleep between products instead of spinning, which took an eighth of
    # the CPU time of a report; a command that is measured keeps its own environment
    if sys.argv[1:2] != ["measure"]:
        os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    # with some processors it warns that an optional kernel cannot be downloaded, whenever diffusers is imported
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    sys.exit(outcome.status_of(lambda: app(standalone_mode=False)))
