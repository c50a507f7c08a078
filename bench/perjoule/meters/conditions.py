"""Conditions on a board during a measurement: other processes, throttling, clocks, temperature, memory.

Inside a window they are read at most once per second; the list of processes, which takes milliseconds on real drivers,
is read only outside of it.
"""

from __future__ import annotations

import os
import sys
from statistics import mean
from typing import Protocol, TypeVar

from perjoule.meters.clock import Clock
from perjoule.meters.processes import descendants
from perjoule.types import Conditions, EnergyReading
from perjoule.warnings import warning

T = TypeVar("T")

LOOK_S = 1.0
POWER_CAP = 0x4
# nvmlClocksEventReason bits that slow work down; idle, user settings and display clocks are not disturbances.
THROTTLE_REASONS = {
    POWER_CAP: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class BoardState(Protocol):
    """Queries of a board; they return None if the board does not support them."""

    def temperature_c(self) -> int | None:
        """Return the GPU temperature."""
        ...

    def limit_w(self) -> float | None:
        """Return the enforced power limit."""
        ...

    def sm_clock_mhz(self) -> int | None:
        """Return the SM clock."""
        ...

    def throttle_reasons(self) -> int | None:
        """Return the bit mask of nvmlClocksEventReason."""
        ...

    def memory_bytes(self) -> int | None:
        """Return the memory in use on the board."""
        ...

    def utilisation(self) -> float | None:
        """Return the share of the last sample period with a kernel running, 0 to 1."""
        ...

    def compute_pids(self) -> list[int] | None:
        """Return the host's process ids of processes with a compute context."""
        ...


class ConditionsRecorder:
    """Records one board's conditions over one window at a time."""

    def __init__(self, device: str, board: BoardState, clock: Clock) -> None:
        """Create a recorder without reading anything. `device`: digest of the board's UUID."""
        self.device = device
        self._board = board
        self._clock = clock
        self._foreign: tuple[float, int | None] | None = None  # time of the count, and the count
        self._before: tuple[int | None, float | None, int | None] = (None, None, None)
        self._looked_s: float | None = None
        self._throttles: list[int] = []
        self._clocks: list[int] = []
        self._memory: list[int] = []
        self._utilisation: list[float] = []

    def begin(self) -> None:
        """Record temperature, power limit and processes before the window."""
        self._looked_s = None
        for kept in (self._throttles, self._clocks, self._memory, self._utilisation):
            kept.clear()
        self._before = self._around()

    def look(self) -> None:
        """Record conditions inside the window; may be called often, but reads at most once per second."""
        now_s = self._clock.now()
        if self._looked_s is not None and now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        board = self._board
        _keep(self._throttles, board.throttle_reasons())
        _keep(self._clocks, board.sm_clock_mhz())
        _keep(self._memory, board.memory_bytes())
        _keep(self._utilisation, board.utilisation())

    def end(self) -> tuple[Conditions, tuple[str, ...]]:
        """Return the recorded conditions after the window, and coded warnings for disturbances."""
        temperature_c, limit_w, foreign = self._around()
        # The memory of the work is still allocated, and a short window has no other reading.
        _keep(self._memory, self._board.memory_bytes())
        counts = [count for count in (self._before[2], foreign) if count is not None]
        throttles = 0
        for mask in self._throttles:
            throttles |= mask & sum(THROTTLE_REASONS)
        conditions = Conditions(
            temperature_c=(self._before[0], temperature_c),
            power_limit_w=(self._before[1], limit_w),
            sm_clock_mhz=(min(self._clocks), max(self._clocks)) if self._clocks else None,
            throttle_reasons=throttles if self._throttles else None,
            foreign_processes=max(counts) if counts else None,
            peak_memory_bytes=max(self._memory) if self._memory else None,
            utilisation=mean(self._utilisation) if self._utilisation else None,
        )
        return conditions, tuple(_disturbances(conditions))

    def _around(self) -> tuple[int | None, float | None, int | None]:
        return self._board.temperature_c(), self._board.limit_w(), self._count_foreign()

    def _count_foreign(self) -> int | None:
        now_s = self._clock.now()
        if self._foreign is None or now_s - self._foreign[0] >= LOOK_S:
            pids = self._board.compute_pids()
            self._foreign = now_s, None if pids is None else foreign_count(pids, own_pids(), has_cuda_context())
        return self._foreign[1]


def totals(reading: EnergyReading | None) -> dict[str, float | None]:
    """Return `peak_memory_bytes` summed and `utilisation` averaged over a reading's boards; None if unknown."""
    boards = [device.conditions for device in reading.devices if device.conditions] if reading else []
    memory = [board.peak_memory_bytes for board in boards if board.peak_memory_bytes is not None]
    utilisation = [board.utilisation for board in boards if board.utilisation is not None]
    return {
        "peak_memory_bytes": sum(memory) if memory else None,
        "utilisation": mean(utilisation) if utilisation else None,
    }


def foreign_count(pids: list[int], own: set[int], context: bool) -> int:
    """Return how many processes on a board are not ours.

    NVML uses process ids of the host, so in a container our own process looks foreign: if we have a CUDA context and
    none of the ids is ours, one of the processes is ours.
    """
    ours = sum(pid in own for pid in pids)
    return max(len(pids) - (ours or int(context)), 0)


def own_pids() -> set[int]:
    """Return this process and its descendants (Linux; elsewhere only this process)."""
    return {os.getpid(), *descendants()}


def has_cuda_context() -> bool:
    """Return True if torch is loaded and has opened a CUDA device; does not load torch."""
    torch = sys.modules.get("torch")
    return bool(torch is not None and torch.cuda.is_initialized())


def _disturbances(conditions: Conditions) -> list[str]:
    said = []
    if conditions.foreign_processes:
        count = conditions.foreign_processes
        said.append(warning("W260", f"{count} other compute process{'es' if count > 1 else ''} on the board"))
    # a board under load is at its power limit and changes its clock: these are conditions, not disturbances
    held_back = (conditions.throttle_reasons or 0) & ~POWER_CAP
    if held_back:
        names = [name for bit, name in THROTTLE_REASONS.items() if held_back & bit]
        said.append(warning("W261", f"the board was slowed down: {', '.join(names)}"))
    before_w, after_w = conditions.power_limit_w
    if before_w is not None and after_w is not None and before_w != after_w:
        said.append(warning("W263", f"the power limit went from {before_w:g} W to {after_w:g} W"))
    return said


def _keep(values: list[T], value: T | None) -> None:
    if value is not None:
        values.append(value)
