"""Meter with known true energy, on a clock that tests advance.

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
    """A clock that advances only by `sleep` and `advance`. It is not for threads."""

    def __init__(self, start_s: float = 0.0) -> None:
        """Create a clock at `start_s`."""
        self._now_s = start_s
        self._due: list[tuple[float, int, float, Callable[[], None]]] = []
        self._serial = 0
        self._acting = False
        self._asleep_s = 0.0

    def now(self) -> float:
        """Return virtual seconds."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Call `advance`; meters use this name."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Advance by `seconds` and do the actions that are due; negative durations do nothing."""
        end_s = self._now_s + max(seconds, 0.0)
        while not self._acting and self._due and self._due[0][0] <= end_s:
            due_s, serial, interval_s, action = heappop(self._due)
            self._now_s = max(self._now_s, due_s)
            heappush(self._due, (max(due_s + interval_s, self._now_s), serial, interval_s, action))
            self._acting = True  # like a single thread: an action that waits is not started again
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
        """Advance by `seconds` without actions, as after SIGSTOP; each action that is due is done once, later."""
        self._now_s += max(seconds, 0.0)

    def suspend(self, seconds: float) -> None:
        """Simulate sleep of the machine: like the monotonic clock, this clock does not advance."""
        self._asleep_s += seconds

    def asleep_s(self) -> float:
        """Return the seconds of `suspend`."""
        return self._asleep_s

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """Call `action` every `interval_s` from now on; return a function that stops it."""
        self._serial += 1
        serial = self._serial
        heappush(self._due, (self._now_s + interval_s, serial, interval_s, action))

        def cancel(wait: bool = True) -> None:
            self._due = [entry for entry in self._due if entry[1] != serial]
            heapify(self._due)

        return cancel


class PowerWave(Protocol):
    """Power over virtual time with energy in closed form."""

    def __call__(self, t_s: float) -> float:
        """Return power in W at `t_s`."""
        ...

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the exact energy in J from `begin_s` to `end_s`."""
        ...


@dataclass(frozen=True, slots=True)
class ConstantPower:
    """Constant power."""

    power_w: float

    def __call__(self, t_s: float) -> float:
        """Return power in W."""
        return self.power_w

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return power times time."""
        return self.power_w * (end_s - begin_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareWave:
    """`high_w` for the first `duty` of every period, counted from time 0, and `low_w` for the rest."""

    low_w: float
    high_w: float
    period_s: float
    duty: float = 0.5

    def __call__(self, t_s: float) -> float:
        """Return power in W."""
        return self.high_w if t_s % self.period_s < self.duty * self.period_s else self.low_w

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the energy of low power throughout, plus the difference for the time at high power."""
        high_s = self._high_until_s(end_s) - self._high_until_s(begin_s)
        return self.low_w * (end_s - begin_s) + (self.high_w - self.low_w) * high_s

    def _high_until_s(self, t_s: float) -> float:
        periods, rest_s = divmod(t_s, self.period_s)
        return (periods * self.duty * self.period_s) + min(rest_s, self.duty * self.period_s)


@dataclass(frozen=True, slots=True)
class _Quadrature:
    """A plain function of time, integrated by Simpson's rule, for smooth power."""

    power: Callable[[float], float]

    def __call__(self, t_s: float) -> float:
        return self.power(t_s)

    def energy_j(self, begin_s: float, end_s: float) -> float:
        step_s = (end_s - begin_s) / (2 * PANELS)
        inner = sum((4 if i % 2 else 2) * self.power(begin_s + i * step_s) for i in range(1, 2 * PANELS))
        return (self.power(begin_s) + inner + self.power(end_s)) * step_s / 3


class SyntheticMeter(BaseMeter[float]):
    """Meter whose readings are true, or differ by at most their stated bound.

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
        """Create the meter.

        Args:
            power: W, or a function from virtual seconds to W. A `PowerWave` is integrated in closed form,
                other functions by Simpson's rule, which is not exact across jumps.
            clock: Clock of the windows.
            uncertainty_j: Bound of the readings.
            seed: With a seed, readings have a random error, uniform within the bound; without, they are
                exact.
            idle_w: Result of `learn_idle`.
            failing: Function of a window's number, from 0; True if the window has no reading.
            boundary: Boundary of the readings.
            provenance: Provenance of the readings.
        """
        super().__init__(
            name="synthetic",
            why="a synthetic source with known true energy, for tests",
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
        """Description of the source as synthetic."""
        return "synthetic power on virtual time"

    def learn_idle(self, seconds: float) -> float | None:
        """Advance by virtual `seconds` and return the given `idle_w`."""
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
            raise Fault("W220", f"window {number} was set to fail")
        bound_j = self._uncertainty_j
        error_j = self._noise.uniform(-bound_j, bound_j) if self._noise is not None else 0.0
        return self._reading(truth_j + error_j, bound_j, started_s, stopped_s)


def _as_wave(power: Callable[[float], float] | float) -> PowerWave:
    if not callable(power):
        return ConstantPower(float(power))
    # A wave has its own integral; this is a structural check, because `power` may be any callable.
    return cast(PowerWave, power) if hasattr(power, "energy_j") else _Quadrature(power)
