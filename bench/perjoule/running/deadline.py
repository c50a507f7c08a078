"""Ends a trial that hangs, after `protocol.timeout_s`.

    0 s            timeout_s                    + GRACE_S
    ──┬─────────────────┬───────────────────────────┬──
      work of the trial │ TrialTimeoutError in the  │ the process ends: the work never came back from a call
                        │ main thread, again and    │ outside Python (a driver, a kernel); the trial is recorded as
                        │ again until it leaves     │ failed first, so that --resume goes on with the next one

A signal interrupts Python code, and calls outside Python when they return. Workers of Ray run trials in the main thread
of their process as well; in other threads only the second stage is possible.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perjoule.errors import DeviceLostError

GRACE_S = 30.0
_AGAIN_S = 1.0  # in case the work catches the first exception and continues


class TrialTimeoutError(Exception):
    """The work of a trial took longer than `protocol.timeout_s`."""


class Deadline:
    """Time limit of a piece of work; time outside of `running` blocks counts, but is not interrupted.

    Args:
        timeout_s: Seconds from now; None for no limit.
        on_hang: Records the failure before the process ends; called in another thread with the reason.
        grace_s: Seconds between the two stages.
    """

    def __init__(
        self, timeout_s: float | None, on_hang: Callable[[str], object] = lambda reason: None, grace_s: float = GRACE_S
    ) -> None:
        self._timeout_s, self._on_hang, self._grace_s = timeout_s, on_hang, grace_s
        self._end_s = time.monotonic() + (timeout_s or 0.0)
        self._reason = f"the trial took longer than protocol.timeout_s = {timeout_s:g} s" if timeout_s else ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Limit the time of this block, which runs the work of the trial.

        Raises:
            TrialTimeoutError: If the time is over.
        """
        if self._timeout_s is None:
            yield
            return
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TrialTimeoutError(self._reason)
        settled = threading.Lock()  # whoever takes it first decides how the block ends
        last = threading.Timer(left_s + self._grace_s, self._end_process, (settled,))
        last.daemon = True
        last.start()
        try:
            with _alarm(left_s, self._raise):
                yield
        finally:
            settled.acquire()  # waits for ever if the process is being ended
            last.cancel()

    def _raise(self, *_: object) -> None:
        raise TrialTimeoutError(self._reason)

    def _end_process(self, settled: threading.Lock) -> None:
        if not settled.acquire(blocking=False):
            return
        try:
            self._on_hang(f"{self._reason} and does not return")
        finally:
            sys.stderr.write(
                f"perjoule: {self._reason} and does not return: the process ends; continue with --resume\n"
            )
            sys.stderr.flush()
            os._exit(DeviceLostError.exit_code)


@contextmanager
def _alarm(seconds: float, handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        # again, because the last alarm may have interrupted the line above; without a handler it ends the process
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
