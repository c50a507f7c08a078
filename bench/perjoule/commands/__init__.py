"""Verbs of the command line, one module each; `register` adds them to the app."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add every verb of this package."""
    from perjoule.commands import baseline, gate, importing, init, plan, recommend, report

    for module in (plan, report, recommend, gate, baseline, importing, init):
        module.register(app)
