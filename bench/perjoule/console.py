"""Progress for people, on stderr: a live bar on a terminal, a line now and then in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from perjoule.pipeline import StageProgress

_LOG_EVERY_S = 15.0


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def update(self, done: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, note=escape(note))


class _Log:
    """For logs and CI: a line at the start, at the end, and every quarter of a minute between."""

    def __init__(self, console: Console, name: str, total: int, unit: str) -> None:
        self._console, self._name, self._total, self._unit = console, name, total, unit
        self._began = self._said = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done < self._total and now - self._said < _LOG_EVERY_S:
            return
        self._said = now
        left = (now - self._began) / done * (self._total - done) if done else float("nan")
        eta = f", about {left:.0f} s left" if done and done < self._total else ""
        self._console.print(
            f"{self._name}: {done}/{self._total} {self._unit}{eta}{'; ' if note else ''}{note}",
            markup=False,
            highlight=False,
        )


class _Silent:
    def update(self, done: int, note: str = "") -> None:
        """Say nothing."""


class TerminalReporter:
    """Messages and bars on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.console = Console(stderr=True, soft_wrap=True)

    def message(self, text: str) -> None:
        """A line for the person; nothing when quiet."""
        if not self._quiet:
            self.console.print(text, markup=False, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        """A bar with elapsed and remaining time, or log lines where stderr is no terminal."""
        if self._quiet:
            yield _Silent()
        elif not sys.stderr.isatty():
            yield _Log(self.console, name, total, unit)
        else:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, expand=True) as progress:
                yield _Bar(progress, progress.add_task(name, total=total, note=""))
