"""A meter with a known truth on a clock that tests turn by hand.

clock = VirtualClock()
meter = SyntheticMeter(SquareWave(low_w=60, high_w=300, period_s=0.2), clock)
with meter.window() as window:
    clock.advance(1.0)
window.reading.energy_j      # 180.0, exactly
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol, cast

from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Cancel
from perjoule.types import Boundary, EnergyReading, Provenance

PANELS = 200  # of Simpson's rule; exact to rounding for polynomials up to the third degree


class VirtualClock:
    """A clock that moves only when it is slept on. Not for threads."""

    def __init__(self, start_s: float = 0.0) -> None:
        """Stand at `start_s`."""
        self._now_s = start_s
        self._due: list[tuple[float, int, float, Callable[[], None]]] = []
        self._serial = 0
        self._acting = False
        self._asleep_s = 0.0

    def now(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """`advance`, under the name that meters know."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, doing what falls due on the way; negative durations do nothing."""
        end_s = self._now_s + max(seconds, 0.0)
        while not self._acting and self._due and self._due[0][0] <= end_s:
            due_s, serial, interval_s, action = heappop(self._due)
            self._now_s = max(self._now_s, due_s)
            heappush(self._due, (max(due_s + interval_s, self._now_s), serial, interval_s, action))
            self._acting = True  # like one thread: what an action waits for does not start it again
            try:
                action()
            finally:
                self._acting = False
            self._due = [
                (max(again_s, self._now_s) if other == serial else again_s, other, interval, call)
                for again_s, other, interval, call in self._due
            ]
            heapify(self._due)
        self._now_s = max(self._now_s, end_s)

    def stop(self, seconds: float) -> None:
        """Move on by `seconds` in which nothing runs, as after SIGSTOP; what fell due meanwhile is done once, later."""
        self._now_s += max(seconds, 0.0)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: this clock stands still, as the monotonic clock does."""
        self._asleep_s += seconds

    def asleep_s(self) -> float:
        """Seconds slept through by `suspend`."""
        return self._asleep_s

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """Call `action` every `interval_s` from now on; returns a function that ends it."""
        self._serial += 1
        serial = self._serial
        heappush(self._due, (self._now_s + interval_s, serial, interval_s, action))

        def cancel(wait: bool = True) -> None:
            self._due = [entry for entry in self._due if entry[1] != serial]
            heapify(self._due)

        return cancel


class PowerWave(Protocol):
    """Power over virtual time whose energy is known in closed form."""

    def __call__(self, t_s: float) -> float:
        """Power in W at `t_s`."""
        ...

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Exact energy in J from `begin_s` to `end_s`."""
        ...


@dataclass(frozen=True, slots=True)
class ConstantPower:
    """The same power for ever."""

    power_w: float

    def __call__(self, t_s: float) -> float:
        """Power in W."""
        return self.power_w

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Power times time."""
        return self.power_w * (end_s - begin_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareWave:
    """`high_w` for the first `duty` of every period, counted from time 0, and `low_w` for the rest."""

    low_w: float
    high_w: float
    period_s: float
    duty: float = 0.5

    def __call__(self, t_s: float) -> float:
        """Power in W."""
        return self.high_w if t_s % self.period_s < self.duty * self.period_s else self.low_w

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Low power throughout, and the difference for the time spent high."""
        high_s = self._high_until_s(end_s) - self._high_until_s(begin_s)
        return self.low_w * (end_s - begin_s) + (self.high_w - self.low_w) * high_s

    def _high_until_s(self, t_s: float) -> float:
        periods, rest_s = divmod(t_s, self.period_s)
        return (periods * self.duty * self.period_s) + min(rest_s, self.duty * self.period_s)


@dataclass(frozen=True, slots=True)
class _Quadrature:
    """A bare function of time, integrated by Simpson's rule: for smooth powers."""

    power: Callable[[float], float]

    def __call__(self, t_s: float) -> float:
        return self.power(t_s)

    def energy_j(self, begin_s: float, end_s: float) -> float:
        step_s = (end_s - begin_s) / (2 * PANELS)
        inner = sum((4 if i % 2 else 2) * self.power(begin_s + i * step_s) for i in range(1, 2 * PANELS))
        return (self.power(begin_s) + inner + self.power(end_s)) * step_s / 3


class SyntheticMeter(BaseMeter[float]):
    """A meter whose readings are the truth, or off by at most the bound that they state.

    Attributes:
        truths_j: The true energy of every window so far, in order.
    """

    def __init__(
        self,
        power: Callable[[float], float] | float,
        clock: VirtualClock,
        *,
        uncertainty_j: float = 0.0,
        seed: int | None = None,
        idle_w: float | None = None,
        failing: Callable[[int], bool] = lambda window: False,
        boundary: Boundary = "gpu-board",
        provenance: Provenance = "simulated",
    ) -> None:
        """Set up.

        Args:
            power: W, or a function from virtual seconds to W. A `PowerWave` is integrated in closed form,
                other functions by Simpson's rule, which is not exact across jumps.
            clock: The time that windows run on.
            uncertainty_j: The bound that readings state.
            seed: With a seed, readings are off by an error drawn evenly from within the bound; without,
                exact.
            idle_w: What `learn_idle` answers.
            failing: Of the number of a window, from 0: True if it is to have no reading.
            boundary: Written into readings.
            provenance: Written into readings.
        """
        super().__init__(
            name="synthetic",
            why="a made-up source with a known truth, for tests",
            boundary=boundary,
            provenance=provenance,
            clock=clock,
        )
        self.truths_j: list[float] = []
        self._wave = _as_wave(power)
        self._uncertainty_j = uncertainty_j
        self._noise = None if seed is None else random.Random(seed)
        self._idle_w = idle_w
        self._failing = failing

    @property
    def method(self) -> str:
        """Says that it is made up."""
        return "synthetic power on virtual time"

    def learn_idle(self, seconds: float) -> float | None:
        """Let virtual `seconds` pass; `idle_w` as it was given."""
        self.clock.sleep(seconds)
        self.idle_power_w = self._idle_w
        return self._idle_w

    def _begin(self) -> float:
        return self.clock.now()

    def _end(self, state: float, started_s: float, stopped_s: float) -> EnergyReading:
        number = len(self.truths_j)
        truth_j = self._wave.energy_j(started_s, stopped_s)
        self.truths_j.append(truth_j)
        if self._failing(number):
            raise Fault("W220", f"window {number} was made to fail")
        bound_j = self._uncertainty_j
        error_j = self._noise.uniform(-bound_j, bound_j) if self._noise is not None else 0.0
        return self._reading(truth_j + error_j, bound_j, started_s, stopped_s)


def _as_wave(power: Callable[[float], float] | float) -> PowerWave:
    if not callable(power):
        return ConstantPower(float(power))
    # A wave knows its own integral; a structural check, since any callable may have been given.
    return cast(PowerWave, power) if hasattr(power, "energy_j") else _Quadrature(power)
