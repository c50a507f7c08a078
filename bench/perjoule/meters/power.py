"""Meter over a power reading: samples it during the window; `samples` does the arithmetic."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import Protocol

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault, Forecast
from perjoule.meters.clock import Clock
from perjoule.meters.part_time import aliasing
from perjoule.meters.samples import Sample, SensorTiming, integrate, refresh_period
from perjoule.meters.sensor import NOT_IN_BOUND
from perjoule.types import Boundary, EnergyReading, IdlePower, PowerTrace
from perjoule.warnings import warning

LEARN_S = 1.0
LEARN_POLL_S = 0.005
# A quarter of the usual refresh is precise enough. A poll costs 0.1 ms of CPU time, so not every refresh of a faster
# sensor is read; below about 10 ms some drivers answer 0 W or NOT_SUPPORTED.
POLL_S = 0.025
ASSUMED_PERIOD_S = 0.1  # every board of the last ten years refreshes at least as often (arXiv 2312.02741)
DRAIN_S = 0.25  # a driver's buffer of 120 entries lasts this long at one entry per 2 ms; readings are slower
SKEW_S = 0.005  # entries may seem to be this far in the future, because the clocks are read one after the other
OVERLAP_US = 10_000  # overlap of two drains, for clocks that are slewed
BUFFER_LATE_S = 2.0  # entries that are older than this when they are drained are ignored


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSource:
    """A power reading.

    Attributes:
        words: Description of the reading.
        read: Reads the power in W; may raise Fault.
        averaging_s: Averaging time of the sensor; 0 for an instant reading.
        scope: `GPU` or `MODULE`.
        drain: Reads the driver's own log, if readings come from there: entries (wall-clock us, W) newer than the
            given time, empty if there are none; may raise Fault. `read` is then not called.
    """

    words: str
    read: Callable[[], float]
    averaging_s: float
    scope: str
    drain: Callable[[int], Sequence[tuple[int, float]]] | None = None


class Sampler(Protocol):
    """Samples power from `start` to `stop`."""

    def start(self) -> None:
        """Begin."""
        ...

    def samples(self) -> list[Sample]:
        """Return the samples so far, in order of time."""
        ...

    def stop(self) -> list[Sample]:
        """Stop, and return all samples in order of time. May be called again."""
        ...


class PollSampler:
    """Takes a sample every `poll_s`, on the clock's own thread."""

    def __init__(self, sample: Callable[[], Sample], clock: Clock, poll_s: float) -> None:
        """Create the sampler without starting it. `sample` must not raise."""
        self._sample = sample
        self._clock = clock
        self._poll_s = poll_s
        self._samples: list[Sample] = []
        self._cancel: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Take the first sample now, so that there is one from before the work."""
        self._take()
        self._cancel = self._clock.every(self._poll_s, self._take)

    def samples(self) -> list[Sample]:
        """Return the samples so far."""
        return self._samples.copy()

    def stop(self) -> list[Sample]:
        """Stop polling."""
        self._cancel()
        return self._samples

    def _take(self) -> None:
        self._samples.append(self._sample())


class BufferSampler:
    """Drains a driver's ring buffer, whose entries have wall-clock times, before it overflows.

    The offset between wall clock and monotonic clock is measured at each drain. If the wall clock was set meanwhile,
    an entry has the old or the new offset: the one that puts it after the previous drain.
    """

    def __init__(
        self,
        drain: Callable[[int], Sequence[tuple[int, float]]],
        clock: Clock,
        wall_us: Callable[[], float],
    ) -> None:
        """Create the sampler without starting it.

        Args:
            drain: As in `PowerSource`.
            clock: The clock.
            wall_us: Wall clock of the driver's entries, in us since 1970.
        """
        self._drain = drain
        self._clock = clock
        self._wall_us = wall_us
        self._samples: list[Sample] = []
        self._seen: set[int] = set()
        self._last_s: float | None = None  # time of the newest entry
        self._offset_us: float | None = None
        self._drained_s = clock.now() - BUFFER_LATE_S
        self._cancel: Callable[[], None] | None = None

    def start(self) -> None:
        """Drain the buffer, so that there are entries from before the work."""
        self._take()
        self._cancel = self._clock.every(DRAIN_S, self._take)

    def samples(self) -> list[Sample]:
        """Return the entries drained so far."""
        return sorted(self._samples, key=lambda one: one.t_s)

    def stop(self) -> list[Sample]:
        """Drain once more, then stop."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
            self._take()
        return self.samples()

    def _take(self) -> None:
        offset_us = self._measure_offset_us()
        before_us = offset_us if self._offset_us is None else self._offset_us
        # After a step of the wall clock, entries from before it have the old offset, later ones the new offset.
        since_us = 0 if self._last_s is None else int(1e6 * self._last_s + min(offset_us, before_us)) - OVERLAP_US
        try:
            entries = self._drain(max(since_us, 0))
        except Fault as fault:
            self._samples.append(Sample(t_s=self._clock.now(), power_w=None, problem=str(fault)))
            return
        now_s = self._clock.now()
        for stamp_us, power_w in entries:
            t_s = None if stamp_us in self._seen else self._place_s(stamp_us, (offset_us, before_us), now_s)
            if t_s is None:
                continue
            self._seen.add(stamp_us)
            self._last_s = t_s if self._last_s is None else max(t_s, self._last_s)
            self._samples.append(Sample(t_s=t_s, power_w=power_w if power_w > 0 else None))
        self._offset_us, self._drained_s = offset_us, now_s

    def _measure_offset_us(self) -> float:
        """Return wall clock minus monotonic clock; the best of three attempts, since the thread may be delayed."""
        tries = []
        for _ in range(3):
            before_s = self._clock.now()
            wall_us = self._wall_us()
            after_s = self._clock.now()
            tries.append((after_s - before_s, wall_us - 1e6 * (before_s + after_s) / 2))
        return min(tries)[1]

    def _place_s(self, stamp_us: int, offsets_us: tuple[float, float], now_s: float) -> float | None:
        """Return the entry on the monotonic clock, or None if it is not new with any offset."""
        times_s = [(stamp_us - offset_us) / 1e6 for offset_us in offsets_us]
        for late_s in (0.0, BUFFER_LATE_S):  # drivers may write entries a little after their time
            for t_s in times_s:
                if self._drained_s - late_s < t_s <= now_s + SKEW_S:
                    return t_s
        return None


