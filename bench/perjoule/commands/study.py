"""`perjoule study …`: ask people which picture is better."""

from __future__ import annotations

import typer

from perjoule.commands import study_new, study_scale, study_serve


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Ask people which picture is better.", no_args_is_help=True)
    group.command("new")(study_new.new)
    group.command("plan")(study_new.plan)
    group.command("serve")(study_serve.serve)
    group.command("add")(study_scale.add)
    group.command("scale")(study_scale.scale)
    app.add_typer(group, name="study")
