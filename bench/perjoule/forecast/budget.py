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

from perjoule.errors import MeterError, UsageError
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """What is kept of a finished window. `timed_s` is None if it was suspended (W251)."""

    energy_j: float | None
    uncertainty_j: float | None
    timed_s: float | None
    images: int
    prompt_ids: frozenset[str]

    @property
    def energy_j_per_image(self) -> float:
        return (self.energy_j or 0.0) / self.images


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
        self._windows: dict[str, list[_Window]] = defaultdict(list)

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
        # the seconds of a suspended window say nothing about how long the next one takes
        suspended = any(has_code(text, "W251") for text in row["warnings"])
        self._windows[row["cell_id"]].append(
            _Window(
                energy_j=row["energy_j"],
                uncertainty_j=row["uncertainty_j"],
                timed_s=None if suspended else row["duration_s"],
                images=images_drawn(row["image_count"], row["iterations"]),
                prompt_ids=frozenset(row["prompt_ids"]),
            )
        )

    def why_stop(self, cell_id: str) -> str | None:
        """Return why no further window of this cell may start; None if it may."""
        windows = self._windows[cell_id]
        next_j = max((window.energy_j or 0.0 for window in windows), default=0.0)
        next_s = max((window.timed_s or 0.0 for window in windows), default=0.0)
        limits = (
            ("--max-joules", self._budget.max_joules, self.energy_j or 0.0, next_j, "J"),
            ("--max-minutes", self._budget.max_minutes, self.seconds / 60, next_s / 60, "min"),
        )
        for option, limit, spent, more, unit in limits:
            if limit is not None and (spent >= limit or spent + more > limit):
                rest = f", and a window of {cell_id} takes about {more:.4g} {unit}" if spent < limit else ""
                return f"{option} {limit:g}: {spent:.4g} {unit} are spent{rest}"
        return None

    def running(self, cell_id: str) -> Running | None:
        """Return the J/image of a cell so far; None if it has no joules yet."""
        metered = [window for window in self._windows[cell_id] if window.energy_j is not None and window.images]
        if not metered:
            return None
        groups: defaultdict[frozenset[str], list[float]] = defaultdict(list)
        for window in metered:
            groups[window.prompt_ids].append(window.energy_j_per_image)
        # windows of the same prompts are one unit
        each = [sum(energies) / len(energies) for energies in groups.values()]
        value = sum(each) / len(each)
        if len(metered) == 1:
            (only,) = metered
            half = None if only.uncertainty_j is None else only.uncertainty_j / only.images
            return Running(value=value, half=half)
        if len(each) == 1:
            return Running(value=value, half=None)
        from scipy.special import stdtrit

        scatter = math.sqrt(sum((x - value) ** 2 for x in each) / (len(each) - 1) / len(each))
        return Running(value=value, half=float(stdtrit(len(each) - 1, 0.975)) * scatter)
