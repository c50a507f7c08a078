"""The command that continues a run, to be printed where a run stops, and the reason why a run cannot be continued.

A gate needs all of its options again. Any other run has its suite and prompts in its directory.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

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
        # the first word is perjoule, whatever the file says
        return shlex.join(["perjoule", *own[1:], *more, *(["--resume"] if "--resume" not in stated else [])])
    words = ["perjoule", "run", str(path / "suite.toml"), "--out", str(path), "--resume"]
    words += ["--retry-failed"] * retry_failed
    words += _options(own, _WITH_VALUE + _BUDGET * budget)
    words += [flag for flag in _FLAGS if flag in own]
    return shlex.join(words)


def recorded_command(environment: Mapping[str, Any]) -> list[str]:
    """Return the command line that a run was made with, empty if it is not known."""
    recorded = environment.get("command")
    return list(map(str, recorded)) if isinstance(recorded, list) else []


def refusal(path: Path, environment: Mapping[str, Any], differences: Sequence[tuple[str, Any, Any]]) -> str:
    """Return why a run cannot be continued here, and the remedy.

    Args:
        path: Run directory.
        environment: Its environment.json.
        differences: What differs between its system and the present one, at least one: key, value then, value now.
    """
    changed = {key: (old, new) for key, old, new in differences}
    # with another meter, other keys differ too, e.g. the device; a profile of counted work is its device
    counted = (environment.get("comparability") or {}).get("meter") == "work"
    of_meter = [key for key in ("meter", "device") if key in changed and (key == "meter" or counted)]
    if of_meter and isinstance(meter := environment.get("meter"), dict) and meter.get("name"):
        was, now = changed[of_meter[0]]
        profile = ", with the profile as it was" if of_meter == ["device"] else ""
        return (
            f"{path} cannot be resumed with this meter: {of_meter[0]} was {was!r} and is {now!r}: add "
            f"{shlex.join(['--meter', str(meter['name'])])}{profile}, or choose another --out"
        )
    key, old, new = differences[0]
    return (
        f"{path} cannot be resumed here: {key} was {old!r} and is {new!r}; use the same system, or choose another --out"
    )


def _options(command: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yield options with their values, written as `--meter work` or `--meter=work`."""
    for word, value in pairwise([*command, ""]):
        if word in names:
            yield from (word, value)
        elif word.partition("=")[0] in names:
            yield word
