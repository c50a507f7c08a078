"""The last line of every command on a terminal: the command that is usually next."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import typer

# braces name parameters of the command
NEXT = {
    "baseline list": "perjoule baseline show NAME",
    "baseline log": "perjoule report FOLDER, a page with the trend",
    "baseline promote": "perjoule gate --baseline {to} --candidate RUN",
    "baseline prune": "perjoule baseline list",
    "baseline save": "perjoule gate --baseline {name} --candidate RUN",
    "baseline show": "perjoule gate --baseline {name} --candidate RUN",
    "budgetfusion collect": "perjoule budgetfusion train RUN --calibration RUN --out DIR",
    "budgetfusion evaluate": "perjoule run SUITE, with a variant of policy budgetfusion",
    "budgetfusion predict": "perjoule run SUITE, with a variant of policy budgetfusion",
    "budgetfusion train": "perjoule budgetfusion evaluate RUN --predictor {out}",
    "calibrate": "perjoule run SUITE --sensor stored, or with --work: perjoule plan SUITE --meter work:FILE",
    "compare": "perjoule gate --baseline {before} --candidate {after}",
    "doctor": "perjoule plan demo",
    "explain": "perjoule doctor",
    "frontier": "perjoule recommend {run}",
    "gate": "perjoule report {candidate} --baseline {baseline}",
    "import": "perjoule report {out}",
    "integrate": "perjoule explain CODE, for each warning",
    "list": "perjoule plan SUITE",
    "merge": "perjoule score {out}",
    "measure": "perjoule doctor --prove, to check the meter",
    "plan": "perjoule run {suite}",
    "recommend": "perjoule baseline save main {run}",
    "report": "perjoule recommend {run}",
    "route evaluate": "perjoule route predict {router} PROMPT --floor Q",
    "route predict": "perjoule route evaluate RUN --router {router}",
    "route train": "perjoule route evaluate RUN --router {out}",
    "run": "perjoule recommend RUN, or perjoule frontier RUN",
    "score": "perjoule report {run}",
    "study add": "perjoule study scale {study}",
    "study plan": "perjoule study new RUN --out DIR",
    "study scale": "perjoule report RUN --study {study}",
    "study serve": "perjoule study scale {study}",
}

# their output names the next command itself, or another program reads it
WITHOUT = ("comment", "completion", "init", "schema", "study new")


def hint(name: str, parameters: Mapping[str, Any]) -> str:
    """Return the command that follows `perjoule NAME`; empty if there is none, or a program reads the output."""
    if name not in NEXT or parameters.get("as_json") or parameters.get("quiet"):
        return ""
    shown = {key: shlex.quote(str(value)) for key, value in parameters.items() if value is not None}
    try:
        return NEXT[name].format_map(shown)
    except KeyError:  # an option that was not given
        return ""


def hinted(command: Any, name: str) -> Any:
    """Return a command, or a group with all its commands, that prints its hint to stderr if that is a terminal."""
    for sub, inner in getattr(command, "commands", {}).items():
        hinted(inner, f"{name} {sub}")
    plain = command.callback
    if plain is None or hasattr(plain, "__wrapped_for_hint__") or getattr(command, "commands", None):
        return command

    @functools.wraps(plain)
    def with_hint(*arguments: Any, **parameters: Any) -> Any:
        try:
            result = plain(*arguments, **parameters)
        except typer.Exit:
            _print(hint(name, parameters))
            raise
        _print(hint(name, parameters))
        return result

    with_hint.__wrapped_for_hint__ = True  # type: ignore[attr-defined]
    command.callback = with_hint
    return command


def _print(text: str) -> None:
    if text and sys.stderr.isatty():
        sys.stdout.flush()
        sys.stderr.write(f"next: {text}\n")
