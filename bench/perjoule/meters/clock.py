"""Clock of the meters: a monotonic clock that tests can replace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

WATCHER = "perjoule-watch"  # name of the threads that call back


class Cancel(Protocol):
    """Stops the calls of `Clock.every`; may be called again."""

    def __call__(self, wait: bool = True) -> None:
        """Stop further calls; without `wait`, a running call may continue for a moment."""
        ...


def not_begun(wait: bool = True) -> None:
    """Do nothing: the `Cancel` before `Clock.every` is called."""


class Clock(Protocol):
    """A monotonic clock with sleep and periodic calls."""

    def now(self) -> float:
        """Return seconds since an arbitrary start; the value never decreases."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """Call `action` every `interval_s` from now on."""
        ...

    def asleep_s(self) -> float:
        """Return seconds of system sleep, which this clock does not count; only differences are meaningful."""
        ...


class SystemClock:
    """The machine's monotonic clock, which wall-clock steps and time zones do not affect."""

    def now(self) -> float:
        """Return `time.perf_counter`, in seconds."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Call `time.sleep`; negative durations return immediately."""
        if seconds > 0:
            time.sleep(seconds)

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """Start one daemon thread; it ends with the returned function, with the process, and in a fork's child.

        An action that raises is logged once and called again: one failed reading must not stop the monitoring.
        """
        done = threading.Event()

        def run() -> None:
            failed = False
            while not done.wait(interval_s):
                try:
                    action()
                except Exception:
                    if not failed:
                        log.exception("a reading of the device failed; further readings continue")
                    failed = True

        def cancel(wait: bool = True) -> None:
            done.set()
            if wait:
                thread.join()

        thread = threading.Thread(target=run, name=WATCHER, daemon=True)
        thread.start()
        return cancel

    def asleep_s(self) -> float:
        """Return CLOCK_BOOTTIME minus CLOCK_MONOTONIC (Linux; 0 elsewhere), the most precise of three attempts."""
        if not hasattr(time, "CLOCK_BOOTTIME"):
            return 0.0
        tries = []
        for _ in range(3):
            before_s = time.clock_gettime(time.CLOCK_MONOTONIC)
            since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            after_s = time.clock_gettime(time.CLOCK_MONOTONIC)
            tries.append((after_s - before_s, since_boot_s - (before_s + after_s) / 2))
        return min(tries)[1]
