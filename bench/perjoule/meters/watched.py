"""One energy counter: its edges, update period and rest, learnt by watching it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeVar

from perjoule.meters.base import Fault
from perjoule.meters.clock import Clock
from perjoule.meters.conditions import ConditionsRecorder
from perjoule.meters.edges import (
    BOX_S,
    FALL_S,
    is_narrow,
)
from perjoule.meters.response import Following
from perjoule.meters.rest import idle_power, idle_uncertainty_w, is_at_rest, late_share, update_period
from perjoule.meters.watcher import STUCK_AFTER_S, EdgeWatcher
from perjoule.types import (
    CounterLog,
    CounterPoll,
    Edge,
    IdlePower,
    UpdatePeriod,
)
from perjoule.warnings import warning

T = TypeVar("T")

CALLS_TIMED = 5
EDGES_LEARNT = 12  # 11 gaps: at least ten are needed to trust the longest gap; about a second on slow counters
LEARN_S = 0.5  # minimum, so that fast counters observe the device for long enough
LEARN_TRIES = 3  # if polls were late and the board does not seem to rest
MOST_LATE = 0.5  # of the edges that idle power is measured from
REST_STEP_W = 5.0  # a smaller change of the rest before a window does not matter
SETTLE_S = 2.0  # a board is at its lowest rest this long after work
STRIKES = 2  # windows in a row with a higher rest before them than is known, until it is measured again
LATE_RESTS = 3  # rests after a window that may be seen late before one of them is used
MOST_EDGES = 64  # after a window, for a counter that refreshes every 2 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSource:
    """One board's counter.

    Attributes:
        device: Digest of the board's UUID.
        read_j: Reads the counter in J; raises Fault.
        read_w: Reads the instant power in W, if there is such a reading; raises Fault.
        read_both: Reads both by one call, if there is such a call; raises Fault.
        limit_w: Power limit, for the sanity check.
        recorder: Recorder of the board's conditions.
    """

    device: str
    read_j: Callable[[], float]
    read_w: Callable[[], float] | None = None
    read_both: Callable[[], tuple[float, float]] | None = None
    limit_w: float | None = None
    recorder: ConditionsRecorder | None = None


class WatchedCounter:
    """A counter with its measured properties."""

    def __init__(self, source: CounterSource, clock: Clock) -> None:
        self.source = source
        self.watcher = EdgeWatcher(source.read_j, clock)
        self.following = Following()
        self.call_s: float | None = None
        self._read_both = source.read_both
        self.note: str | None = None
        self._clock = clock
        self._seen_w: list[float] = []
        self._stopped_s: float | None = None
        self._strikes = 0
        self._chances = LEARN_TRIES
        self._settles_w = 0.0
        self.period: UpdatePeriod
        self.idle: IdlePower

    def learn(self, seconds: float = 0.0) -> None:
        """Measure the period (once) and idle power. Raises Fault."""
        first = self.watcher.period is None
        if first:
            self.call_s = self._time_of_a_call()
        tries: list[tuple[IdlePower, list[Edge]]] = []
        for _ in range(LEARN_TRIES):
            self._seen_w.clear()
            # the first gap is dropped: whatever ran before may still fade in it
            edges = self.watcher.watch(1 + (EDGES_LEARNT if first else 4), max(seconds, LEARN_S), self._see_power)[1:]
            tries.append((idle_power(edges, self._seen_w), edges))
            if is_at_rest(tries[-1][0]) or late_share(edges) == 0:
                break
        self.idle, edges = min(tries, key=lambda one: idle_uncertainty_w(one[0]))
        late = late_share(edges)
        held_up = late > MOST_LATE or (late > 0 and not is_at_rest(self.idle))
        said = f"{late:.0%} of the refreshes at rest were polled late"
        self.note = warning("W217", said) if held_up else None
        if first:
            self.period = self.watcher.period = update_period(edges)
            # Ten missed refreshes are more than jitter; 0.5 s avoids false alarms with fast counters on a busy host.
            self.watcher.stuck_after_s = min(max(10 * self.period.longest_s, 0.5), STUCK_AFTER_S)

    @property
    def has_worked(self) -> bool:
        """Whether a window has been measured."""
        return self._stopped_s is not None

    def owed_s(self) -> float:
        """Seconds from now until the counter has counted all of the work before now."""
        wait_s = self.following.wait_s()
        if self.following.response.averages and self._stopped_s is not None:
            wait_s = max(wait_s, self._stopped_s + BOX_S + wait_s - self._clock.now())
        return wait_s if is_at_rest(self.idle) else 0.0

    def has_changed(self, rest_w: float) -> bool:
        """Return whether the power before a window is not the idle power that was learnt."""
        doubt_w = max(idle_uncertainty_w(self.idle), REST_STEP_W)
        return is_at_rest(self.idle) and abs(rest_w - self.idle.power_w) > doubt_w

    def must_learn(self, rest_w: float) -> bool:
        """Return whether idle power must be measured again, with the power right before a window.

        Right after work, a board rests at a higher power for a while. If that is so before two windows in a row, the
        board is given time to settle before it is measured again.
        """
        if not self.has_changed(rest_w):
            self._strikes = 0
            return False
        settling = self._stopped_s is not None and self._clock.now() - self._stopped_s < SETTLE_S
        if rest_w < self.idle.power_w or not settling:
            return True
        if rest_w - self.idle.power_w <= self._settles_w:
            return False
        self._strikes += 1
        return self._strikes >= STRIKES

    def learn_again(self, rest_w: float) -> None:
        """Measure idle power when the board has settled. Raises Fault."""
        if self._stopped_s is not None and rest_w > self.idle.power_w:
            self._clock.sleep(self._stopped_s + SETTLE_S - self._clock.now())
        before = self.idle, self.note
        self.learn()
        if not is_at_rest(self.idle):  # the process was held up, or the board works: what was learnt before is better
            self.idle, self.note = before
        self._strikes = 0
        self._settles_w = max(self._settles_w, 1.25 * (rest_w - self.idle.power_w))

    def learn_better(self) -> None:
        """Measure idle power again if the process was held up when it was measured. Raises Fault."""
        if self.note is not None and self._chances:
            self._chances -= 1
            self.learn()

    def needs_more(self, edges: Sequence[Edge], stopped_s: float) -> bool:
        """Return whether further edges are needed: one with all energy of the work, and one gap at rest after it."""
        if len(edges) < 2 or len(edges) >= MOST_EDGES:
            return len(edges) < 2
        settled_s = FALL_S + self.following.wait_s() if is_at_rest(self.idle) else 0.0
        rests = [gap for gap in pairwise(edges) if gap[0].at_s >= stopped_s + settled_s]
        return not any(is_narrow(*gap) for gap in rests) and len(rests) <= LATE_RESTS

    def stopped(self, log: CounterLog, at_s: float) -> None:
        """Learn from a window that ended at `at_s`."""
        self._stopped_s = at_s
        if log.lost is None:
            self.following.add(log)

    def poll(self) -> CounterPoll:
        """Read counter and power, None if they fail."""
        sent_s = self._clock.now()
        both = None if self._read_both is None else answer(self._read_both)
        energy_j = answer(self.source.read_j) if both is None else both[0]
        seen_s = (sent_s + self._clock.now()) / 2
        power_w = self.power_w() if both is None else both[1] or None
        return CounterPoll(t_s=seen_s, energy_j=energy_j, power_w=power_w)

    def power_w(self) -> float | None:
        """Return the power reading; if polled too fast, some drivers answer 0 W, which is impossible."""
        return None if self.source.read_w is None else answer(self.source.read_w) or None

    def _see_power(self) -> None:
        """Read power right after an edge, and use the call for both only if it shows that edge as well."""
        poll = self.poll()
        if poll.power_w is not None:
            self._seen_w.append(poll.power_w)
        last = self.watcher.last
        if last is not None and poll.energy_j is not None and poll.energy_j < last.energy_j:
            self._read_both = None

    def _time_of_a_call(self) -> float:
        times = []
        for _ in range(CALLS_TIMED):
            sent_s = self._clock.now()
            answer(self.source.read_j)
            times.append(self._clock.now() - sent_s)
        return median(times)


def answer(read: Callable[[], T]) -> T | None:
    """Return what a source answers; None if it fails."""
    try:
        return read()
    except Fault:
        return None
