"""Time as the meters see it: one monotonic clock that tests can replace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

WATCHER = "perjoule-watch"  # name of the threads that call back


class Cancel(Protocol):
    """Ends what `Clock.every` began; may be called again."""

    def __call__(self, wait: bool = True) -> None:
        """Let no further call begin; without `wait`, one that is on its way may still go on for a moment."""
        ...


def not_begun(wait: bool = True) -> None:
    """The `Cancel` of what has not begun yet."""


class Clock(Protocol):
    """A monotonic clock that can be slept on, and that calls back."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never steps back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """Call `action` every `interval_s` from now on."""
        ...

    def asleep_s(self) -> float:
        """Seconds that the machine has slept so far, with this clock standing still; only differences mean anything."""
        ...


class SystemClock:
    """The machine's monotonic clock: wall-clock steps and time zones do not reach it."""

    def now(self) -> float:
        """`time.perf_counter`, in seconds."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """`time.sleep`; negative durations return at once."""
        if seconds > 0:
            time.sleep(seconds)

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """One daemon thread, which ends with the returned function, with the process, and in a fork's child.

        An action that raises is logged once and called again: one bad look must not end the watching.
        """
        done = threading.Event()

        def run() -> None:
            failed = False
            while not done.wait(interval_s):
                try:
                    action()
                except Exception:
                    if not failed:
                        log.exception("a look at the device failed; the next ones go on")
                    failed = True

        def cancel(wait: bool = True) -> None:
            done.set()
            if wait:
                thread.join()

        thread = threading.Thread(target=run, name=WATCHER, daemon=True)
        thread.start()
        return cancel

    def asleep_s(self) -> float:
        """CLOCK_BOOTTIME less CLOCK_MONOTONIC (Linux; 0 elsewhere); the tightest of three tries."""
        if not hasattr(time, "CLOCK_BOOTTIME"):
            return 0.0
        tries = []
        for _ in range(3):
            before_s = time.clock_gettime(time.CLOCK_MONOTONIC)
            since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            after_s = time.clock_gettime(time.CLOCK_MONOTONIC)
            tries.append((after_s - before_s, since_boot_s - (before_s + after_s) / 2))
        return min(tries)[1]
