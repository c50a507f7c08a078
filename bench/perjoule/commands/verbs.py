"""The order of the verbs in `perjoule --help`, and verbs that other packages add."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from perjoule import registry
from perjoule.commands.hints import hinted

# the order of the work; other verbs come last
ORDER = (
    "init", "doctor", "plan", "run", "score", "frontier", "report", "recommend", "compare", "gate", "comment",
    "baseline", "study", "import", "merge", "measure", "integrate", "calibrate", "budgetfusion", "route", "list",
    "explain", "schema", "completion",
)  # fmt: skip


class Verbs(TyperGroup):
    """The group of all verbs; those of the entry point group `perjoule.commands` are loaded when they are named."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the work."""
        names = {**self.commands, **registry.registered("commands")}
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb; those of other packages are `typer.Typer` apps behind entry points."""
        if cmd_name not in self.commands:
            for name in registry.registered("commands"):
                self.commands[name] = typer.main.get_command(registry.load("commands", name, kind="command"))
        command = super().get_command(ctx, cmd_name)
        return command if command is None else hinted(command, cmd_name)