def wall_clock_us() -> float:
    """Return the clock of NVML's power samples, in us since 1970."""
    return time.time_ns() / 1000


class PowerMeter(BaseMeter[Sampler]):
    """Meter that integrates sampled power; the fallback if there is no energy counter.

    Each window begins at a random phase of the sensor's refresh: repeats then see different parts of work that is in
    step with it, and their mean is unbiased even if the sensor sees only part of the time.
    """

    watches = True

    def __init__(
        self,
        *,
        name: str,
        why: str,
        source: str,
        power: PowerSource,
        clock: Clock,
        boundary: Boundary = "gpu-board",
        limit_w: float | None = None,
        notes: Sequence[str] = (),
        on_close: Callable[[], None] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Observe the reading for a second to measure refresh period and idle power.

        Args:
            name: Name that opens the meter.
            why: What it reads and why it was chosen.
            source: Description for `method`.
            power: The power reading.
            clock: The clock.
            boundary: The part of the system that the reading covers.
            limit_w: The board's power limit, for sanity checks and for very short windows.
            notes: Coded warnings of every reading.
            on_close: Called once at close.
            chance: Random numbers for the phase of windows.

        Raises:
            MeterError: The source did not answer in that second.
        """
        self._power = power
        self._source = source
        self._limit_w = limit_w
        self._on_close = on_close
        self._chance = chance or random.Random()
        self._idle: IdlePower | None = None
        self._swing_w = 0.0
        super().__init__(name=name, why=why, boundary=boundary, provenance="measured", clock=clock, notes=notes)
        samples = self._watch(LEARN_S, LEARN_POLL_S)
        if not any(sample.power_w for sample in samples):
            raise MeterError(f"{name}: {power.words} gave no answer for {LEARN_S:g} s; update the driver")
        self.timing = self._learn_timing(samples)
        self._learn(samples)

    @property
    def idle(self) -> IdlePower:
        """Power at rest, as last measured."""
        assert self._idle is not None, "measured in the constructor"
        return self._idle

    @property
    def method(self) -> str:
        """Source, period and polling."""
        how = "logged by the driver" if self._power.drain is not None else f"polled every {self.timing.poll_s:.3f} s"
        return f"{self._source}, {how}, period {self.timing.period_s:.3f} s, started at a random phase; {NOT_IN_BOUND}"

    def learn_idle(self, seconds: float) -> float | None:
        """Return mean power in W over `seconds`, at least one averaging time; None if the source does not answer."""
        # The sensor's average must not include earlier work.
        self.clock.sleep(self._power.averaging_s)
        return self.idle_power_w if self._learn(self._watch(seconds, self.timing.poll_s)) else None

    def _learn_timing(self, samples: Sequence[Sample]) -> SensorTiming:
        averaging_s = self._power.averaging_s
        if self._power.drain is not None:
            times = [sample.t_s for sample in samples]
            period_s = median(second - first for first, second in pairwise(times)) if len(times) > 1 else None
        else:
            period_s = refresh_period(samples)
        if period_s is None:
            self.notes = (
                *self.notes,
                warning("W209", f"{self._power.words} did not change, a period of 0.1 s is assumed"),
            )
        period_s = min(period_s or ASSUMED_PERIOD_S, ASSUMED_PERIOD_S * 2)
        if self._power.drain is not None:
            return SensorTiming(poll_s=period_s, period_s=period_s, averaging_s=averaging_s)
        # If polls are rarer than refreshes, the polling interval is the effective period.
        period_s = max(period_s, POLL_S)
        return SensorTiming(poll_s=POLL_S, period_s=period_s, averaging_s=averaging_s, late_s=POLL_S / 2)

    def _learn(self, samples: Sequence[Sample]) -> bool:
        powers = [sample.power_w for sample in samples if sample.power_w is not None]
        if not powers:
            return False
        earlier = [] if self._idle is None else [self._idle.lowest_w, self._idle.highest_w]
        self._idle = IdlePower(
            power_w=fmean(powers),
            spread_w=pstdev(powers),
            lowest_w=min([*powers, *earlier]),
            highest_w=max([*powers, *earlier]),
            gap_count=max(int((samples[-1].t_s - samples[0].t_s) / self.timing.period_s), 1),
        )
        self.idle_power_w = self._idle.power_w
        return True

    def _watch(self, seconds: float, poll_s: float) -> list[Sample]:
        """Return samples of the next `seconds`."""
        begun_s = self.clock.now()
        sampler = self._sampler(poll_s)
        sampler.start()
        try:
            self.clock.sleep(seconds)
        finally:
            samples = sampler.stop()
        return [sample for sample in samples if sample.t_s >= begun_s]

    def _sampler(self, poll_s: float) -> Sampler:
        drain = self._power.drain
        if drain is None:
            return PollSampler(self._sample, self.clock, poll_s)

        def drain_and_look(since_us: int) -> Sequence[tuple[int, float]]:
            self._look()
            return drain(since_us)

        return BufferSampler(drain_and_look, self.clock, wall_clock_us)

    def _sample(self) -> Sample:
        """Poll once; if polled too fast, some drivers answer 0 W, which is impossible."""
        try:
            power_w, problem = self._power.read(), f"{self._power.words} answered 0 W"
        except Fault as fault:
            power_w, problem = 0.0, str(fault)
        t_s = self.clock.now()
        self._look()
        return Sample(t_s=t_s, power_w=power_w) if power_w > 0 else Sample(t_s=t_s, power_w=None, problem=problem)

    def _begin(self) -> Sampler:
        self.clock.sleep(self._chance.uniform(0, self.timing.period_s))
        sampler = self._sampler(self.timing.poll_s)
        sampler.start()
        return sampler

    def _end(self, state: Sampler, started_s: float, stopped_s: float) -> EnergyReading:
        follow_s = self.timing.follow_s(stopped_s - started_s)
        if self._power.drain is not None:
            follow_s = max(follow_s, self.timing.period_s)  # until the last entries have arrived
        try:
            self.clock.sleep(follow_s)
        finally:
            samples = state.stop()
        result = integrate(samples, started_s, stopped_s, self.timing, self.idle, self._limit_w, self._swing_w)
        # for later windows: readings that cover only the window
        inside = [
            one.power_w
            for one in samples
            if one.power_w is not None and started_s + 2 * self.timing.period_s <= one.t_s <= stopped_s
        ]
        self._swing_w = max(self._swing_w, max(inside, default=0.0) - min(inside, default=0.0))
        return replace(
            self._reading(result.energy_j, result.uncertainty_j, started_s, stopped_s, result.warnings),
            partial_energy_j=result.partial_energy_j,
            partial_s=result.partial_s,
            trace=_trace(samples, started_s, stopped_s, self._power, self.timing),
        )

    def _forecast(self, state: Sampler, elapsed_s: float) -> Forecast | None:
        if self._power.averaging_s > self.timing.period_s:  # the meter would have to wait
            return None
        now_s = self.clock.now()
        samples = state.samples()
        seen_s = max((sample.t_s for sample in samples if sample.power_w is not None), default=now_s)
        started_s, stopped_s = now_s - elapsed_s, min(seen_s, now_s)
        if stopped_s - started_s < self.timing.inside_from_s:
            return Forecast(energy_j=0.0, uncertainty_j=1.0)
        result = integrate(samples, started_s, stopped_s, self.timing, self.idle, self._limit_w, self._swing_w)
        if result.energy_j is None or result.uncertainty_j is None:
            return None
        return Forecast(energy_j=result.energy_j, uncertainty_j=result.uncertainty_j)

    def _in_step(self, repeat_s: float, duration_s: float) -> str | None:
        if self._power.averaging_s > self.timing.period_s:  # the average covers all of the time
            return None
        return aliasing(repeat_s, self.timing.period_s, int(duration_s / self.timing.period_s))

    def _abandon(self, state: Sampler) -> None:
        state.stop()

    def _close(self) -> None:
        if self._on_close is not None:
            self._on_close()


def _trace(
    samples: Sequence[Sample], started_s: float, stopped_s: float, power: PowerSource, timing: SensorTiming
) -> PowerTrace | None:
    """Return the samples inside the window; None if there are none."""
    inside = [
        (one.t_s - started_s, one.power_w)
        for one in samples
        if one.power_w is not None and started_s <= one.t_s <= stopped_s
    ]
    if not inside:
        return None
    return PowerTrace(
        t_s=tuple(t_s for t_s, _ in inside),
        power_w=tuple(power_w for _, power_w in inside),
        source=power.words,
        poll_interval_s=timing.poll_s,
        update_period_s=timing.period_s,
        averaging_window_s=power.averaging_s or None,
    )
