"""A meter over any energy counter: watches for its edges, and leaves the arithmetic to `edges`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.edges import (
    Edge,
    EdgeLog,
    IdlePower,
    UpdatePeriod,
    bracket,
    idle_power,
    update_period,
)
from perjoule.types import Boundary, EnergyReading

EDGES_LEARNT = 12  # 11 gaps: ten are the least to trust a longest gap, about a second on slow counters
STUCK_AFTER_S = 2.0  # before the period is known; the slowest published counter refreshes every 0.1 s
POLL_S = 0.0005  # the width of an edge; 0.5 ms x 240 W = 0.12 J


class EdgeWatcher:
    """Polls a counter until it changes.

    Args:
        read: Returns the counter in J; may raise Fault.
        clock: Time to poll on.
        poll_s: Seconds between polls.
        stuck_after_s: A counter that has not changed for so long is stuck.
    """

    def __init__(
        self,
        read: Callable[[], float],
        clock: Clock,
        poll_s: float = POLL_S,
        stuck_after_s: float = STUCK_AFTER_S,
    ) -> None:
        """Nothing is read yet."""
        self.stuck_after_s = stuck_after_s
        self._read = read
        self._clock = clock
        self._poll_s = poll_s

    def next_edge(self) -> Edge:
        """Wait for the next change. Raises Fault W211 if there is none in time, and what `read` raises."""
        begun_s = early_s = self._clock.now()
        old_j = self._read()
        while True:
            self._clock.sleep(self._poll_s)
            sent_s = self._clock.now()
            value_j = self._read()
            if value_j != old_j:
                return Edge(early_s=early_s, late_s=self._clock.now(), energy_j=value_j)
            early_s = sent_s
            if sent_s - begun_s > self.stuck_after_s:
                raise Fault("W211", f"the counter stayed at {old_j:.3f} J for {sent_s - begun_s:.2f} s")

    def watch(self, edge_count: int, seconds: float = 0.0) -> list[Edge]:
        """At least `edge_count` consecutive edges, and as many as come within `seconds`.

        A counter that steps back starts the log anew; one that does so twice raises Fault W210.
        """
        edges = [self.next_edge()]
        resets = 0
        begun_s = self._clock.now()
        while len(edges) < edge_count or self._clock.now() - begun_s < seconds:
            edge = self.next_edge()
            if edge.energy_j < edges[-1].energy_j:
                resets += 1
                if resets > 1:
                    raise Fault("W210", f"the counter fell to {edge.energy_j:.3f} J while it was watched")
                edges = []
            edges.append(edge)
        return edges


class CounterMeter(BaseMeter[Edge]):
    """The edge-bracketed window protocol over one energy counter; see `edges` for the drawing.

    A window waits for an edge before it begins (up to one update period) and for two edges after it ended (up
    to two): one that closes the window, one that shows idle power right after it. No thread, no call in
    between.
    """

    def __init__(
        self,
        *,
        name: str,
        why: str,
        source: str,
        read: Callable[[], float],
        clock: Clock,
        boundary: Boundary = "gpu-board",
        limit_w: float | None = None,
        notes: Sequence[str] = (),
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Learn the counter's update period and a first idle power from the edges of about a second.

        Args:
            name: As the user would type it.
            why: What it reads and why it was taken.
            source: Words for `method`.
            read: The counter in J; raises Fault.
            clock: Time.
            boundary: What the counter covers.
            limit_w: Power limit of the device, for the sanity check.
            notes: Coded warnings that hold for every reading.
            on_close: Called once at close.

        Raises:
            MeterError: The counter does not move, or cannot be read.
        """
        super().__init__(name=name, why=why, boundary=boundary, provenance="measured", clock=clock, notes=notes)
        self._source = source
        self._limit_w = limit_w
        self._on_close = on_close
        self._watcher = EdgeWatcher(read, clock)
        try:
            edges = self._watcher.watch(EDGES_LEARNT)
        except Fault as fault:
            raise MeterError(f"{name}: the energy counter cannot be used: {fault.warning}") from fault
        self.period: UpdatePeriod = update_period(edges)
        self._idle: IdlePower = idle_power(edges)
        self.idle_power_w = self._idle.power_w
        # Ten missed refreshes are no jitter any more; 0.5 s keeps a busy host from crying wolf on fast
        # counters.
        self._watcher.stuck_after_s = min(max(10 * self.period.longest_s, 0.5), STUCK_AFTER_S)

    @property
    def method(self) -> str:
        """Source and learnt period."""
        return (
            f"{self._source}, edge-bracketed, period {self.period.median_s:.3f} s "
            f"(longest {self.period.longest_s:.3f} s of {self.period.gap_count}); "
            "sensor gain (about 5 %) not in the bound"
        )

    def learn_idle(self, seconds: float) -> float | None:
        """Mean power in W over the edges of about `seconds`, at least three; None if the counter fails."""
        try:
            edges = self._watcher.watch(3, seconds)
        except Fault:
            return None
        self._idle = idle_power(edges)
        self.idle_power_w = self._idle.power_w
        return self._idle.power_w

    def _begin(self) -> Edge:
        return self._watcher.next_edge()

    def _end(self, state: Edge, started_s: float, stopped_s: float) -> EnergyReading:
        after = self._watcher.next_edge()
        try:
            rest: Edge | None = self._watcher.next_edge()
        except Fault:  # the window itself is closed; only the look at idle power after it is missing
            rest = None
        log = EdgeLog(before=state, started_s=started_s, stopped_s=stopped_s, after=after, rest=rest)
        result = bracket(log, self._idle, self._limit_w)
        return self._reading(result.energy_j, result.uncertainty_j, started_s, stopped_s, result.warnings)

    def _close(self) -> None:
        if self._on_close is not None:
            self._on_close()
