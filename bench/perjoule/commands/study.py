"""`perjoule study …`: ask people which picture is better."""

from __future__ import annotations

import typer

from perjoule.commands import study_serve


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Ask people which picture is better.", no_args_is_help=True)
    group.command("serve")(study_serve.serve)
    app.add_typer(group, name="study")
