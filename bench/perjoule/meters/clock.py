"""Time as the meters see it: one monotonic clock that tests can replace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Cancel(Protocol):
    """Ends what `Clock.every` began; may be called again."""

    def __call__(self, wait: bool = True) -> None:
        """Let no further call begin; without `wait`, one that is on its way may still go on for a moment."""
        ...


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
        """One daemon thread, which ends with the returned function, with the process, and in a fork's child."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(interval_s):
                action()

        def cancel(wait: bool = True) -> None:
            done.set()
            if wait:
                thread.join()

        thread = threading.Thread(target=run, name="perjoule-watch", daemon=True)
        thread.start()
        return cancel
