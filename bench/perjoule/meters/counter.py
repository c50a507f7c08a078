"""Meter over energy counters: watches for their edges; `edges` does the arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault, Forecast
from perjoule.meters.bracketed import Bracketed
from perjoule.meters.clock import Cancel, Clock, not_begun
from perjoule.meters.edges import bracket, expected_uncertainty_j, power_ratio
from perjoule.meters.lag import STEPS, LagTest, covering, lag_test
from perjoule.meters.part_time import aliasing
from perjoule.meters.phase import PhaseTest, phase_test
from perjoule.meters.rest import gap_power_w, is_at_rest
from perjoule.meters.sensor import NOT_IN_BOUND
from perjoule.meters.watched import CounterSource, WatchedCounter, answer
from perjoule.meters.watcher import next_edges
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

LOOKS_PER_PERIOD = 2
LOOK_S = (0.04, 0.1)  # minimum and maximum seconds between readings inside a window
RATIO_RANGE = (0.8, 1.25)  # counter over power reading; gains differ by some 10 % (arXiv 2312.02741)
RATIO_FROM_S = 2.0  # in shorter windows the power reading has too few refreshes to contradict anything


@dataclass(slots=True)
class _Open:
    """An open window of a CounterMeter."""

    polls: list[list[CounterPoll]]
    cancel: Cancel = field(default=not_begun)
    before: list[Edge | Fault] = field(default_factory=list)
    rests_w: list[float | None] = field(default_factory=list)
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
        lag = self.boards[0].following.measured
        part += f", lag {lag[0]:.3f} s, box {lag[1]:.3f} s" if lag and any(lag) else ""
        return f"{self._source}, edge-bracketed, {periods}{part}; {NOT_IN_BOUND}"

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
        self.notes = _with_note(self.notes, ("W214", "W216"), found.warning)
        return found

    def try_lag(self, burst: Callable[[float], None], *, steps: int = STEPS) -> LagTest:
        """Measure how late the counter shows energy, by steps of work; see `lag.lag_test`. Takes about 13 s.

        Until then, windows are closed so late that any lag up to 0.1 s is covered, and their bounds are wider. After
        it, readings of a counter that lags or averages have W218.

        Args:
            burst: Keeps the board busy for about the given seconds and returns when the work is done.
            steps: Number of times that work is switched on or off.

        Raises:
            MeterError: Several boards are measured, or the counter failed meanwhile.
        """
        if len(self.boards) > 1:
            raise MeterError(f"{self.name}: the lag test is for one board; open the boards one by one")
        board = self.boards[0]
        try:
            found = lag_test(
                board.watcher, board.period, board.idle, burst, self.clock, steps=steps, chance=self._chance
            )
        except Fault as fault:
            raise MeterError(f"{self.name}: the lag test failed: {fault.warning}") from fault
        lag = covering(found.lag_s, found.box_s, found.boxes_s)
        board.following.set(None if lag is None else (lag.lag_s, lag.box_s))
        self.notes = _with_note(self.notes, ("W218",), found.warning)
        return found

    def expected_uncertainty_j(self) -> float | None:
        """Return a bound in J for any work between rests; None for a counter that sees only part of the time."""
        if self.seen_share < 1:
            return None
        return sum(self._expected_j(board, board.following.above_w) for board in self.boards)

    def _expected_j(self, board: WatchedCounter, above_w: float | None) -> float:
        """Return the bound in J of a window between rests, with work that draws `above_w` more than rest."""
        if above_w is None:
            above_w = 0.0 if board.source.limit_w is None else board.source.limit_w - board.idle.power_w
        fall_j = max(above_w, 0.0) * board.following.response.most_fall_s
        return expected_uncertainty_j(board.period, board.idle, fall_j=fall_j)

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
            self._wait_for_rest(state)
            if len(state.before) == 1 and isinstance(state.before[0], Fault):
                raise state.before[0]
            if self.seen_share < 1:
                self.clock.sleep(self._chance.uniform(0, self.period.median_s))
        except BaseException:
            state.cancel()
            raise
        state.looking = True
        return state

    def _wait_for_rest(self, state: _Open) -> None:
        """Wait for the edge before the window, and measure idle power again if the board rests at another power."""
        for board in self.boards:
            board.learn_better()
        self.clock.sleep(max(board.owed_s() for board in self.boards))
        watchers = [board.watcher for board in self.boards]
        last: list[Edge | Fault | None] = [watcher.last for watcher in watchers]
        state.before = next_edges(watchers, self.clock)
        state.rests_w = [_rest_w(*pair) for pair in zip(last, state.before, strict=True)]
        may_owe = any(board.following.response.averages and board.has_worked for board in self.boards)
        if not may_owe and not self._suspects(state):  # what was drawn since the last window is idle power
            return
        earlier, state.before = state.before, next_edges(watchers, self.clock)
        state.rests_w = [_rest_w(*pair) for pair in zip(earlier, state.before, strict=True)]
        again = [
            (board, rest_w)
            for board, rest_w in zip(self.boards, state.rests_w, strict=True)
            if rest_w is not None and board.must_learn(rest_w)
        ]
        if not again:
            return
        for board, rest_w in again:
            board.learn_again(rest_w)
        self._sum_idle()
        earlier = [board.watcher.last or edge for board, edge in zip(self.boards, state.before, strict=True)]
        state.before = next_edges(watchers, self.clock)
        state.rests_w = [_rest_w(*pair) for pair in zip(earlier, state.before, strict=True)]

    def _suspects(self, state: _Open) -> bool:
        pairs = zip(self.boards, state.rests_w, strict=True)
        return any(rest_w is not None and board.has_changed(rest_w) for board, rest_w in pairs)

    def _end(self, state: _Open, started_s: float, stopped_s: float) -> EnergyReading:
        stops = [answer(board.source.read_j) for board in self.boards]
        state.looking = False
        state.cancel(wait=False)
        going = [board for board, stop_j in zip(self.boards, stops, strict=True) if stop_j is not None]
        after = self._edges_after(going, stopped_s)
        devices, results = [], []
        for i, board in enumerate(self.boards):
            log = self._log(board, state, i, stops[i], after.get(board))
            log = None if log is None else _from(log, started_s, stopped_s)
            result = _dead(state.before[i]) if log is None else bracket(log)
            results.append(result)
            if log is not None:
                board.stopped(log, stopped_s)
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
        warnings = [
            said
            for board, device, result in zip(self.boards, devices, results, strict=True)
            for said in self._said(board, device, result)
        ]
        total = results[0] if len(results) == 1 else _sum(results)
        return replace(
            self._reading(total.energy_j, total.uncertainty_j, started_s, stopped_s, warnings),
            partial_energy_j=total.partial_energy_j,
            partial_s=total.partial_s,
            devices=tuple(devices),
            trace=_trace(state.polls, started_s, stopped_s),
        )

    def _edges_after(
        self, boards: Sequence[WatchedCounter], stopped_s: float
    ) -> dict[WatchedCounter, list[Edge | Fault]]:
        """Return the edges of each board after the window, with a reason at the end if a counter failed."""
        found: dict[WatchedCounter, list[Edge | Fault]] = {board: [] for board in boards}
        waiting = list(boards)
        while waiting:
            edges = next_edges([board.watcher for board in waiting], self.clock)
            for board, edge in zip(waiting, edges, strict=True):
                found[board].append(edge)
            waiting = [
                board
                for board, edge in zip(waiting, edges, strict=True)
                if isinstance(edge, Edge)
                and board.needs_more([e for e in found[board] if isinstance(e, Edge)], stopped_s)
            ]
        return found

    def _log(
        self,
        board: WatchedCounter,
        state: _Open,
        number: int,
        stop_j: float | None,
        after: Sequence[Edge | Fault] | None,
    ) -> CounterLog | None:
        """Return the log of a board on the meter's clock; None if it failed before the window."""
        before = state.before[number]
        if isinstance(before, Fault):
            return None
        lost = None
        if after is None:
            lost = warning("W220", f"the energy counter of {board.source.device or self.name} stopped answering")
        elif isinstance(after[0], Fault):
            lost = after[0].warning
        edges = [edge for edge in after or () if isinstance(edge, Edge)]
        return CounterLog(
            before=before,
            started_s=0.0,
            stopped_s=0.0,
            stop_j=stop_j,
            after=edges[0] if edges else None,
            rest=edges[1] if len(edges) > 1 else None,
            later=tuple(edges[2:]),
            polls=tuple(state.polls[number]),
            period=board.period,
            idle=board.idle,
            rest_before_w=state.rests_w[number] if is_at_rest(board.idle) else None,
            rest_after=board.following.rest_after,
            response=board.following.response,
            limit_w=board.source.limit_w,
            seen_share=self.seen_share,
            lost=lost,
        )

    def _said(self, board: WatchedCounter, device: DeviceEnergy, result: Bracketed) -> list[str]:
        said = [*result.warnings, *([board.note] if board.note else [])]
        ratio, log = device.power_ratio, device.counter
        long = log is not None and log.stopped_s - log.started_s >= RATIO_FROM_S
        if ratio is not None and long and not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
            said.append(warning("W223", f"the counter gives {ratio:.2f} times the energy of the power reading"))
        return said if len(self.boards) == 1 else [f"{one} ({device.device})" for one in said]

    def _forecast(self, state: _Open, elapsed_s: float) -> Forecast | None:
        energy_j = bound_j = 0.0
        for board, before in zip(self.boards, state.before, strict=True):
            now_j = answer(board.source.read_j)
            if isinstance(before, Fault) or now_j is None:
                return None
            energy_j += now_j - before.energy_j
            above_w = (now_j - before.energy_j) / elapsed_s - board.idle.power_w if elapsed_s > 0 else None
            bound_j += self._expected_j(board, above_w)
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


def _with_note(notes: Sequence[str], codes: tuple[str, ...], note: str | None) -> tuple[str, ...]:
    """Return the notes with those of the given codes replaced by a new one, if there is one."""
    kept = [old for old in notes if not has_code(old, *codes)]
    return (*kept, note) if note else tuple(kept)


def _rest_w(earlier: Edge | Fault | None, edge: Edge | Fault) -> float | None:
    """Return mean power between two edges; None if one is missing or the counter was reset between them."""
    if not isinstance(earlier, Edge) or not isinstance(edge, Edge) or edge.energy_j <= earlier.energy_j:
        return None
    return gap_power_w(earlier, edge)


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
        later=tuple(moved(edge) for edge in log.later),
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
