"""Advisory locks, so that two processes never write one run directory or measure one board.

The kernel holds the lock for an open file, and releases it when the process ends in any way; nothing is left behind.
File systems without such locks (e.g. some network file systems, for directories) are used without one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from perjoule.errors import PerjouleError, UsageError


@contextmanager
def locked(path: Path, refusal: Callable[[str], PerjouleError]) -> Iterator[None]:
    """Hold the lock of a file or directory, which must exist.

    Args:
        path: The file or directory; its content is not touched.
        refusal: Returns the error for a lock that another process holds, e.g. `process 1234`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(_holder(handle)) from None
        except OSError:
            pass  # not supported here
        yield
    finally:
        os.close(handle)


def being_written(run: Path) -> AbstractContextManager[None]:
    """Hold the lock of a run directory. Raises UsageError if another process writes it."""
    return locked(run, lambda holder: UsageError(f"{run} is being written by {holder}: wait for it, or choose another"))


def _holder(handle: int) -> str:
    """Return the process that holds the lock of an open file, as far as the kernel shows it."""
    place = os.fstat(handle)
    wanted = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}:{place.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.split()
            if "FLOCK" in words and wanted in words and words[4] not in ("0", "-1"):
                return f"process {words[4]}"
    return "another process"
