"""How much energy and time a run may use, and how much it has used so far.

Joules are those of the energy windows. Minutes are wall time since the run was started, loading and warm-up included;
earlier sessions count with the seconds of their windows. A window is never cut: the run stops before the first window
that would exceed the budget, if it takes as much as the most expensive window of its cell so far.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perjoule.display import duration, quantity
from perjoule.errors import MeterError, UsageError
from perjoule.memory import collecting_later
from perjoule.runs.columns import images_drawn
from perjoule.warnings import has_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a run may use; None means no limit."""

    max_joules: float | None = None
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("--max-joules", self.max_joules), ("--max-minutes", self.max_minutes)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} {value:g}: a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """J/image of a cell so far.

    Attributes:
        value: Mean over its window groups, the windows of the same prompts.
        half: Half of its 95 % interval, or the meter's bound for one window; None for several windows of one group.
    """

    value: float
    half: float | None


class _CellSums:
    """Running sums over the windows of a cell, so that a further window costs the same however many there were."""

    def __init__(self) -> None:
        self.most_j = self.most_s = 0.0
        self._windows = 0
        self._bound_j_per_image: float | None = None
        # by prompts: mean J/image of a window group and number of its windows
        self._groups: dict[frozenset[str], tuple[float, int]] = {}
        self._mean = self._squares = 0.0  # of the means of groups: mean, and sum of squared differences from it

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a window: a row of `trials.jsonl`."""
        # the seconds of a suspended window say nothing about how long the next one takes
        if not any(has_code(text, "W251") for text in row["warnings"]):
            self.most_s = max(self.most_s, row["duration_s"] or 0.0)
        images = images_drawn(row["image_count"], row["iterations"])
        energy_j = row["energy_j"]
        self.most_j = max(self.most_j, energy_j or 0.0)
        if energy_j is None or not images:
            return
        self._windows += 1
        self._bound_j_per_image = None if row["uncertainty_j"] is None else row["uncertainty_j"] / images
        prompts, value, before = frozenset(row["prompt_ids"]), energy_j / images, self._mean
        old, count = self._groups.get(prompts, (0.0, 0))
        new = old + (value - old) / (count + 1)
        self._groups[prompts] = new, count + 1
        if count == 0:
            self._mean += (new - before) / len(self._groups)
            self._squares += (new - before) * (new - self._mean)
        else:  # the mean of a known group has changed
            self._mean += (new - old) / len(self._groups)
            self._squares += (new - old) * (new - self._mean + old - before)

    def running(self) -> Running | None:
        """Return the J/image so far; None without joules."""
        groups = len(self._groups)
        if not groups:
            return None
        if self._windows == 1:
            return Running(value=self._mean, half=self._bound_j_per_image)
        if groups == 1:
            return Running(value=self._mean, half=None)
        from scipy.special import stdtrit

        scatter = math.sqrt(max(self._squares, 0.0) / (groups - 1) / groups)
        return Running(value=self._mean, half=float(stdtrit(groups - 1, 0.975)) * scatter)


class Spending:
    """What has been spent, window by window, including windows of earlier sessions.

    Args:
        budget: The limits.
        now: Seconds on a monotonic clock; the session starts when this object is created.
    """

    def __init__(self, budget: Budget, now: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._now, self._began_s = budget, now, now()
        self.energy_j: float | None = None
        self.images = 0
        self._earlier_s = 0.0
        self._cells: defaultdict[str, _CellSums] = defaultdict(_CellSums)

    @collecting_later()
    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the trials of earlier sessions: rows of `trials.jsonl`. Raises MeterError as `add` does."""
        for row in rows:
            self.add(row)
            self._earlier_s += row["duration_s"] or 0.0

    @property
    def seconds(self) -> float:
        """Wall seconds of this session, and window seconds of those before."""
        return self._earlier_s + self._now() - self._began_s

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a finished trial.

        Raises:
            MeterError: If it has no joules and joules are limited: the end of the budget would go unnoticed.
        """
        if row["energy_j"] is not None:
            self.energy_j = (self.energy_j or 0.0) + row["energy_j"]
        elif self._budget.max_joules is not None:
            why = next(iter(row["warnings"]), "no reason was recorded")
            raise MeterError(
                f"--max-joules {self._budget.max_joules:g} cannot be kept: trial {row['trial_id']} has no joules "
                f"({why}); limit the time instead, with --max-minutes, or measure with another --meter "
                "(see `perjoule doctor`)"
            )
        self.images += int(row["image_count"])
        self._cells[row["cell_id"]].add(row)

    def why_stop(self, cell_id: str) -> str | None:
        """Return why no further window of this cell may start; None if it may."""
        cell = self._cells[cell_id]
        limits: tuple[tuple[str, float | None, float, float, Callable[[float], str]], ...] = (
            ("--max-joules", self._budget.max_joules, self.energy_j or 0.0, cell.most_j, lambda j: quantity(j, "J")),
            (
                "--max-minutes",
                self._budget.max_minutes,
                self.seconds / 60,
                cell.most_s / 60,
                lambda m: duration(60 * m),
            ),
        )
        for option, limit, spent, more, words in limits:
            if limit is not None and (spent >= limit or spent + more > limit):
                rest = f", and a window of {cell_id} takes about {words(more)}" if spent < limit else ""
                return f"{option} {limit:g}: {words(spent)} are spent{rest}"
        return None

    def running(self, cell_id: str) -> Running | None:
        """Return the J/image of a cell so far; None if it has no joules yet."""
        return self._cells[cell_id].running()
