"""Replays a stored power log: each window gets the next part of the log, as long as the window.

    log      ├───────────────┼──────────┼─────────────────────────┤
               window 1         window 2      window 3 …             past the end: no number

Time between windows does not use the log, so a replay gives the same joules whatever the duration of the set-up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.identity import MeteredDevice
from perjoule.meters.log_energy import learn_response, require_alive, window_energy
from perjoule.meters.logs import read_log
from perjoule.meters.sensor import NOT_IN_BOUND
from perjoule.types import EnergyReading, PowerTrace


class ReplayMeter(BaseMeter[float]):
    """Meter whose windows read a stored log; see `perjoule.meters.log_energy` for the energy and its bound."""

    def __init__(self, file: Path | str, clock: Clock | None = None) -> None:
        """Read the log. Raises MeterError if it cannot be used."""
        self._file = Path(file)
        self._log = read_log(self._file, for_what="replay")
        try:
            require_alive(self._log)
        except MeterError as error:
            raise MeterError(f"replay: {file}: {error}") from error
        self._response = learn_response(self._log)
        self._first_s = self._cursor_s = self._log.samples[0].t_s
        self._length_s = self._log.samples[-1].t_s - self._first_s
        super().__init__(
            name=f"replay:{file}",
            why=f"replays {self._length_s:.3f} s of stored power from {file}, without measurement",
            boundary=self._log.boundary,
            provenance=self._log.provenance,
            clock=clock,
        )

    @property
    def method(self) -> str:
        """Description of the source: the file, its own source, and how its sensor responds."""
        timing = self._response.timing
        return (
            f"replay of {self._file.name} ({self._log.source}), {self._log.column}, period {timing.period_s:.3f} s, "
            f"{self._response.words}; {NOT_IN_BOUND}"
        )

    @property
    def device(self) -> MeteredDevice | None:
        """The board, if the log names it by UUID."""
        if self._log.board is None or not self._log.board.startswith("board-"):
            return None
        return MeteredDevice(name="unknown", digest=self._log.board)

    def learn_idle(self, seconds: float) -> float | None:
        """Return None: a stored log does not record when its device was at rest."""
        return None

    def _begin(self) -> float:
        return self._cursor_s

    def _end(self, state: float, started_s: float, stopped_s: float) -> EnergyReading:
        end_s = state + stopped_s - started_s
        last_s = self._first_s + self._length_s
        self._cursor_s = min(end_s, last_s)
        if end_s > last_s:
            raise Fault(
                "W240",
                f"the window needs {state - self._first_s:.3f} to {end_s - self._first_s:.3f} s of a log of "
                f"{self._length_s:.3f} s",
            )
        result = window_energy(self._log, self._response, state, end_s)
        inside = [(t_s - state, power_w) for t_s, power_w in self._log.good if state <= t_s <= end_s]
        trace = PowerTrace(
            t_s=tuple(t_s for t_s, _ in inside),
            power_w=tuple(power_w for _, power_w in inside),
            source=self._log.source,
            update_period_s=self._response.timing.period_s,
            averaging_window_s=self._response.timing.averaging_s or None,
        )
        reading = self._reading(result.energy_j, result.uncertainty_j, started_s, stopped_s, result.warnings)
        return replace(reading, trace=trace if inside else None)
