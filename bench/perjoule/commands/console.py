"""Progress on stderr: a live bar on a terminal, a line every 15 s in a log, nothing with --quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from perjoule.display import duration
from perjoule.running.stage import StageProgress
from perjoule.text import printable

_LOG_EVERY_S = 15.0


class _Bar:
    def __init__(self, progress: Progress, task: TaskID, total: int) -> None:
        self._progress, self._task, self._total = progress, task, max(total, 1)

    def update(self, done: int, note: str = "", share: float | None = None) -> None:
        share = done / self._total if share is None else share
        self._progress.update(self._task, completed=share, count=f"{done}/{self._total}", note=escape(printable(note)))

    def expect(self, total: int, share: float) -> None:
        self._total = max(total, 1)
        self._progress.update(self._task, total=share)


class _Log:
    """Progress for logs and CI: a line at the start, every 15 s, and at the end."""

    def __init__(self, console: Console, name: str, total: int, unit: str, resumed: float) -> None:
        self._console, self._name, self._total, self._unit = console, name, total, unit
        self._began = self._said = time.monotonic()
        self._resumed, self._whole = resumed, 1.0

    def expect(self, total: int, share: float) -> None:
        self._total, self._whole = total, share

    def update(self, done: int, note: str = "", share: float | None = None) -> None:
        now = time.monotonic()
        share = done / max(self._total, 1) if share is None else share
        if done < self._total and now - self._said < _LOG_EVERY_S:
            return
        self._said = now
        timed = share - self._resumed
        eta = ""
        if timed > 0 and done < self._total:
            eta = f", about {duration((now - self._began) / timed * max(self._whole - share, 0.0))} left"
        self._console.print(
            f"{self._name}: {done}/{self._total} {self._unit}{eta}{'; ' if note else ''}{printable(note)}",
            markup=False,
            highlight=False,
        )


class _Silent:
    def update(self, done: int, note: str = "", share: float | None = None) -> None:
        """Print nothing."""

    def expect(self, total: int, share: float) -> None:
        """Print nothing."""


class TerminalReporter:
    """Messages and bars on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.console = Console(stderr=True, soft_wrap=True)

    def message(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self._quiet:
            self.console.print(printable(text), markup=False, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int, unit: str, resumed: float = 0.0) -> Iterator[StageProgress]:
        """Show a bar with elapsed and remaining time, or log lines if stderr is not a terminal.

        `resumed`: share of the work that an earlier process did; it is left out of the estimate of the remaining time.
        """
        if self._quiet:
            yield _Silent()
        elif not sys.stderr.isatty():
            yield _Log(self.console, name, total, unit, resumed)
        else:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            # windows may take longer than the 30 s that rich takes into account by default
            with Progress(*columns, console=self.console, expand=True, speed_estimate_period=600) as progress:
                # measured in shares of the work: trials of 50 steps take longer than those of 5
                task = progress.add_task(name, total=1.0, count=f"0/{total}", note="")
                progress.update(task, completed=resumed)  # rich ignores the first step when it computes the speed
                yield _Bar(progress, task, total)
