"""`perjoule completion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from perjoule.commands import completing


class Shell(StrEnum):
    """Shells with completion."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(completion)


def completion(shell: Annotated[Shell, typer.Argument(help="Shell to complete in.")]) -> None:
    """Print the shell completion script.

    Load it once with `eval "$(perjoule completion zsh)"`, or store it where the shell looks for completions.

    Example: perjoule completion bash > ~/.local/share/bash-completion/completions/perjoule
    """
    typer.echo(completing.script(shell.value))
