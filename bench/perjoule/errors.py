"""The exceptions of perjoule, with their exit codes.

    PerjouleError                 exit code
    ├── UsageError                2   the request cannot be read or names something unknown
    │   ├── SuiteError            2   a suite file: names file, key, value and remedy
    │   ├── UnknownNameError      2   a model, metric, meter, suite: names the nearest spellings
    │   └── CommandError     126, 127   a command to be measured cannot be executed, is not found
    ├── EvidenceError             4   the evidence does not support the claim
    │   ├── MeterError            4   energy cannot be measured here
    │   ├── DeviceLostError       4   the GPU's context is dead; finished trials are kept, the run can be resumed
    │   └── RunError              4   a run directory is missing, unfinished or damaged
    │       └── FileError        74   a run directory cannot be written
    └── Interrupted             130   stopped on request; finished trials are kept, the run can be resumed
        └── BudgetSpent         130   the request was --max-joules or --max-minutes

Other failures have their own exit codes, which differ from those of verdicts (see `perjoule.commands.outcome`):
70 a fault in perjoule itself, 74 a file cannot be read or written, 141 the reader of stdout has closed the pipe.

Every message says what is wrong, where (file, key, value) and what to do about it. The remedy is the last part, after a
colon, and begins with a verb, e.g. `runs/x does not exist: give a directory that perjoule run wrote`. With --json it is
a value of its own: give it as `remedy=` where the message has names of others, which may look like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from perjoule.text import listed

# a remedy begins with one of these; `did you mean`
_VERBS = frozenset({
    "add", "ask", "check", "choose", "close", "continue", "create", "delete", "did", "download", "free", "generate",
    "give", "import", "install", "leave", "limit", "list", "lower", "make", "measure", "name", "put", "raise",
    "read", "remove", "rename", "repeat", "restore", "resume", "run", "score", "see", "select", "set", "split", "start",
    "update", "use", "wait", "write",
})  # fmt: skip
_MOST_CHARACTERS = 300  # of one line of a foreign message
_MOST_NAMES = 100
# the extra of perjoule that brings a package, by the name under which it is imported or installed
_EXTRAS = {
    **dict.fromkeys(
        ("accelerate", "diffusers", "huggingface_hub", "peft", "requests", "safetensors", "tokenizers", "torch",
         "transformers"), "run"),
    **dict.fromkeys(("cvvdp", "lpips", "pycvvdp", "torch_fidelity", "torchvision"), "metrics"),
    "codecarbon": "codecarbon",
    "DeepCache": "deepcache",
    "pyiqa": "pyiqa",
    "ray": "ray",
    "s3fs": "s3",
    **dict.fromkeys(("starlette", "uvicorn"), "study"),
}  # fmt: skip

# 70 and 74 as in sysexits.h; 141 is a shell's exit code for a program ended by SIGPIPE
INTERNAL_ERROR, FILE_ERROR, READER_GONE = 70, 74, 141


class PerjouleError(Exception):
    """Base of all errors with a message for users; `exit_code` is the exit code of the command line."""

    exit_code = INTERNAL_ERROR

    def __init__(self, message: str = "", *, remedy: str | None = None) -> None:
        """Store what is wrong, and what to do about it, which becomes the last part of the message."""
        super().__init__(message if remedy is None else f"{message}: {remedy}")
        self.remedy = remedy


class UsageError(PerjouleError):
    """The request itself is invalid."""

    exit_code = 2


class SuiteError(UsageError):
    """A suite file cannot be used."""


class UnknownNameError(UsageError):
    """A name that is not registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        """Build the message from the `kind` of thing, the unknown `name`, the nearest names and all known names."""
        names = sorted(known)
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        super().__init__(
            f"{where + ': ' if where else ''}unknown {kind} {name!r}",
            remedy=f"{hint}known: {listed(names, _MOST_NAMES) or 'none'}",
        )


class CommandError(UsageError):
    """The command to be measured cannot be started; exit codes as in shells: 127 not found, 126 not executable."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Store the message and the exit code of the command line."""
        super().__init__(message)
        self.exit_code = exit_code


def remedy_of(error: BaseException) -> str | None:
    """Return what to do about an error: its `remedy`, else the part of its message that begins with a verb, if any."""
    if isinstance(error, PerjouleError) and error.remedy is not None:
        return error.remedy
    text = " ".join(str(error).split())
    ends = (place.end() for place in re.finditer(r"[:;,] (?=(\w+))", text) if place[1] in _VERBS)
    start = next(ends, None)
    return None if start is None else text[start:]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_MOST_CHARACTERS]


def install_command(*packages: str) -> str:
    """Return how to install what extras of perjoule bring: `pip install 'perjoule[run]'` for torch."""
    return f"pip install 'perjoule[{','.join(dict.fromkeys(_EXTRAS[package] for package in packages))}]'"


def missing_extra(error: ImportError) -> str | None:
    """Return what to install, if an import failed because an extra of perjoule is missing; None otherwise."""
    package = (error.name or "").partition(".")[0]
    return f"{package} is not installed: {install_command(package)}" if package in _EXTRAS else None


class EvidenceError(PerjouleError):
    """The evidence is invalid or incomparable."""

    exit_code = 4


class MeterError(EvidenceError):
    """Energy cannot be measured as requested."""


class DeviceLostError(EvidenceError):
    """The device cannot run any further work in this process."""


class RunError(EvidenceError):
    """A run directory cannot be read or continued."""


class FileError(RunError):
    """A run directory cannot be written."""

    exit_code = FILE_ERROR


class Interrupted(PerjouleError):  # noqa: N818 - it is not an error, it is a state
    """The user stopped a run that can be resumed."""

    exit_code = 130


class BudgetSpent(Interrupted):
    """A run has reached its --max-joules or --max-minutes and can be resumed with a larger one."""
