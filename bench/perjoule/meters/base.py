"""Base of all meters: the window, its safeguards, and the final checks of a reading.

                 _begin()                                     _end()
    ───────────┬────────┐                                ┌───────────────────────┬──────────
      sync()   │ settle │ started_s    work    sync()    │ stopped_s      settle │ reading
    ───────────┴────────┘                                └───────────────────────┴──────────

A meter that fails inside a window reports that in the reading. It never raises into the measured code, and never
returns 0.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from types import TracebackType
from typing import Generic, Self, TypeVar

from perjoule.errors import MeterError
from perjoule.meters.clock import Cancel, Clock, SystemClock
from perjoule.meters.conditions import ConditionsRecorder
from perjoule.meters.identity import MeteredDevice
from perjoule.meters.machine import Look, Machine, between
from perjoule.meters.pulse import BEAT_S, Pulse
from perjoule.meters.sensor import Sensor
from perjoule.shares import below_one
from perjoule.text import without_uuids
from perjoule.types import Boundary, Conditions, DeviceEnergy, EnergyReading, IdlePower, Provenance, UpdatePeriod
from perjoule.warnings import warning
from perjoule.work.counter import WorkCounter, torch_is_loaded

log = logging.getLogger(__name__)

State = TypeVar("State")

MOST_REPEAT_S = 60.0  # maximum time of repeating work to reach a bound
REPEAT_CHECK_S = 0.05  # between checks whether it was repeated often enough
FORECAST_SHARE = 0.8  # of the requested bound; the forecast does not know the last update period


class Fault(Exception):  # noqa: N818 - it is caught inside the meters and becomes a warning
    """Failure of the source; `warning` is the coded sentence for the reading, `code` the source's own error number."""

    def __init__(self, code: str, sentence: str, source_code: int | None = None) -> None:
        """Store `CODE: sentence`."""
        super().__init__(sentence)
        self.warning = warning(code, sentence)
        self.code = source_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Approximate energy and bound in J of an open window if it ended now."""

    energy_j: float
    uncertainty_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """Facts about a board of an open meter.

    Attributes:
        digest: Digest of the board's UUID, see `perjoule.text.board_digest`.
        model: Name of the board; `unknown` if it does not report one.
        driver: Version of the driver.
        counter: Description of the energy counter in use, None without a counter.
        period: The counter's update period.
        idle: Power at rest, as last measured.
        reading_s: Time that one reading of the counter takes; None without a counter.
        limit_w: Enforced power limit.
        power: Description of the best power reading, None without one.
        mig: True if the board is split.
        conditions: Conditions when the meter was opened.
        absent: Properties that the board does not report, each with NVML's reason.
    """

    digest: str
    model: str
    driver: str
    counter: str | None
    period: UpdatePeriod | None
    idle: IdlePower | None
    limit_w: float | None
    power: str | None
    mig: bool
    conditions: Conditions
    absent: tuple[str, ...] = ()
    reading_s: float | None = None


class MeterWindow(Generic[State]):
    """A window of a `BaseMeter`; use it as a context manager."""

    def __init__(
        self,
        meter: BaseMeter[State],
        label: str,
        sync: Callable[[], None] | None,
        max_uncertainty: float | None,
    ) -> None:
        """Create the window; called by `BaseMeter.window`."""
        self.label = label
        self._meter = meter
        self._sync = sync or _nothing
        self._max_uncertainty = max_uncertainty
        self._state: State | None = None
        self._fault: str | None = None
        self._started_s = 0.0
        self._reading: EnergyReading | None = None
        self._iterations: int | None = None
        self._machine: Look | None = None
        self._stop_watching: Cancel | None = None
        self._counter: WorkCounter | None = None

    @property
    def reading(self) -> EnergyReading:
        """The reading. Raises RuntimeError while the window is open."""
        if self._reading is None:
            raise RuntimeError(f"window {self.label!r} has no reading yet: read it after the end of its `with` block")
        return self._reading

    def __enter__(self) -> Self:
        """Synchronise, settle the source, start.

        Raises MeterError if a window is open already or the meter is closed; and whatever `sync` raises.
        """
        self._meter._claim(self)
        try:
            self._sync()
            self._begin()
        except BaseException:
            self._meter._release()
            raise
        self._meter.pulse.begin()
        self._started_s = self._meter.clock.now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Synchronise, stop, and complete the reading; exceptions of the work are passed on to the caller."""
        try:
            self._stop(work_failed=error is not None)
        finally:
            self._meter.pulse.end()  # if waiting for the device raised, the device is still working
            if self._stop_watching is not None:
                self._stop_watching()
            if self._counter is not None:
                self._counter.__exit__(kind, error, trace)
            if self._state is not None:
                self._meter._abandon(self._state)
            self._meter._release()

    def repeat(self, at_least: int = 1, most_s: float = MOST_REPEAT_S) -> Iterator[int]:
        """Repeat the work until the requested bound is reached: `for _ in window.repeat(): work()`.

        A window over n runs divides all errors at its ends by n. Without `max_uncertainty`, and for sources without a
        forecast, the work runs `at_least` times. The reading contains the number of runs.

        Args:
            at_least: Minimum number of runs, whatever the bound.
            most_s: After this many seconds no further run is started.

        Yields:
            The number of the run, from 0.
        """
        checked_s = self._started_s
        for i in count():
            yield i
            self._iterations = i + 1
            if i + 1 < at_least:
                continue
            now_s = self._meter.clock.now()
            if self._max_uncertainty is None or now_s - self._started_s > most_s:
                return
            if now_s - checked_s < REPEAT_CHECK_S:
                continue
            self._sync()
            checked_s = self._meter.clock.now()
            if self._is_enough(checked_s - self._started_s):
                return

    def _is_enough(self, elapsed_s: float) -> bool:
        """Return whether ending now would meet the bound; True without a forecast, since more runs would not help."""
        if self._state is None or self._max_uncertainty is None:
            return True
        forecast = self._meter._forecast(self._state, elapsed_s)
        if forecast is None:
            return True
        return forecast.uncertainty_j <= FORECAST_SHARE * self._max_uncertainty * forecast.energy_j

    def _begin(self) -> None:
        try:
            if self._meter.machine is not None:
                self._machine = self._meter.machine.look()
            for recorder in self._meter.recorders:
                recorder.begin()
            if torch_is_loaded() and not self._meter.counts_work:
                self._counter = WorkCounter(count_new=False).__enter__()
            self._state = self._meter._begin()
            if not self._meter.watches:
                self._stop_watching = self._meter.clock.every(BEAT_S, self._meter._look)
        except Fault as fault:
            self._fault = fault.warning
        except Exception as defect:
            log.exception("meter %s failed to open a window", self._meter.name)
            self._fault = warning("W299", f"{type(defect).__name__} at the start of the window: {defect}")

    def _stop(self, work_failed: bool) -> None:
        try:
            self._sync()
        except Exception as error:
            stopped_s = self._meter.clock.now()
            self._reading = self._nothing_read(
                stopped_s, warning("W250", f"sync raised {type(error).__name__}: {error}")
            )
            if not work_failed:  # a hook's error is the user's, unless the work has already raised one
                raise
            return
        stopped_s = self._meter.clock.now()
        stopped = self._meter.pulse.end()
        reading = self._end(stopped_s)
        if stopped is not None:
            reading = _without_energy(reading, stopped)
        reading = self._meter._finish(self._with_machine(reading), self._max_uncertainty)
        said = None
        if self._iterations and reading.energy_j is not None:
            said = self._meter._in_step(reading.duration_s / self._iterations, reading.duration_s)
        warnings = (*reading.warnings, said) if said else reading.warnings
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter.count_rest()
            reading = replace(reading, work=self._counter.work)
        self._reading = replace(reading, iterations=self._iterations, warnings=warnings)

    def _end(self, stopped_s: float) -> EnergyReading:
        if self._fault is not None or self._state is None:
            return self._nothing_read(stopped_s, self._fault or warning("W220", "the source did not start the window"))
        try:
            return self._meter._end(self._state, self._started_s, stopped_s)
        except Fault as fault:
            return self._nothing_read(stopped_s, fault.warning)
        except Exception as defect:
            log.exception("meter %s failed to close a window", self._meter.name)
            text = f"{type(defect).__name__} at the end of the window: {defect}"
            return self._nothing_read(stopped_s, warning("W299", text))

    def _nothing_read(self, stopped_s: float, *warnings: str) -> EnergyReading:
        return self._meter._reading(None, None, self._started_s, stopped_s, warnings)

    def _with_machine(self, reading: EnergyReading) -> EnergyReading:
        """Return the reading with the load of the machine around it."""
        machine = self._meter.machine
        if machine is None or self._machine is None:
            return reading
        load, warnings = between(self._machine, machine.look(), machine.cores)
        if self._meter.counts_work:
            warnings = ()  # other load does not change counted joules
        return replace(reading, machine=load, warnings=(*reading.warnings, *warnings))


