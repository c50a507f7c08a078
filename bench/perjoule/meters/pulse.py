"""Detects that the process was suspended in a window, e.g. by SIGSTOP, a frozen container or system sleep.

    beat   beat   beat                        beat   beat
    ──┼──────┼──────┼──────────── hole ─────────┼──────┼──     the watching thread, ten times a second or more

While a process is suspended, its clock and its device continue, so the joules of such a window are not those of its
images. In a suspended process the watching thread does not beat. The same is true in a busy process if the thread
cannot run, because it waits for a CPU, or for the interpreter's lock during a long C call. The kernel counts both for
every thread (`/proc/thread-self/schedstat`: nanoseconds of waiting, number of turns), so they are subtracted; a thread
that waits for the lock takes a turn every `sys.getswitchinterval()`.

Sleep of the machine stops the monotonic clock too, but not CLOCK_BOOTTIME, so their difference is the time of sleep.
The wall clock is not used, because users and NTP may set it.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass

from perjoule.meters.clock import WATCHER, Clock
from perjoule.warnings import warning

BEAT_S = 0.1  # for meters that have no watching thread of their own
SPACING_S = 0.02  # beats that follow one another sooner are not counted, because each reads a file
HOLE_S = 0.5  # without a beat, after subtracting waiting; readings are up to 0.25 s apart
HOLE_UNSURE_S = 2.0  # if the kernel does not report why a thread did not run
ASLEEP_S = 0.05  # tolerance, because two clocks are read one after the other


@dataclass(frozen=True, slots=True)
class _Turns:
    """Kernel counters of a thread: seconds of waiting for a CPU, and number of turns."""

    waited_s: float
    count: int


class Pulse:
    """The beats of a window; reused for the next window."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = self._has_thread = False
        self._at_s = self._asleep_s = self._longest_s = 0.0
        self._file: int | None = None  # schedstat of the watching thread
        self._turns: _Turns | None = None

    def begin(self) -> None:
        """Begin a window; the watching thread has already been started."""
        watcher = _newest_watcher()
        with self._lock:
            self._has_thread = watcher is not None  # on virtual time there is no other thread
            self._file = _open(f"/proc/self/task/{watcher}/schedstat") if watcher is not None else None
            self._turns = self._read()
            self._longest_s = 0.0
            self._asleep_s = self._clock.asleep_s()
            self._at_s = self._clock.now()
            self._open = True

    def beat(self) -> None:
        """Record a beat; the watching thread calls this at every reading."""
        with self._lock:
            if self._open and self._clock.now() - self._at_s >= SPACING_S:
                self._count()

    def end(self) -> str | None:
        """End the window; return the coded reason if it is invalid, else None."""
        with self._lock:
            if not self._open:
                return None
            self._count()
            self._open = False
            unsure = self._has_thread and self._file is None
            if self._file is not None:
                os.close(self._file)
                self._file = None
            asleep_s = self._clock.asleep_s() - self._asleep_s
        if asleep_s > ASLEEP_S:
            return warning("W251", f"the machine slept for {asleep_s:.1f} s inside the window")
        if self._longest_s > (HOLE_UNSURE_S if unsure else HOLE_S):
            return warning("W251", f"the process did not run for {self._longest_s:.1f} s inside the window")
        return None

    def _count(self) -> None:
        """Compare the time since the last beat with the waiting time of the thread."""
        now_s, turns, before = self._clock.now(), self._read(), self._turns
        excused_s = 0.0
        if turns is not None and before is not None:
            excused_s = turns.waited_s - before.waited_s + sys.getswitchinterval() * (turns.count - before.count)
        self._longest_s = max(self._longest_s, now_s - self._at_s - excused_s)
        self._at_s, self._turns = now_s, turns

    def _read(self) -> _Turns | None:
        if self._file is None:
            return None
        try:
            _, waited_ns, count = os.pread(self._file, 128, 0).split()
        except (OSError, ValueError):  # the thread has ended
            return None
        return _Turns(int(waited_ns) / 1e9, int(count))


def _open(file: str) -> int | None:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _newest_watcher() -> int | None:
    """Return the native id of the watching thread that was started last; None without a thread."""
    ids = [thread.native_id for thread in threading.enumerate() if thread.name == WATCHER]
    return ids[-1] if ids else None
