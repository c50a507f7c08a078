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
from math import exp
from typing import Protocol, cast

from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Cancel
from perjoule.types import Boundary, EnergyReading, Provenance

BOX_PANELS = 500  # of the mean over a box
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkBetweenRests:
    """One stretch of work as a real board draws it: power rises and falls evenly, and the rest after it settles.

    Attributes:
        rest_w: Power at rest.
        work_w: Power at work, above `rest_w`.
        begin_s: Time at which power begins to rise.
        end_s: Time at which it begins to fall, at least `rise_s` later.
        rise_s: Time of the rise.
        fall_s: Time of the fall.
        settle_w: Power above rest right after `end_s`; it fades in with the fall, and decays exponentially.
        settle_s: Time constant of that decay.
    """

    rest_w: float
    work_w: float
    begin_s: float
    end_s: float
    rise_s: float = 0.0
    fall_s: float = 0.0
    settle_w: float = 0.0
    settle_s: float = 1.0

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError."""
        if self.end_s < self.begin_s + self.rise_s:
            raise ValueError(f"end_s: is {self.end_s}; must not be before the end of the rise")
        if min(self.rise_s, self.fall_s, self.settle_w) < 0 or not self.settle_s > 0:
            raise ValueError("rise_s, fall_s and settle_w must not be below 0, and settle_s must be above 0")

    def __call__(self, t_s: float) -> float:
        """Return power in W."""
        above_w = self.work_w - self.rest_w
        after_s = t_s - self.end_s
        fallen = 1.0 if after_s >= self.fall_s else max(after_s, 0.0) / self.fall_s
        risen = 1.0 if t_s >= self.begin_s + self.rise_s else max(t_s - self.begin_s, 0.0) / self.rise_s
        settling_w = self.settle_w * exp(-after_s / self.settle_s) if after_s > 0 else 0.0
        return self.rest_w + above_w * (risen - fallen) + settling_w * fallen

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the exact energy in J from `begin_s` to `end_s`."""
        return self._until_j(end_s) - self._until_j(begin_s)

    def _until_j(self, t_s: float) -> float:
        at_work_s = _ramped_s(t_s - self.begin_s, self.rise_s) - _ramped_s(t_s - self.end_s, self.fall_s)
        energy_j = self.rest_w * t_s + (self.work_w - self.rest_w) * at_work_s
        after_s, tau_s = t_s - self.end_s, self.settle_s
        if after_s > 0 and self.settle_w:
            inside_s = min(after_s, self.fall_s)
            fade = exp(-inside_s / tau_s)
            if self.fall_s:
                energy_j += self.settle_w * tau_s**2 * (1 - fade * (1 + inside_s / tau_s)) / self.fall_s
            energy_j += self.settle_w * tau_s * (fade - exp(-after_s / tau_s)) if after_s > inside_s else 0.0
        return energy_j


def _ramped_s(since_s: float, ramp_s: float) -> float:
    """Return the integral of a step that rises evenly from 0 to 1 within `ramp_s`."""
    if since_s <= 0:
        return 0.0
    return since_s - ramp_s / 2 if since_s >= ramp_s else since_s**2 / (2 * ramp_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateWave:
    """A wave as a sensor shows it that lags, and averages power over a box of time.

    Attributes:
        wave: The true power.
        lag_s: Age of what is shown.
        box_s: Time of the average.
    """

    wave: PowerWave
    lag_s: float = 0.0
    box_s: float = 0.0

    def __call__(self, t_s: float) -> float:
        """Return the shown power in W."""
        end_s = t_s - self.lag_s
        return self.wave.energy_j(end_s - self.box_s, end_s) / self.box_s if self.box_s else self.wave(end_s)

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the shown energy in J, by the midpoint rule over the box, which is not exact across jumps."""
        if not self.box_s:
            return self.wave.energy_j(begin_s - self.lag_s, end_s - self.lag_s)
        late_s = [self.lag_s + self.box_s * (i + 0.5) / BOX_PANELS for i in range(BOX_PANELS)]
        return sum(self.wave.energy_j(begin_s - by_s, end_s - by_s) for by_s in late_s) / BOX_PANELS


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
