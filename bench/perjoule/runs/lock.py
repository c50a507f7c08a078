"""Advisory locks, so that two processes never write one run directory or measure one board.

The kernel holds the lock for an open file, and releases it when the process ends in any way; nothing is left behind.
File systems without such locks (e.g. some network file systems, for directories) are used without one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from perjoule.errors import MeterError, PerjouleError, UsageError
from perjoule.meters.base import BaseMeter
from perjoule.meters.known import file_of
from perjoule.protocols import EnergyMeter


@contextmanager
def locked(path: Path, refusal: Callable[[str, bool], PerjouleError], *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file or directory, which must exist.

    Args:
        path: The file or directory; its content is not touched.
        refusal: Returns the error for a lock that another process holds, e.g. `process 1234`, and whether it shares it.
        shared: Whether other processes may hold it too, if it is shared for them as well.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(*_holder(handle)) from None
        except OSError:
            pass  # not supported here
        yield
    finally:
        os.close(handle)


def being_written(run: Path) -> AbstractContextManager[None]:
    """Hold the lock of a run directory. Raises UsageError if another process writes it, or reads it whole."""
    return locked(run, partial(_run_refusal, run))


def being_read(run: Path) -> AbstractContextManager[None]:
    """Keep others from writing a run directory that is read whole. Raises UsageError if a process writes it."""
    return locked(run, partial(_run_refusal, run), shared=True)


def _run_refusal(run: Path, holder: str, is_shared: bool) -> UsageError:
    use = "read" if is_shared else "written"
    return UsageError(f"{run} is being {use} by {holder}: wait for it, or choose another")


@contextmanager
def measured_alone(meter: EnergyMeter) -> Iterator[None]:
    """Hold the locks of the boards that a meter reads, for the runs of this user.

    Raises:
        MeterError: If another process measures one of them: its work would be in the joules of this one.
    """
    boards = meter.facts if isinstance(meter, BaseMeter) else ()
    with ExitStack() as held:
        for board in boards:
            file = file_of(board.digest, "lock").with_suffix("")
            with contextlib.suppress(OSError):  # without a folder to write to, there is no lock
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
            if file.exists():
                held.enter_context(locked(file, partial(_board_refusal, board.model)))
        yield


def _board_refusal(model: str, holder: str, _: bool) -> MeterError:
    return MeterError(
        f"{model} is being measured by {holder}: the joules of each would contain the work of the other; wait for it, "
        "or choose another board with --meter nvml:UUID"
    )


def _holder(handle: int) -> tuple[str, bool]:
    """Return the process that holds the lock of an open file, and whether it is shared, as far as the kernel shows."""
    place = os.fstat(handle)
    wanted = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}:{place.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.split()
            if "FLOCK" in words and wanted in words and words[4] not in ("0", "-1"):
                return f"process {words[4]}", words[3] == "READ"
    return "another process", False
