"""What every meter shares: the window, its guard rails, and the last checks on a reading.

                 _begin()                                     _end()
    ───────────┬────────┐                                ┌───────────────────────┬──────────
      sync()   │ settle │ started_s    work    sync()    │ stopped_s      settle │ reading
    ───────────┴────────┘                                └───────────────────────┴──────────

A meter that fails inside a window says so in the reading. It never raises into the measured code, and never
answers 0.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

from perjoule.errors import MeterError
from perjoule.meters.clock import Clock, SystemClock
from perjoule.types import Boundary, EnergyReading, Provenance
from perjoule.warnings_table import warning

log = logging.getLogger(__name__)

State = TypeVar("State")


class Fault(Exception):  # noqa: N818 - it is caught inside the meters and becomes a warning
    """The source failed; `warning` is the coded sentence that goes into the reading."""

    def __init__(self, code: str, sentence: str) -> None:
        """Hold `CODE: sentence`."""
        super().__init__(sentence)
        self.warning = warning(code, sentence)


class MeterWindow(Generic[State]):
    """A window of a `BaseMeter`; use it with `with`."""

    def __init__(
        self,
        meter: BaseMeter[State],
        label: str,
        sync: Callable[[], None] | None,
        max_uncertainty: float | None,
    ) -> None:
        """Made by `BaseMeter.window`."""
        self.label = label
        self._meter = meter
        self._sync = sync or _nothing
        self._max_uncertainty = max_uncertainty
        self._state: State | None = None
        self._fault: str | None = None
        self._started_s = 0.0
        self._reading: EnergyReading | None = None

    @property
    def reading(self) -> EnergyReading:
        """The result. Raises RuntimeError while the window is open."""
        if self._reading is None:
            raise RuntimeError(f"window {self.label!r} has no reading yet: read it after its `with` block has ended")
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
        self._started_s = self._meter.clock.now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Synchronise, stop, and settle the reading; what the work raised goes on to the caller."""
        try:
            self._stop(work_failed=error is not None)
        finally:
            if self._state is not None:
                self._meter._abandon(self._state)
            self._meter._release()

    def _begin(self) -> None:
        try:
            self._state = self._meter._begin()
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
            if not work_failed:  # the hook is the user's, so its error is too, unless one is on its way
                raise
            return
        stopped_s = self._meter.clock.now()
        self._reading = self._meter._finish(self._end(stopped_s), self._max_uncertainty)

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


class BaseMeter(ABC, Generic[State]):
    """Windows, naming and closing for all meters. A subclass says how a window begins and ends.

    Attributes:
        clock: The time that windows are measured on.
        boundary: What the joules cover.
        provenance: How they come about.
        notes: Coded warnings that hold for every reading of this meter.
        idle_power_w: Last learnt idle power in W, or None.
    """

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
        """Set the meter's identity; the subclass has already made sure that the source works."""
        self.clock: Clock = clock or SystemClock()
        self.boundary: Boundary = boundary
        self.provenance: Provenance = provenance
        self.notes = tuple(notes)
        self.idle_power_w: float | None = None
        self._name = name
        self._why = why
        self._open_window: MeterWindow[State] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """What the user would type to get this meter."""
        return self._name

    @property
    def why(self) -> str:
        """What it reads, and why it was taken."""
        return self._why

    @property
    @abstractmethod
    def method(self) -> str:
        """The source in words, as written into every reading."""

    def add_reasons(self, reasons: Sequence[str]) -> None:
        """Append to `why` what stood in the way of better meters."""
        self._why = "; ".join([self._why, *reasons])

    @abstractmethod
    def learn_idle(self, seconds: float) -> float | None:
        """Watch the resting device for about `seconds`; idle power in W, or None if the source cannot tell."""

    def window(
        self,
        label: str = "",
        sync: Callable[[], None] | None = None,
        max_uncertainty: float | None = None,
    ) -> MeterWindow[State]:
        """Open a window; see `perjoule.protocols.EnergyMeter.window`."""
        return MeterWindow(self, label, sync, max_uncertainty)

    def close(self) -> None:
        """Let go of the source. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        """The meter is open since it was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def _begin(self) -> State:
        """Read what is needed at the start; returns as close to the start as the source allows. May raise Fault."""

    @abstractmethod
    def _end(self, state: State, started_s: float, stopped_s: float) -> EnergyReading:
        """The reading of the window from `started_s` to `stopped_s`. May raise Fault."""

    def _abandon(self, state: State) -> None:
        """Let go of what a window holds (a thread), whether or not `_end` came to be called."""

    def _close(self) -> None:
        """Let go of the source."""

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
        )

    def _finish(self, reading: EnergyReading, max_uncertainty: float | None) -> EnergyReading:
        """The checks that hold for every source: no zero, net beside gross, the bound that was asked for."""
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
            said = warning("W201", f"the bound is {relative} of the energy, {max_uncertainty:.2%} was asked for")
            reading = replace(reading, warnings=(*reading.warnings, said))
        return reading


def _nothing() -> None:
    """Stand in for a missing synchronise hook."""
