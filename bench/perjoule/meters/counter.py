"""Meter over energy counters: watches for their edges; `edges` does the arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault, Forecast
from perjoule.meters.clock import Cancel, Clock, not_begun
from perjoule.meters.conditions import ConditionsRecorder
from perjoule.meters.edges import (
    Bracketed,
    bracket,
    expected_uncertainty_j,
    idle_power,
    power_ratio,
    update_period,
)
from perjoule.meters.part_time import aliasing
from perjoule.meters.phase import PhaseTest, phase_test
from perjoule.meters.watcher import STUCK_AFTER_S, EdgeWatcher, next_edges
from perjoule.types import (
    Boundary,
    CounterLog,
    CounterPoll,
    DeviceEnergy,
    Edge,
    EnergyReading,
    IdlePower,
    PowerTrace,
    UpdatePeriod,
)
from perjoule.warnings import has_code, warning

EDGES_LEARNT = 12  # 11 gaps: at least ten are needed to trust the longest gap; about a second on slow counters
LEARN_S = 0.5  # minimum, so that fast counters observe the device for long enough
LOOKS_PER_PERIOD = 2
LOOK_S = (0.04, 0.1)  # minimum and maximum seconds between readings inside a window
RATIO_RANGE = (0.8, 1.25)  # counter over power reading; gains differ by some 10 % (arXiv 2312.02741)
RATIO_FROM_S = 2.0  # in shorter windows the power reading has too few refreshes to contradict anything


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSource:
    """One board's counter.

    Attributes:
        device: Digest of the board's UUID.
        read_j: Reads the counter in J; raises Fault.
        read_w: Reads the instant power in W, if there is such a reading; raises Fault.
        limit_w: Power limit, for the sanity check.
        recorder: Recorder of the board's conditions.
    """

    device: str
    read_j: Callable[[], float]
    read_w: Callable[[], float] | None = None
    limit_w: float | None = None
    recorder: ConditionsRecorder | None = None


class WatchedCounter:
    """A counter with its measured properties."""

    def __init__(self, source: CounterSource, clock: Clock) -> None:
        self.source = source
        self.watcher = EdgeWatcher(source.read_j, clock)
        self._clock = clock
        self._seen_w: list[float] = []
        self.period: UpdatePeriod
        self.idle: IdlePower

    def learn(self, seconds: float = 0.0) -> None:
        """Measure the period (once) and idle power. Raises Fault."""
        first = self.watcher.period is None
        self._seen_w.clear()
        edges = self.watcher.watch(EDGES_LEARNT if first else 4, max(seconds, LEARN_S), self._see_power)
        self.idle = idle_power(edges, self._seen_w)
        if first:
            self.period = self.watcher.period = update_period(edges)
            # Ten missed refreshes are more than jitter; 0.5 s avoids false alarms with fast counters on a busy host.
            self.watcher.stuck_after_s = min(max(10 * self.period.longest_s, 0.5), STUCK_AFTER_S)

    def poll(self) -> CounterPoll:
        """Read counter and power, None if they fail."""
        sent_s = self._clock.now()
        energy_j = _answer(self.source.read_j)
        seen_s = (sent_s + self._clock.now()) / 2
        return CounterPoll(t_s=seen_s, energy_j=energy_j, power_w=self.power_w())

    def power_w(self) -> float | None:
        """Return the power reading; if polled too fast, some drivers answer 0 W, which is impossible."""
        return None if self.source.read_w is None else _answer(self.source.read_w) or None

    def _see_power(self) -> None:
        power_w = self.power_w()
        if power_w is not None:
            self._seen_w.append(power_w)


@dataclass(slots=True)
class _Open:
    """An open window of a CounterMeter."""

    polls: list[list[CounterPoll]]
    cancel: Cancel = field(default=not_begun)
    before: list[Edge | Fault] = field(default_factory=list)
    looking: bool = False


class CounterMeter(BaseMeter[_Open]):
    """Meter with edge-bracketed windows over the energy counters of one or several boards; see `edges`.

    A window waits for an edge before it begins (up to one update period) and for two edges after its end (up to
    two periods): one closes the window, the other shows the power right after it. In between, a thread reads
    counter and power ten to twenty times per second, so that if a source fails, only the energy after the last
    reading is lost.
    """

    watches = True

    def __init__(
        self,
        *,
        name: str,
        why: str,
        source: str,
        counters: Sequence[CounterSource],
        clock: Clock,
        boundary: Boundary = "gpu-board",
        notes: Sequence[str] = (),
        on_close: Callable[[], None] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Measure the counters' update periods and idle power from the edges of about a second.

        Args:
            name: Name that opens the meter.
            why: What it reads and why it was chosen.
            source: Description for `method`.
            counters: One per board.
            clock: The clock.
            boundary: The part of the system that the counters cover.
            notes: Coded warnings of every reading.
            on_close: Called once at close.
            chance: Random numbers for the phase of windows on a part-time counter.

        Raises:
            MeterError: A counter does not change, or cannot be read.
        """
        super().__init__(name=name, why=why, boundary=boundary, provenance="measured", clock=clock, notes=notes)
        self._source = source
        self._on_close = on_close
        self._chance = chance or random.Random()
        self.boards = [WatchedCounter(counter, clock) for counter in counters]
        self.recorders = tuple(counter.recorder for counter in counters if counter.recorder is not None)
        self.seen_share = 1.0
        for board in self.boards:
            try:
                board.learn()
            except Fault as fault:
                where = board.source.device or name
                raise MeterError(f"{name}: the energy counter of {where} cannot be used: {fault.warning}") from fault
        self._sum_idle()

    @property
    def period(self) -> UpdatePeriod:
        """Update period of the (first) board."""
        return self.boards[0].period

    @property
    def idle(self) -> IdlePower:
        """Idle power of the (first) board."""
        return self.boards[0].idle

    @property
    def method(self) -> str:
        """Source and measured periods."""
        periods = ", ".join(
            f"period {board.period.median_s:.3f} s (longest {board.period.longest_s:.3f} s of {board.period.gap_count})"
            for board in self.boards
        )
        part = "" if self.seen_share >= 1 else f", part-time ({self.seen_share:.0%} of time seen)"
        return f"{self._source}, edge-bracketed, {periods}{part}; sensor gain (about 5 %) not in the bound"

    def learn_idle(self, seconds: float) -> float | None:
        """Return mean power in W over the edges of about `seconds`, at least four; None if a counter fails."""
        try:
            for board in self.boards:
                board.learn(seconds)
        except Fault:
            return None
        self._sum_idle()
        return self.idle_power_w

    def try_phase(self, burst: Callable[[float], None], *, offsets: int = 8, repeats: int = 3) -> PhaseTest:
        """Test whether the counter sees all of the time; see `phase.phase_test`. Takes about 12 s.

        After that, the bound includes the share that is not seen, windows of a part-time counter begin at a random
        phase (windows aligned to its refreshes would all miss the same part), and readings have W214, or W216 if the
        test was inconclusive.

        Args:
            burst: Keeps the board busy for about the given seconds and returns when the work is done.
            offsets: Number of offsets in the update period.
            repeats: Number of bursts per offset.

        Raises:
            MeterError: Several boards are measured, or the counter failed meanwhile.
        """
        if len(self.boards) > 1:
            raise MeterError(f"{self.name}: the phase test is for one board; open the boards one by one")
        board = self.boards[0]
        try:
            found = phase_test(
                board.watcher,
                board.period,
                board.idle,
                burst,
                self.clock,
                offsets=offsets,
                repeats=repeats,
                chance=self._chance,
            )
        except Fault as fault:
            raise MeterError(f"{self.name}: the phase test failed: {fault.warning}") from fault
        self.seen_share = found.seen_share if found.part_time and found.seen_share is not None else 1.0
        kept = [note for note in self.notes if not has_code(note, "W214", "W216")]
        self.notes = (*kept, found.warning) if found.warning else tuple(kept)
        return found

    def expected_uncertainty_j(self) -> float | None:
        """Return a bound in J for any work between rests; None for a counter that sees only part of the time."""
        if self.seen_share < 1:
            return None
        return sum(expected_uncertainty_j(board.period, board.idle) for board in self.boards)

    def _sum_idle(self) -> None:
        self.idle_power_w = sum(board.idle.power_w for board in self.boards)

    def _begin(self) -> _Open:
        def look() -> None:
            if state.looking:
                self.pulse.beat()
                for board, polls in zip(self.boards, state.polls, strict=True):
                    polls.append(board.poll())
                    self.pulse.beat()
                self._look()

        # The thread is started before waiting for the edge, and ends while waiting for the next ones: both take time.
        shortest_s = min(board.period.median_s for board in self.boards)
        interval_s = min(max(shortest_s / LOOKS_PER_PERIOD, LOOK_S[0]), LOOK_S[1])
        state = _Open(polls=[[] for _ in self.boards])  # created before the thread, which uses it
        state.cancel = self.clock.every(interval_s, look)
        try:
            state.before = next_edges([board.watcher for board in self.boards], self.clock)
            if len(state.before) == 1 and isinstance(state.before[0], Fault):
                raise state.before[0]
            if self.seen_share < 1:
                self.clock.sleep(self._chance.uniform(0, self.period.median_s))
        except BaseException:
            state.cancel()
            raise
        state.looking = True
        return state

    def _end(self, state: _Open, started_s: float, stopped_s: float) -> EnergyReading:
        stops = [_answer(board.source.read_j) for board in self.boards]
        state.looking = False
        state.cancel(wait=False)
        going = [board for board, stop_j in zip(self.boards, stops, strict=True) if stop_j is not None]
        after = self._edges_of(going)
        rest = self._edges_of([board for board in going if isinstance(after[board], Edge)])
        devices, results = [], []
        for i, board in enumerate(self.boards):
            log = self._log(board, state.before[i], state.polls[i], stops[i], after.get(board), rest.get(board))
            log = None if log is None else _from(log, started_s, stopped_s)
            result = _dead(state.before[i]) if log is None else bracket(log)
            results.append(result)
            devices.append(
                DeviceEnergy(
                    device=board.source.device,
                    energy_j=result.energy_j,
                    uncertainty_j=result.uncertainty_j,
                    idle_power_w=board.idle.power_w,
                    counter=log,
                    power_ratio=None if log is None else power_ratio(log),
                )
            )
        warnings = [said for board, result in zip(devices, results, strict=True) for said in self._said(board, result)]
        total = results[0] if len(results) == 1 else _sum(results)
        return replace(
            self._reading(total.energy_j, total.uncertainty_j, started_s, stopped_s, warnings),
            partial_energy_j=total.partial_energy_j,
            partial_s=total.partial_s,
            devices=tuple(devices),
            trace=_trace(state.polls, started_s, stopped_s),
        )

    def _edges_of(self, boards: Sequence[WatchedCounter]) -> dict[WatchedCounter, Edge | Fault]:
        if not boards:
            return {}
        return dict(zip(boards, next_edges([board.watcher for board in boards], self.clock), strict=True))

    def _log(
        self,
        board: WatchedCounter,
        before: Edge | Fault,
        polls: Sequence[CounterPoll],
        stop_j: float | None,
        after: Edge | Fault | None,
        rest: Edge | Fault | None,
    ) -> CounterLog | None:
        """Return the log of a board on the meter's clock; None if it failed before the window."""
        if isinstance(before, Fault):
            return None
        lost = after.warning if isinstance(after, Fault) else None
        if after is None:
            lost = warning("W220", f"the energy counter of {board.source.device or self.name} stopped answering")
        return CounterLog(
            before=before,
            started_s=0.0,
            stopped_s=0.0,
            stop_j=stop_j,
            after=after if isinstance(after, Edge) else None,
            rest=rest if isinstance(rest, Edge) else None,
            polls=tuple(polls),
            period=board.period,
            idle=board.idle,
            limit_w=board.source.limit_w,
            seen_share=self.seen_share,
            lost=lost,
        )

    def _said(self, device: DeviceEnergy, result: Bracketed) -> list[str]:
        said = list(result.warnings)
        ratio, log = device.power_ratio, device.counter
        long = log is not None and log.stopped_s - log.started_s >= RATIO_FROM_S
        if ratio is not None and long and not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
            said.append(warning("W223", f"the counter gives {ratio:.2f} times the energy of the power reading"))
        return said if len(self.boards) == 1 else [f"{one} ({device.device})" for one in said]

    def _forecast(self, state: _Open, elapsed_s: float) -> Forecast | None:
        energy_j = bound_j = 0.0
        for board, before in zip(self.boards, state.before, strict=True):
            now_j = _answer(board.source.read_j)
            if isinstance(before, Fault) or now_j is None:
                return None
            energy_j += now_j - before.energy_j
            bound_j += expected_uncertainty_j(board.period, board.idle)
        return Forecast(energy_j=energy_j, uncertainty_j=bound_j)

    def _in_step(self, repeat_s: float, duration_s: float) -> str | None:
        if self.seen_share >= 1:
            return None
        return aliasing(repeat_s, self.period.median_s, int(duration_s / self.period.median_s))

    def _abandon(self, state: _Open) -> None:
        state.cancel()

    def _close(self) -> None:
        if self._on_close is not None:
            self._on_close()


