"""What windows have shown about a counter and its board: how long both take to follow the end of work.

It starts from limits that hold for every known board (`REACH_S`, `edges.FALL_S`, `edges.BOX_S`) and narrows them with
every window, since a window between rests is a step of power whose end is known to the millisecond.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from perjoule.meters.edges import BOX_S, FALL_S, closed, learn, rest_after, work_power_w
from perjoule.meters.rest import idle_uncertainty_w, usual_rest
from perjoule.types import CounterLog, CounterResponse, IdlePower

LAG_S = 0.1  # the longest lag of a counter that is assumed until windows show less
REACH_S = LAG_S + FALL_S
SURE = 1.5  # times the energy that a box of a second would have shown
WINDOWS_KEPT = 64
RESTS_KEPT = 7
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
    _averages: bool = True
    _shown: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOWS_KEPT))
    _rests_w: deque[float] = field(default_factory=lambda: deque(maxlen=RESTS_KEPT))

    @property
    def response(self) -> CounterResponse:
        """The limits as a window's log has them."""
        most_s = min(_nth(sorted(most for _, most, _ in self._shown), FALL_S), FALL_S)
        least_s = min(_nth(sorted((least for least, _, _ in self._shown), reverse=True), 0.0), most_s)
        if self.measured is not None:
            lag_s, box_s = self.measured
            return CounterResponse(lag_s=lag_s, box_s=box_s, least_fall_s=least_s, most_fall_s=most_s)
        reach_s = min(_nth(sorted(reach for _, _, reach in self._shown), REACH_S), REACH_S)
        return CounterResponse(
            lag_s=None,
            box_s=None,
            reach_s=reach_s,
            averages=self._averages,
            least_fall_s=least_s if reach_s <= FALL_S else 0.0,
            most_fall_s=most_s,
        )

    @property
    def rest_after(self) -> IdlePower | None:
        """Power at rest after the last few windows; None before the first."""
        return usual_rest(self._rests_w) if self._rests_w else None

    def wait_s(self) -> float:
        """Seconds after the end of work until all of its energy is counted."""
        return self.response.reach_s if self.measured is None else sum(self.measured)

    def add(self, log: CounterLog) -> None:
        """Learn from a window."""
        shown = learn(log)
        if shown is None:
            return
        self._shown.append(shown)
        log = closed(log)
        seen = rest_after(log)
        if seen is None or log.after is None:
            return
        rest_w = seen[0]
        self._rests_w.append(rest_w)
        before_w = log.idle.power_w if log.rest_before_w is None else log.rest_before_w
        above_w = work_power_w(log, log.after) - before_w
        self.above_w = max(self.above_w or 0.0, above_w)
        # a counter that averages over a second would still show this much of the work's power
        share = min(log.stopped_s - log.started_s, BOX_S - (log.after.at_s - log.stopped_s)) / BOX_S
        doubt_w = idle_uncertainty_w(log.idle) + seen[1]
        if SURE * (max(rest_w - before_w, 0.0) + doubt_w) < above_w * share:
            self._averages = False


def _nth(ordered: list[float], otherwise: float) -> float:
    """Return the value on which enough windows agree."""
    return ordered[AGREE - 1] if len(ordered) >= AGREE else otherwise