class BaseMeter(ABC, Generic[State]):
    """Implements windows, naming and closing for all meters. A subclass defines how a window begins and ends.

    Attributes:
        clock: Clock of the windows.
        boundary: The part of the system that the joules cover.
        provenance: How the joules are obtained.
        notes: Coded warnings of every reading of this meter.
        idle_power_w: Last measured idle power in W, or None.
        recorders: Recorders of the conditions on the measured boards.
        facts: Facts about those boards when the meter was opened.
        watches: True if the meter's own thread calls `_look` inside a window, at least every quarter of a second.
        pulse: Detects windows in which the process was suspended.
        machine: Reads the load of the machine; None on virtual time.
        counts_work: True if the meter counts the work of its windows itself.
        sensor: Gain and offset that every reading is corrected for; None if no correction was requested.
    """

    recorders: tuple[ConditionsRecorder, ...] = ()
    facts: tuple[BoardFacts, ...] = ()
    watches: bool = False
    counts_work: bool = False
    sensor: Sensor | None = None

    def __init__(
        self,
        *,
        name: str,
        why: str,
        boundary: Boundary,
        provenance: Provenance,
        clock: Clock | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Set the meter's identity; the subclass has already checked that the source works."""
        self.clock: Clock = clock or SystemClock()
        self.boundary: Boundary = boundary
        self.provenance: Provenance = provenance
        self.notes = tuple(notes)
        self.idle_power_w: float | None = None
        self.pulse = Pulse(self.clock)
        self.machine = Machine() if isinstance(self.clock, SystemClock) else None
        self._name = name
        self._why = why
        self._open_window: MeterWindow[State] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """Name that opens this meter."""
        return self._name

    @property
    def why(self) -> str:
        """What the meter reads, and why it was chosen; boards are not named by UUID."""
        return without_uuids(self._why)

    @property
    @abstractmethod
    def method(self) -> str:
        """Description of the source, as in every reading."""

    def add_reasons(self, reasons: Sequence[str]) -> None:
        """Append the reasons against better meters to `why`."""
        self._why = "; ".join([self._why, *reasons])

    @property
    def device(self) -> MeteredDevice | None:
        """The device that the joules belong to; None if the source does not know it."""
        if not self.facts:
            return None
        limits = [board.limit_w for board in self.facts]
        return MeteredDevice(
            name=" + ".join(board.model for board in self.facts),
            digest=" + ".join(board.digest for board in self.facts),
            power_limit_w=None if None in limits else sum(limit_w or 0.0 for limit_w in limits),
        )

    def describe(self) -> tuple[BoardFacts, ...]:
        """The boards that this meter reads, if it reads boards."""
        return self.facts

    @abstractmethod
    def learn_idle(self, seconds: float) -> float | None:
        """Observe the device at rest for about `seconds`; return idle power in W, or None if that is not supported."""

    def window(
        self,
        label: str = "",
        sync: Callable[[], None] | None = None,
        max_uncertainty: float | None = None,
    ) -> MeterWindow[State]:
        """Open a window; see `perjoule.protocols.EnergyMeter.window`.

        Raises:
            UsageError: If `max_uncertainty` is not between 0 and 1.
        """
        if max_uncertainty is not None:
            below_one(max_uncertainty, "max_uncertainty")
        return MeterWindow(self, label, sync, max_uncertainty)

    def close(self) -> None:
        """Release the source. Closing twice has no effect."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        """Return the meter, which is already open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def _begin(self) -> State:
        """Read the source at the start of a window; return as close to the start as possible. May raise Fault."""

    @abstractmethod
    def _end(self, state: State, started_s: float, stopped_s: float) -> EnergyReading:
        """Return the reading of the window from `started_s` to `stopped_s`. May raise Fault."""

    def _abandon(self, state: State) -> None:
        """Release resources of a window (e.g. a thread), whether or not `_end` was called."""

    def _forecast(self, state: State, elapsed_s: float) -> Forecast | None:
        """Return the approximate reading if the window ended now; None if that is not supported."""
        return None

    def expected_uncertainty_j(self) -> float | None:
        """Return a bound in J that holds for any work between rests; None if it is not known beforehand."""
        return None

    def in_step(self, repeat_s: float, duration_s: float) -> str | None:
        """Return W215 if work that repeats every `repeat_s` keeps step with the sensor over `duration_s`, else None."""
        return self._in_step(repeat_s, duration_s)

    def _in_step(self, repeat_s: float, duration_s: float) -> str | None:
        """Return a coded warning if the sensor may see only the same parts of work that repeats every `repeat_s`."""
        return None

    def _look(self) -> None:
        """Record the boards' conditions; called inside a window several times a second."""
        self.pulse.beat()
        for recorder in self.recorders:
            recorder.look()
            self.pulse.beat()

    def _close(self) -> None:
        """Release the source."""

    def _claim(self, window: MeterWindow[State]) -> None:
        if self._closed:
            raise MeterError(f"meter {self.name!r} is closed: open it again with open_meter({self.name!r})")
        if self._open_window is not None:
            raise MeterError(
                f"window {window.label!r} opens inside window {self._open_window.label!r} of meter {self.name!r}: "
                "windows do not nest; close the outer one first"
            )
        self._open_window = window

    def _release(self) -> None:
        self._open_window = None

    def _reading(
        self,
        energy_j: float | None,
        uncertainty_j: float | None,
        started_s: float,
        stopped_s: float,
        warnings: Sequence[str] = (),
    ) -> EnergyReading:
        return EnergyReading(
            energy_j=energy_j,
            uncertainty_j=uncertainty_j,
            duration_s=stopped_s - started_s,
            boundary=self.boundary,
            provenance=self.provenance,
            method=self.method,
            idle_power_w=self.idle_power_w,
            warnings=(*self.notes, *warnings),
            device=self.device.name if self.device else None,
            device_digest=self.device.digest if self.device else None,
            power_limit_w=self.device.power_limit_w if self.device else None,
        )

    def _finish(self, reading: EnergyReading, max_uncertainty: float | None) -> EnergyReading:
        """Apply the checks for every source: no zero, net energy, the requested bound."""
        reading = self._with_conditions(reading)
        if self.sensor is not None:
            reading = self.sensor.corrected(reading)
        energy_j, bound_j = reading.energy_j, reading.uncertainty_j
        if energy_j is None:
            return replace(reading, uncertainty_j=None, net_energy_j=None)
        if not energy_j > 0:
            said = warning("W202", f"the source says {energy_j:g} J over {reading.duration_s:.3f} s")
            return replace(
                reading,
                energy_j=None,
                uncertainty_j=None,
                net_energy_j=None,
                warnings=(*reading.warnings, said),
            )
        if reading.idle_power_w is not None:
            net_j = energy_j - reading.idle_power_w * reading.duration_s
            reading = replace(reading, net_energy_j=net_j)
        if max_uncertainty is not None and (bound_j is None or bound_j > max_uncertainty * energy_j):
            relative = "unknown" if bound_j is None else f"{bound_j / energy_j:.2%}"
            said = warning("W201", f"the bound is {relative} of the energy, {max_uncertainty:.2%} was requested")
            reading = replace(reading, warnings=(*reading.warnings, said))
        return reading

    def _with_conditions(self, reading: EnergyReading) -> EnergyReading:
        """Add the recorded conditions to the boards' readings."""
        rows = {row.device: row for row in reading.devices}
        said: list[str] = []
        for recorder in self.recorders:
            conditions, warnings = recorder.end()
            row = rows.get(recorder.device) or DeviceEnergy(
                device=recorder.device,
                energy_j=reading.energy_j,
                uncertainty_j=reading.uncertainty_j,
                idle_power_w=reading.idle_power_w,
            )
            rows[recorder.device] = replace(row, conditions=conditions)
            said += warnings if len(self.recorders) == 1 else [f"{one} ({recorder.device})" for one in warnings]
        return replace(reading, devices=tuple(rows.values()), warnings=(*reading.warnings, *said))


def _without_energy(reading: EnergyReading, reason: str) -> EnergyReading:
    """Return the reading of an invalid window; its log contains the reason too, in case it is computed again."""
    rows = [
        replace(
            row,
            energy_j=None,
            uncertainty_j=None,
            power_ratio=None,
            counter=None if row.counter is None else replace(row.counter, lost=reason),
        )
        for row in reading.devices
    ]
    return replace(
        reading,
        energy_j=None,
        uncertainty_j=None,
        partial_energy_j=None,
        partial_s=None,
        trace=None,
        devices=tuple(rows),
        warnings=(*reading.warnings, reason),
    )


def _nothing() -> None:
    """Replace a missing synchronise hook."""
