"""Time as the meters see it: one monotonic clock that tests can replace."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock that can be slept on."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never steps back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
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
