"""What windows have shown about a counter and its board: how long both take to follow the end of work.

It starts from limits that hold for every known board (`REACH_S`, `edges.FALL_S`, `edges.BOX_S`) and narrows them with
every window, since a window between rests is a step of power whose end is known to the millisecond.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean

from perjoule.meters.edges import (
    BOX_S,
    FALL_S,
    Shown,
    closed,
    late_after_s,
    longest_box_s,
    rest_after,
    show,
    work_power_w,
)
from perjoule.meters.rest import usual_rest
from perjoule.types import CounterLog, CounterResponse, IdlePower

LAG_S = 0.1  # the longest lag of a counter that is assumed until windows show less
REACH_S = LAG_S + FALL_S
WINDOWS_KEPT = 64
RESTS_KEPT = 7
NEAREST = 8  # windows whose limits of the fall are averaged, at most
AGREE = 2  # a limit holds when two windows have shown it


@dataclass(slots=True)
class Following:
    """The limits so far; `add` narrows them.

    Attributes:
        measured: Lag and box in s, as measured by steps of work; None before that.
        above_w: Highest power at work above rest that a window has shown, None before the first one.
    """

    measured: tuple[float, float] | None = None
    above_w: float | None = None
    _box_s: float = BOX_S
    _shown: deque[Shown] = field(default_factory=lambda: deque(maxlen=WINDOWS_KEPT))
    _rests_w: deque[float] = field(default_factory=lambda: deque(maxlen=RESTS_KEPT))

    @property
    def response(self) -> CounterResponse:
        """The limits as a window's log has them."""
        most_s = min(self._most_fall_s(), FALL_S)
        least_s = min(_nth(sorted((shown.least_s for shown in self._shown), reverse=True), 0.0), most_s)
        if self.measured is not None:
            lag_s, box_s = self.measured
            return CounterResponse(lag_s=lag_s, box_s=box_s, least_fall_s=least_s, most_fall_s=most_s)
        reach_s = min(_nth(sorted(shown.reach_s for shown in self._shown), self._box_s), self._box_s)
        return CounterResponse(
            lag_s=None,
            box_s=None,
            reach_s=REACH_S if self._box_s >= BOX_S else reach_s,
            averages=self._box_s >= BOX_S,
            most_fall_s=most_s,
        )

    @property
    def rest_after(self) -> IdlePower | None:
        """Power at rest after the last few windows; None before the first."""
        return usual_rest(self._rests_w) if self._rests_w else None

    def _most_fall_s(self) -> float:
        """Return the upper limit of the fall, from the mean of the windows that ended nearest to an edge."""
        nearest = sorted(self._shown, key=lambda shown: shown.near_s)[:NEAREST]
        limits = [
            fmean(max(one.most_s, one.least_s) for one in some) + fmean(one.doubt_s for one in some) / sqrt(len(some))
            for some in (nearest[:count] for count in range(AGREE, len(nearest) + 1))
        ]
        return min(limits, default=FALL_S)

    def wait_s(self) -> float:
        """Seconds after the end of work until all of its energy is counted."""
        return self.response.reach_s if self.measured is None else late_after_s(*self.measured)

    def set(self, measured: tuple[float, float] | None) -> None:
        """Set the measured lag and box; what windows have shown under other assumptions is forgotten."""
        self.measured = measured
        self._shown.clear()

    def add(self, log: CounterLog) -> None:
        """Learn from a window."""
        ideal = closed(log)
        shown = show(log if self.measured is None else ideal)
        seen = rest_after(ideal)
        if shown is None or seen is None or ideal.after is None:
            return
        self._box_s = min(self._box_s, max(longest_box_s(ideal), REACH_S))
        if self._box_s >= BOX_S and self.measured is None:
            return  # what comes after the work may be the work's
        self._shown.append(shown)
        self._rests_w.append(seen[0])
        before_w = log.idle.power_w if log.rest_before_w is None else log.rest_before_w
        self.above_w = max(self.above_w or 0.0, work_power_w(ideal, ideal.after) - before_w)


def _nth(ordered: list[float], otherwise: float) -> float:
    """Return the value on which enough windows agree."""
    return ordered[AGREE - 1] if len(ordered) >= AGREE else otherwise
