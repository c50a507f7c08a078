"""The board as NVML shows it, asked without perjoule, so that its meter can be compared with something."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.gpu.records import now

AVERAGE_POWER, INSTANT_POWER, ENERGY = 185, 186, 83  # NVML_FI_DEV_POWER_AVERAGE, …_INSTANT, …_TOTAL_ENERGY_CONSUMPTION


@dataclass(frozen=True, slots=True)
class Update:
    """A change of the energy counter, seen between two calls."""

    early_s: float
    late_s: float
    energy_mj: int


class Board:
    """The first board that CUDA shows (with CUDA_DEVICE_ORDER=PCI_BUS_ID, which the check sets)."""

    def __init__(self) -> None:
        import pynvml

        self._nvml = pynvml
        pynvml.nvmlInit()
        self._handle = self._first_visible()

    def _first_visible(self) -> Any:
        nvml = self._nvml
        wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        if wanted.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(wanted))
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if nvml.nvmlDeviceGetUUID(handle).startswith(wanted):
                return handle
        raise SystemExit(f"CUDA_VISIBLE_DEVICES = {wanted!r}: NVML lists no such board; see `nvidia-smi -L`")

    def ask(self, function: str, *arguments: Any) -> Any:
        """Call a function of NVML on the board; return `{"refused": reason}` if it fails."""
        try:
            return _text(getattr(self._nvml, function)(self._handle, *arguments))
        except (self._nvml.NVMLError, AttributeError) as error:
            return {"refused": f"{type(error).__name__}: {error}"}

    def ask_driver(self, function: str) -> Any:
        """The same for a function without a board."""
        try:
            return _text(getattr(self._nvml, function)())
        except (self._nvml.NVMLError, AttributeError) as error:
            return {"refused": f"{type(error).__name__}: {error}"}

    def counter_mj(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def field_code(self, field: int, scope: int) -> int:
        """NVML's return code for a field, 0 if it has a value."""
        try:
            return int(self._nvml.nvmlDeviceGetFieldValues(self._handle, [(field, scope)])[0].nvmlReturn)
        except self._nvml.NVMLError as error:
            return int(error.value)

    def power_w(self, field: int) -> float | None:
        """The power that a field shows; None if it has none."""
        try:
            answer = self._nvml.nvmlDeviceGetFieldValues(self._handle, [(field, 0)])[0]
        except self._nvml.NVMLError:
            return None
        return float(answer.value.uiVal) / 1000 if answer.nvmlReturn == 0 else None

    def usage_w(self) -> float | None:
        """nvmlDeviceGetPowerUsage, which most tools poll."""
        answer = self.ask("nvmlDeviceGetPowerUsage")
        return None if isinstance(answer, dict) else answer / 1000

    def state(self) -> dict[str, Any]:
        """Clocks, temperature, performance state and reasons for lower clocks."""
        return {
            "sm_mhz": self.ask("nvmlDeviceGetClockInfo", 1),
            "memory_mhz": self.ask("nvmlDeviceGetClockInfo", 2),
            "temperature_c": self.ask("nvmlDeviceGetTemperature", 0),
            "performance_state": self.ask("nvmlDeviceGetPerformanceState"),
            "clock_reasons": self.ask("nvmlDeviceGetCurrentClocksEventReasons"),
        }

    def updates(self, done: Callable[[], bool], pause_s: float = 0.0005) -> list[Update]:
        """Poll the counter until `done`; return its changes."""
        changes, value, early_s = [], self.counter_mj(), now()
        while not done():
            sent_s = now()
            seen = self.counter_mj()
            if seen != value:
                changes.append(Update(early_s, now(), seen))
                value = seen
            early_s = sent_s
            time.sleep(pause_s)
        return changes

    def updates_for(self, seconds: float, pause_s: float = 0.0005) -> list[Update]:
        return self.updates(after(seconds), pause_s)


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that is False until so many seconds have passed."""
    end_s = now() + seconds
    return lambda: now() >= end_s


def _text(answer: Any) -> Any:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer
