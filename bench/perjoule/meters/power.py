"""A meter over a power reading: samples it in a thread during the window, and leaves the arithmetic to `samples`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, pstdev
from typing import Protocol

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.edges import IdlePower
from perjoule.meters.samples import Sample, SensorTiming, integrate, refresh_period
from perjoule.types import Boundary, EnergyReading, PowerTrace
from perjoule.warnings_table import warning

LEARN_S = 1.0
LEARN_POLL_S = 0.005
POLL_S = 0.02  # a fifth of the usual refresh; below about 10 ms some drivers answer 0 W or NOT_SUPPORTED
ASSUMED_PERIOD_S = 0.1  # every board of the last ten years refreshes at least as often (arXiv 2312.02741)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSource:
    """A power reading: W by `read` (may raise Fault), smoothed over `averaging_s`, for a `scope`."""

    words: str
    read: Callable[[], float]
    averaging_s: float
    scope: str


class Sampler(Protocol):
    """Samples power from `start` to `stop`."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> list[Sample]:
        """End, and hand over all samples in order of time. May be called again."""
        ...


class SamplerFactory(Protocol):
    """Makes a sampler for one window."""

    def __call__(self, sample: Callable[[], Sample], poll_s: float) -> Sampler:
        """`sample` never raises; it is to be called every `poll_s` seconds."""
        ...


class ThreadSampler:
    """Samples in a daemon thread of its own, which ends with the window."""

    def __init__(self, sample: Callable[[], Sample], poll_s: float) -> None:
        """Nothing runs yet."""
        self._sample = sample
        self._poll_s = poll_s
        self._samples: list[Sample] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perjoule-power", daemon=True)

    def start(self) -> None:
        """Take the first sample here, so that there is one from before the work."""
        self._samples.append(self._sample())
        self._thread.start()

    def stop(self) -> list[Sample]:
        """End the thread and wait for it."""
        self._done.set()
        self._thread.join()
        return self._samples

    def _run(self) -> None:
        while not self._done.wait(self._poll_s):
            self._samples.append(self._sample())


class PowerMeter(BaseMeter[Sampler]):
    """Integrates sampled power; the fallback where there is no energy counter."""

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
        sampler: SamplerFactory = ThreadSampler,
    ) -> None:
        """Watch the reading for a second: its refresh period, and a first idle power.

        Raises MeterError if it gives no answers in that second.
        """
        self._power = power
        self._source = source
        self._limit_w = limit_w
        self._on_close = on_close
        self._sampler = sampler
        self._idle = IdlePower(power_w=0.0, spread_w=0.0)
        super().__init__(name=name, why=why, boundary=boundary, provenance="measured", clock=clock, notes=notes)
        samples = self._watch(LEARN_S, LEARN_POLL_S)
        if not self._learn(samples):
            raise MeterError(f"{name}: {power.words} gave no answer for {LEARN_S:g} s; update the driver")
        period_s = refresh_period(samples)
        if period_s is None:
            self.notes = (*self.notes, warning("W209", f"{power.words} did not change, 0.1 s is assumed"))
        period_s = min(period_s or ASSUMED_PERIOD_S, ASSUMED_PERIOD_S * 2)
        self.timing = SensorTiming(
            poll_s=min(POLL_S, max(period_s / 2, LEARN_POLL_S)),
            period_s=period_s,
            # An instant reading's own averaging window is unknown, but no longer than its refresh.
            settle_s=max(power.averaging_s, period_s) + period_s,
        )

    @property
    def method(self) -> str:
        """Source, period and polling."""
        return (
            f"{self._source}, polled every {self.timing.poll_s:.3f} s, period {self.timing.period_s:.3f} s; "
            "sensor gain (about 5 %) not in the bound"
        )

    def learn_idle(self, seconds: float) -> float | None:
        """Mean power in W over `seconds`, at least one averaging window; None if there are no answers."""
        # What is left of earlier work in the smoothing must run out first.
        self.clock.sleep(self._power.averaging_s)
        return self._idle.power_w if self._learn(self._watch(seconds, self.timing.poll_s)) else None

    def _learn(self, samples: Sequence[Sample]) -> bool:
        powers = [sample.power_w for sample in samples if sample.power_w is not None]
        if not powers:
            return False
        self._idle = IdlePower(power_w=mean(powers), spread_w=pstdev(powers))
        self.idle_power_w = self._idle.power_w
        return True

    def _watch(self, seconds: float, poll_s: float) -> list[Sample]:
        samples = [self._sample()]
        while samples[-1].t_s - samples[0].t_s < seconds:
            self.clock.sleep(poll_s)
            samples.append(self._sample())
        return samples

    def _sample(self) -> Sample:
        """One poll; polled too fast, some drivers answer 0 W, which no powered board draws."""
        try:
            power_w = self._power.read()
        except Fault:
            power_w = 0.0
        return Sample(t_s=self.clock.now(), power_w=power_w if power_w > 0 else None)

    def _begin(self) -> Sampler:
        sampler = self._sampler(self._sample, self.timing.poll_s)
        sampler.start()
        return sampler

    def _end(self, state: Sampler, started_s: float, stopped_s: float) -> EnergyReading:
        try:
            self.clock.sleep(self.timing.settle_s)
        finally:
            samples = state.stop()
        result = integrate(samples, started_s, stopped_s, self.timing, self._idle, self._limit_w)
        reading = self._reading(result.energy_j, result.uncertainty_j, started_s, stopped_s, result.warnings)
        return _with_trace(reading, samples, started_s, stopped_s, self._power, self.timing)

    def _abandon(self, state: Sampler) -> None:
        state.stop()

    def _close(self) -> None:
        if self._on_close is not None:
            self._on_close()


def _with_trace(
    reading: EnergyReading,
    samples: Sequence[Sample],
    started_s: float,
    stopped_s: float,
    power: PowerSource,
    timing: SensorTiming,
) -> EnergyReading:
    inside = [
        (one.t_s - started_s, one.power_w)
        for one in samples
        if one.power_w is not None and started_s <= one.t_s <= stopped_s
    ]
    trace = PowerTrace(
        t_s=tuple(t_s for t_s, _ in inside),
        power_w=tuple(power_w for _, power_w in inside),
        source=power.words,
        poll_interval_s=timing.poll_s,
        update_period_s=timing.period_s,
        averaging_window_s=power.averaging_s or None,
    )
    return replace(reading, trace=trace)
