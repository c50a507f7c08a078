"""The last line on a terminal names the next command: one that exists, with this call's own paths."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from perjoule.cli import app
from perjoule.commands.hints import NEXT, WITHOUT, hint
from perjoule.commands.outcome import status_of


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All commands with their names, e.g. `baseline save`."""
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    if not names:
        yield name, command
    for sub in names:
        yield from leaves(command.get_command(None, sub), f"{name} {sub}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_every_command_has_a_next_one() -> None:
    assert set(COMMANDS) == {*NEXT, *WITHOUT}


@pytest.mark.parametrize("name", sorted(NEXT))
def test_the_next_command_exists_and_uses_parameters_of_the_last(name: str) -> None:
    parameters = {parameter.name for parameter in COMMANDS[name].params}
    assert set(re.findall(r"{(\w+)}", NEXT[name])) <= parameters
    for words in re.findall(r"perjoule ([a-z]+(?: [a-z]+)?)", NEXT[name]):
        assert {words, words.split()[0]} & {*COMMANDS, "budgetfusion"}, words
    for option in re.findall(r"--[a-z-]+", NEXT[name]):
        assert any(option in parameter.opts for other in COMMANDS.values() for parameter in other.params)


def test_a_path_is_quoted_and_a_program_gets_no_hint() -> None:
    assert hint("frontier", {"run": Path("my runs/demo")}) == "perjoule recommend 'my runs/demo'"
    assert hint("frontier", {"run": Path("a"), "as_json": True}) == ""
    assert hint("run", {"quiet": True}) == ""
    assert hint("gate", {"candidate": Path("a"), "baseline": None}) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_it_is_the_last_line_of_a_terminal_only(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    for _ in range(2):  # commands are wrapped once
        assert status_of(lambda: app(["explain", "W203"], standalone_mode=False)) == 0
        assert capsys.readouterr().err == ("next: perjoule doctor\n" if terminal else "")
