"""Work of a known amount: equal kernels on the GPU, or steps of power on a simulated board."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from tests.gpu.records import now

SIMULATED = "PERJOULE_NVML_SIMULATOR" in os.environ  # set by `NvmlSimulator.environment()`
REST_W = 122.0  # a board with a CUDA context, whose clocks stay up


class Work(Protocol):
    """Repeats equal units of work.

    Attributes:
        name: For records.
        unit_s: Seconds of a unit.
    """

    name: str
    unit_s: float

    def run(self, units: int) -> None:
        """Do so many units, and wait for their end."""

    def wait(self) -> None:
        """Wait for the device."""

    def true_j(self, begin_s: float, end_s: float) -> float | None:
        """Energy of the board between two times; None if it is unknown."""


def units_for(work: Work, seconds: float) -> int:
    return max(1, math.ceil(seconds / work.unit_s))


def start(work: Work, units: int) -> Callable[[], bool]:
    """Do the units in a thread; return a function that tells whether they are done."""
    thread = threading.Thread(target=work.run, args=(units,))
    thread.start()
    return lambda: not thread.is_alive()


class Kernels:
    """A kernel on random data, since constant data draws less power."""

    def __init__(self, name: str, kernel: Callable[[], object]) -> None:
        import torch

        self.name, self._kernel, self._torch = name, kernel, torch
        self.unit_s = 1.0
        self.run(3)
        begin_s = now()
        self.run(20)
        self.unit_s = (now() - begin_s) / 20

    def run(self, units: int) -> None:
        for _ in range(units):
            self._kernel()
        self.wait()

    def wait(self) -> None:
        self._torch.cuda.synchronize()

    def true_j(self, begin_s: float, end_s: float) -> float | None:
        return None


class SimulatedWork:
    """Sets the power of the simulated board for the time that the units would take."""

    def __init__(self, name: str, simulator: Any, power_w: float, unit_s: float) -> None:
        self.name, self.unit_s = name, unit_s
        self._simulator, self._power_w = simulator, power_w

    def run(self, units: int) -> None:
        end_s = self._simulator.set_power(0, self._power_w) + units * self.unit_s
        while (left_s := end_s - now()) > 0:
            time.sleep(min(max(left_s - 0.0003, 0.0), 0.05))
        self._simulator.set_power(0, REST_W)

    def wait(self) -> None:
        """Nothing is pending: `run` has waited."""

    def true_j(self, begin_s: float, end_s: float) -> float | None:
        return float(self._simulator.energy_j(0, begin_s, end_s))


def open_work() -> dict[str, Work]:
    """Return `copy`, which is bound by memory and stays below the power limit, and `matmul`, which may reach it."""
    if SIMULATED:
        from perjoule.testing import NvmlSimulator

        simulator = NvmlSimulator.attach()
        return {
            "copy": SimulatedWork("copy", simulator, 380.0, 0.0008),
            "matmul": SimulatedWork("matmul", simulator, 650.0, 0.0015),
        }
    import torch

    torch.manual_seed(1)
    source = torch.randn(2**28, device="cuda")  # 1 GiB, far more than the caches hold
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)
    return {
        "copy": Kernels("copy", lambda: torch.add(source, 1.0, out=target)),
        "matmul": Kernels("matmul", lambda: torch.mm(a, b, out=c)),
    }