def _answer(read: Callable[[], float]) -> float | None:
    try:
        return read()
    except Fault:
        return None


def _dead(before: Edge | Fault) -> Bracketed:
    """Return the result of a board that failed before the window began."""
    said = before.warning if isinstance(before, Fault) else warning("W220", "the counter gave no first value")
    return Bracketed(energy_j=None, uncertainty_j=None, warnings=(said,))


def _from(log: CounterLog, started_s: float, stopped_s: float) -> CounterLog:
    """Return the log on a time axis that starts with the window."""

    def moved(edge: Edge) -> Edge:
        return replace(edge, early_s=edge.early_s - started_s, late_s=edge.late_s - started_s)

    return replace(
        log,
        before=moved(log.before),
        after=None if log.after is None else moved(log.after),
        rest=None if log.rest is None else moved(log.rest),
        polls=tuple(replace(poll, t_s=poll.t_s - started_s) for poll in log.polls),
        stopped_s=stopped_s - started_s,
    )


def _sum(results: Sequence[Bracketed]) -> Bracketed:
    """Sum all boards: bounds are added, and the sum is None if one board has no energy."""
    energies = [one.energy_j for one in results if one.energy_j is not None]
    bounds = [one.uncertainty_j for one in results if one.uncertainty_j is not None]
    if len(energies) == len(results):
        known = len(bounds) == len(results)
        return Bracketed(energy_j=sum(energies), uncertainty_j=sum(bounds) if known else None, warnings=())
    parts = [one.partial_energy_j for one in results if one.partial_energy_j is not None]
    until = [one.partial_s for one in results if one.partial_s is not None]
    return Bracketed(
        energy_j=None,
        uncertainty_j=None,
        warnings=(),
        partial_energy_j=sum([*energies, *parts]) if energies or parts else None,
        partial_s=min(until) if until else None,
    )


def _trace(polls: Sequence[Sequence[CounterPoll]], started_s: float, stopped_s: float) -> PowerTrace | None:
    """Return the total power of all boards at each reading; None if there is no power reading."""
    times, powers = [], []
    for looks in zip(*polls, strict=True):
        known = [look.power_w for look in looks if look.power_w is not None]
        if len(known) == len(looks) and started_s <= looks[0].t_s <= stopped_s:
            times.append(looks[0].t_s - started_s)
            powers.append(sum(known))
    if not times:
        return None
    return PowerTrace(t_s=tuple(times), power_w=tuple(powers), source="power reading next to the energy counter")
