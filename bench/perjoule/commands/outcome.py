"""How a command ends: one message on stderr and an exit code.

| ends with | exit code |
|---|---|
| an error of `perjoule.errors` | its own |
| bad arguments, an extra that is not installed | 2 |
| Ctrl-C, SIGTERM, SIGHUP | 130 |
| a file that cannot be read or written | 74 |
| the reader of stdout has closed it | 141 |
| anything else: a bug in perjoule | 70 |

With --json the message is also an object on stdout, unless the command has printed its result before.

The gate uses 1 and 3 for its verdicts, so no other ending has these codes. `PERJOULE_TRACEBACK=1` adds the traceback.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

from perjoule.errors import (
    FILE_ERROR,
    INTERNAL_ERROR,
    READER_GONE,
    Interrupted,
    PerjouleError,
    UsageError,
    first_line,
    install_command,
    missing_extra,
    remedy_of,
)
from perjoule.text import PLAIN, as_json, one_line, printable

_TRACEBACK = "PERJOULE_TRACEBACK"
# whether the command has printed JSON: a second object would make it unreadable
ANSWERED: ContextVar[bool] = ContextVar("answered", default=False)
_REMEDIES = {
    errno.ENOSPC: "make room, or choose another place",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose another place",
    errno.EDQUOT: "your quota is used up: make room, or choose another place",
    errno.EROFS: "choose another place for the output, e.g. with --out",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "give a file",
    errno.EEXIST: "choose another place, or remove it",
    errno.ENOTEMPTY: "choose another place, or remove it",
    errno.ENXIO: "nobody reads this pipe: start its reader first, or remove it",
    errno.ELOOP: "it is a symbolic link, or links lead in a circle: put a file or folder in its place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}


def status_of(command: Callable[[], object]) -> int:
    """Run a command, report how it ended, and return the exit code.

    Args:
        command: Calls the application. If it returns an integer, that is the exit code.

    Returns:
        The exit code of the process.
    """
    _prepare_streams()
    ANSWERED.set(False)
    try:
        try:
            with _stopped_by_signals():
                status = exit_code(command())
                sys.stdout.flush()
        except BaseException as error:  # polars panics are not an Exception
            status = _reported(error)
            _stdout_works()
    except KeyboardInterrupt:  # again, while the first one was being reported
        status = Interrupted.exit_code
    if status == Interrupted.exit_code:
        _end_quietly()
    return status


def exit_code(returned: object) -> int:
    """Return the exit code that an application returned; any other value means success."""
    return returned if isinstance(returned, int) else 0


def in_words(error: OSError) -> str:
    """Return file, reason and remedy of an error of the operating system."""
    file = error.filename2 or error.filename
    if isinstance(file, bytes):
        file = os.fsdecode(file)
    reason = error.strerror or first_line(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return one_line(f"{f'{file}: ' if file is not None else ''}{reason}{f': {remedy}' if remedy else ''}")


def _reported(error: BaseException) -> int:
    if os.environ.get(_TRACEBACK) and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    match error:
        case SystemExit():
            return _of_exit(error)
        case PerjouleError():
            return _say(str(error), error.exit_code, type(error).__name__, remedy_of(error))
        case KeyboardInterrupt():
            return _say("interrupted", Interrupted.exit_code, "Interrupted")
        case BrokenPipeError():
            return READER_GONE
        case OSError():
            # files that we write are named in the error, see `perjoule.files`; what is left is stdout
            unnamed = error.filename is None and error.errno is not None
            words = f"{'stdout: ' if unnamed else ''}{in_words(error)}"
            return _say(words, FILE_ERROR, type(error).__name__, _REMEDIES.get(error.errno or 0))
        case ModuleNotFoundError() if needed := missing_extra(error):
            return _say(needed, UsageError.exit_code, "UsageError", install_command((error.name or "").split(".")[0]))
        case MemoryError():
            return _say("out of memory", INTERNAL_ERROR, "MemoryError")
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's, which brings its own copy of click
        error.show()
        context = getattr(error, "ctx", None)
        remedy = f"see {context.command_path} --help" if context is not None else None
        _print_failure(error.format_message(), int(error.exit_code), "UsageError", remedy)  # type: ignore[attr-defined]
        return int(error.exit_code)
    if type(error).__name__ == "Abort":  # typer's, for an end of input
        return _say("interrupted", Interrupted.exit_code, "Interrupted")
    hint = "" if os.environ.get(_TRACEBACK) else f"; {_TRACEBACK}=1 shows where"
    words = one_line(f"{type(error).__name__}: {first_line(error)}")
    return _say(f"internal error, please report it: {words}{hint}", INTERNAL_ERROR, type(error).__name__)


def _of_exit(stop: SystemExit) -> int:
    """Typer turns a broken pipe into an exit with 1, which is the gate's FAIL."""
    if isinstance(stop.__context__, BrokenPipeError):
        return READER_GONE
    if stop.code is None:
        return 0
    return stop.code if isinstance(stop.code, int) else _say(str(stop.code), INTERNAL_ERROR, "SystemExit")


def _say(message: str, status: int, kind: str, remedy: str | None = None) -> int:
    _print_failure(message, status, kind, remedy)
    with contextlib.suppress(OSError, ValueError):  # nobody reads stderr: the exit code must do
        sys.stderr.write(f"perjoule: {printable(message)}\n")
        sys.stderr.flush()
    return status


def _print_failure(message: str, status: int, kind: str, remedy: str | None) -> None:
    """Print the failure as JSON on stdout if JSON was asked for, and nothing has been printed yet."""
    if not _wants_json(sys.argv[1:]) or ANSWERED.get():
        return
    failure = {"schema": 1, "error": {"code": status, "kind": kind, "message": message, "remedy": remedy}}
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(as_json(failure) + "\n")


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the arguments ask for JSON; what follows `--` belongs to another program."""
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    return "--json" in own or "--format=json" in own or ("--format", "json") in pairwise(own)


def _stdout_works() -> bool:
    """Flush stdout; if it does not take anything more, put a sink in its place, or the interpreter fails at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, sys.stdout.fileno())
            os.close(sink)
        return False
    return True


def _prepare_streams() -> None:
    """Make stdout and stderr take every character and exist."""
    # a closed stdout frees descriptor 1, and the next file that is opened, a journal say, would get what is printed
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop a command as Ctrl-C does, unless they are ignored, e.g. by nohup."""
    before: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_quietly() -> None:
    """From here on, another Ctrl-C ends the process at once, without a word of the interpreter."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)
