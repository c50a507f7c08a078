"""The command that continues a run, to be printed where a run stops.

A gate needs all of its options again. Any other run has its suite and prompts in its directory.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

# options that a run must be continued with; the others are in its suite.toml and prompts.jsonl
_WITH_VALUE = ("--meter", "--sensor", "--executor", "--address")
_BUDGET = ("--max-joules", "--max-minutes")
_FLAGS = ("--offline",)


def resume_command(path: Path, command: Sequence[str], *, budget: bool = True, retry_failed: bool = False) -> str:
    """Return the command that continues a run in a shell.

    Args:
        path: Run directory.
        command: Command line of the run, whose meter, executor and other options are taken over; that of a gate is
            repeated.
        budget: Whether its limits of energy and time are taken over, too.
        retry_failed: Whether failed trials are repeated.
    """
    own = list(command[: command.index("--")] if "--" in command else command)
    if own[1:2] == ["gate"]:
        stated = {word.partition("=")[0] for word in own}
        more = [] if "--out" in stated else ["--out", str(path)]
        return shlex.join([*own, *more, *(["--resume"] if "--resume" not in stated else [])])
    words = ["perjoule", "run", str(path / "suite.toml"), "--out", str(path), "--resume"]
    words += ["--retry-failed"] * retry_failed
    words += _options(own, _WITH_VALUE + _BUDGET * budget)
    words += [flag for flag in _FLAGS if flag in own]
    return shlex.join(words)


def _options(command: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yield options with their values, written as `--meter work` or `--meter=work`."""
    for word, value in pairwise([*command, ""]):
        if word in names:
            yield from (word, value)
        elif word.partition("=")[0] in names:
            yield word
