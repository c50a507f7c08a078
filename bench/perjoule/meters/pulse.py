"""Notices that a window was stopped: SIGSTOP, a frozen container, a machine that slept.

    beat   beat   beat                        beat   beat
    ──┼──────┼──────┼──────────── hole ─────────┼──────┼──     the watching thread, ten times a second or more

Stopped work does nothing, but its clock and its device go on, so the joules of such a window belong to nobody's image.
A stopped process has a watching thread that did not beat. So has a busy one, if the thread could not run: it waited
for a CPU, or for the interpreter's lock that a long C call holds. The kernel counts both for every thread
(`/proc/thread-self/schedstat`: nanoseconds of waiting, number of turns), and they are taken off; a thread that waits
for the lock takes a turn every `sys.getswitchinterval()`.

A machine that slept stops the monotonic clock too. CLOCK_BOOTTIME goes on, and tells by how much. The wall clock is no
witness: it is set by people and by NTP.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass

from perjoule.meters.clock import WATCHER, Clock
from perjoule.warnings import warning

BEAT_S = 0.1  # for meters that have no watching thread of their own
HOLE_S = 0.5  # without a beat, beyond what is excused; looks are up to 0.25 s apart
HOLE_UNSURE_S = 2.0  # where the kernel does not tell why a thread did not run
ASLEEP_S = 0.05  # two clocks are read one after the other


@dataclass(frozen=True, slots=True)
class _Turns:
    """What the kernel counts for a thread: seconds of waiting for a CPU, and how often it got one."""

    waited_s: float
    count: int


class Pulse:
    """The beats of one window after the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = self._has_thread = False
        self._at_s = self._asleep_s = self._longest_s = 0.0
        self._file: int | None = None  # schedstat of the watching thread
        self._turns: _Turns | None = None

    def begin(self) -> None:
        """The window begins now, and the watching thread has been started."""
        watcher = _newest_watcher()
        with self._lock:
            self._has_thread = watcher is not None  # on virtual time nobody else is there
            self._file = _open(f"/proc/self/task/{watcher}/schedstat") if watcher is not None else None
            self._turns = self._read()
            self._longest_s = 0.0
            self._asleep_s = self._clock.asleep_s()
            self._at_s = self._clock.now()
            self._open = True

    def beat(self) -> None:
        """To be called by the watching thread as often as it looks at anything."""
        with self._lock:
            if self._open:
                self._count()

    def end(self) -> str | None:
        """The window ends now; the coded reason why it is worthless, None if it is not."""
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
        """Compare the time since the last beat with what the thread may have waited for."""
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
    """The native id of the watching thread that was started last; None if there is none."""
    ids = [thread.native_id for thread in threading.enumerate() if thread.name == WATCHER]
    return ids[-1] if ids else None
