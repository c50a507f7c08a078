"""Polls an energy counter to find the times of its edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from perjoule.meters.base import Fault
from perjoule.meters.clock import Clock
from perjoule.types import Edge, UpdatePeriod

STUCK_AFTER_S = 1.5  # before the period is known; the slowest published counter refreshes every 0.1 s
POLL_S = 0.0005  # the width of an edge; 0.5 ms x 60 W of idle = 0.03 J


class EdgeWatcher:
    """Polls a counter until it changes.

    Args:
        read: Returns the counter in J; may raise Fault.
        clock: The clock.
        poll_s: Seconds between polls.
        stuck_after_s: A counter that does not change for this long is stuck.
    """

    def __init__(
        self,
        read: Callable[[], float],
        clock: Clock,
        poll_s: float = POLL_S,
        stuck_after_s: float = STUCK_AFTER_S,
    ) -> None:
        """Create the watcher without reading the counter."""
        self.stuck_after_s = stuck_after_s
        self.period: UpdatePeriod | None = None
        self.poll_s = poll_s
        self._read = read
        self._clock = clock
        self._last: Edge | None = None
        self._armed_s = self._early_s = 0.0
        self._old_j = 0.0

    @property
    def last(self) -> Edge | None:
        """The last edge that was seen."""
        return self._last

    def next_edge(self) -> Edge:
        """Wait for the next change. Raises Fault W211 if there is none in time, and any exception of `read`."""
        edge = next_edges([self], self._clock)[0]
        if isinstance(edge, Fault):
            raise edge
        return edge

    def watch(self, edge_count: int, seconds: float = 0.0, on_edge: Callable[[], None] = lambda: None) -> list[Edge]:
        """Return consecutive edges: at least `edge_count`, and all edges within `seconds`.

        If the counter decreases, the log starts again; if it does so twice, Fault W210 is raised.
        """
        edges = [self.next_edge()]
        resets = 0
        begun_s = self._clock.now()
        while len(edges) < edge_count or self._clock.now() - begun_s < seconds:
            if self.period is None and len(edges) > 2:
                # no edge is expected before half of the shortest gap so far, so polling starts then
                self._clock.sleep(0.6 * min(b.at_s - a.at_s for a, b in pairwise(edges)))
            edge = self.next_edge()
            if edge.energy_j < edges[-1].energy_j:
                resets += 1
                if resets > 1:
                    raise Fault("W210", f"the counter fell to {edge.energy_j:.3f} J while it was watched")
                edges = []
            edges.append(edge)
            on_edge()
        return edges

    def quiet_s(self) -> float:
        """Return seconds from now without an expected edge, from the last edge and the period; 0 if unknown."""
        if self.period is None or self._last is None:
            return 0.0
        since_s = self._clock.now() - self._last.at_s
        periods = int(since_s / self.period.median_s) + 1
        # one or two milliseconds of scheduling, the counter's jitter, and the error of the period, once per period
        margin_s = 0.002 + (self.period.longest_s - self.period.shortest_s) / 2 + 0.15e-3 * periods
        if margin_s > self.period.median_s / 3:
            return 0.0
        quiet_s = periods * self.period.median_s - since_s - margin_s
        return max(quiet_s, 0.0)

    def arm(self) -> None:
        """Read the value that the next change is compared with. May raise Fault."""
        self._armed_s = self._early_s = self._clock.now()
        self._old_j = self._read()

    def poll(self) -> Edge | None:
        """Poll once, after `arm`; return the edge if the counter has changed. Raises Fault W211 if it is overdue."""
        sent_s = self._clock.now()
        value_j = self._read()
        if value_j != self._old_j:
            edge = Edge(early_s=self._early_s, late_s=self._clock.now(), energy_j=value_j)
            self._early_s = self._armed_s = sent_s
            self._old_j = value_j
            self._last = edge
            return edge
        self._early_s = sent_s
        if sent_s - self._armed_s > self.stuck_after_s:
            raise Fault("W211", f"the counter stayed at {self._old_j:.3f} J for {sent_s - self._armed_s:.2f} s")
        return None


def next_edges(watchers: Sequence[EdgeWatcher], clock: Clock) -> list[Edge | Fault]:
    """Wait until every counter has changed; return the last change of each, or the reason if there is none.

    All counters are polled in turn, so the first ones may change again before the last one has: the later edge is
    then used.
    """
    clock.sleep(min(watcher.quiet_s() for watcher in watchers))
    found: list[Edge | Fault | None] = [None] * len(watchers)
    for i, watcher in enumerate(watchers):
        try:
            watcher.arm()
        except Fault as fault:
            found[i] = fault
    while any(one is None for one in found):
        clock.sleep(min(watcher.poll_s for watcher in watchers))
        for i, watcher in enumerate(watchers):
            if isinstance(found[i], Fault):
                continue
            try:
                found[i] = watcher.poll() or found[i]
            except Fault as fault:
                found[i] = fault
    return [one for one in found if one is not None]
