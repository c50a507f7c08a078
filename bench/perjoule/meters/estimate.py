"""Fallback without measurement: codecarbon's power model for CPU and RAM, with this process tree's CPU time.

    energy = TDP * (CPU seconds of this process and its descendants) / (logical CPUs) + P_ram * duration

The constants (TDP by CPU model, watts per memory module) and the formula are those of codecarbon's offline
hardware classes with process tracking. Its own windows (`start_task`, `stop_task`) are not used, since the
load in them is a per-second sample of system times, which count in ticks of 10 ms (a fifth of a 50 ms window,
per CPU), and the default curve is cubic in that sample, so the result depends on the time of
sampling and on other load of the machine. The kernel counts the CPU time of processes, which is cheap to read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import Any

from perjoule.errors import MeterError, install_command
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.identity import MeteredDevice, cpu_name
from perjoule.meters.processes import running_cpu_s
from perjoule.types import EnergyReading
from perjoule.warnings import warning


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """Constants of the model.

    Attributes:
        cpu_model: Name of the CPU as reported by the machine.
        tdp_w: Thermal design power of all sockets together.
        generic_tdp: True if the CPU was not in the table, so that `tdp_w` is a flat value per thread.
        cpu_count: Logical CPUs that share `tdp_w`.
        ram_w: Constant power of the memory.
        version: Version of codecarbon.
    """

    cpu_model: str
    tdp_w: float
    generic_tdp: bool
    cpu_count: int
    ram_w: float
    version: str

    def energy_j(self, cpu_s: float, duration_s: float) -> float:
        """Return energy in J of `cpu_s` CPU seconds within `duration_s`; `cpu_s` is limited to all CPUs busy."""
        busy_s = min(cpu_s, self.cpu_count * duration_s)
        return self.tdp_w * busy_s / self.cpu_count + self.ram_w * duration_s


@contextmanager
def silent_codecarbon(*names: str) -> Iterator[tuple[Any, ...]]:
    """Import modules of codecarbon by name, without output inside the context.

    codecarbon reports every fallback on stderr, and one of its optional dependencies prints to stdout when it is
    imported. Raises ImportError.
    """
    logger = logging.getLogger("codecarbon")
    was_disabled = logger.disabled
    logger.disabled = True  # setting its level is not enough: importing codecarbon resets it
    try:
        with redirect_stdout(StringIO()):
            modules = tuple(import_module(name) for name in names)
        yield modules
    finally:
        logger.disabled = was_disabled


def codecarbon_model() -> PowerModel:
    """Look up this machine with codecarbon's offline hardware classes, without network, files or threads.

    Takes a second or more the first time (imports and table look-up). Raises MeterError if codecarbon is
    missing or has no data about the machine.
    """
    try:
        with silent_codecarbon(
            "codecarbon", "codecarbon.core.cpu", "codecarbon.core.util", "codecarbon.external.ram"
        ) as (codecarbon, cpu, util, ram):
            found = cpu.TDP()
            thread_count = int(util.count_cpus())
            if not found.tdp:
                raise MeterError(
                    f"estimate: codecarbon knows no power for CPU {found.model!r}; measure with rapl or nvml instead"
                )
            # For unknown CPUs, TDP() returns 4 W per thread of the whole machine, so it is not multiplied by the
            # number of sockets.
            generic = float(found.tdp) == thread_count * cpu.DEFAULT_POWER_PER_CORE
            sockets = 1 if generic else max(int(util.count_physical_cpus()), 1)
            ram_w = float(ram.RAM(tracking_mode="machine").total_power().W)
            version = str(codecarbon.__version__)
    except ImportError as error:
        raise MeterError(
            f"estimate: codecarbon cannot be imported ({error}); {install_command('codecarbon')}"
        ) from error
    return PowerModel(
        cpu_model=str(found.model),
        tdp_w=float(found.tdp) * sockets,
        generic_tdp=generic,
        cpu_count=thread_count,
        ram_w=ram_w,
        version=version,
    )


class CpuTime:
    """CPU seconds, user and system, of this process and its descendants so far; the value never decreases.

    Resolution: 1 ns for the process with all its threads, 1 us for children that have ended and were waited for, 10 ms
    for each process that still runs (only on Linux).
    """

    def __init__(self, running_s: Callable[[], float] = running_cpu_s) -> None:
        """Create the clock. `running_s`: CPU seconds of the descendants of this process."""
        self._running_s = running_s
        self._last_s = 0.0
        self._gone_s = 0.0

    def __call__(self) -> float:
        """Read the clocks."""
        now_s = self._sum_s()
        # The CPU time of an ended process is lost if its parent does not wait for it, and rounded otherwise, so the
        # largest value so far is kept.
        self._gone_s = max(self._gone_s, self._last_s - now_s)
        self._last_s = now_s + self._gone_s
        return self._last_s

    def _sum_s(self) -> float:
        """Return the total, read again if a child ended meanwhile, which would be counted twice or not at all."""
        ended_s = ended_children_s()
        for _ in range(3):
            running_s = self._running_s()
            before_s, ended_s = ended_s, ended_children_s()
            if before_s == ended_s:
                break
        return time.process_time() + ended_s + running_s


def ended_children_s() -> float:
    """Return CPU seconds of ended children that were waited for; 0 without getrusage."""
    try:
        resource: Any = import_module("resource")
    except ImportError:
        return 0.0
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(children.ru_utime) + float(children.ru_stime)


class EstimateMeter(BaseMeter[float]):
    """Meter that models energy instead of measuring it; every reading has provenance `estimated`.

    The bound is half of the modelled energy at full load. It expresses the uncertainty of a model and is not a
    confidence interval; it does not cover a wrong TDP, parts outside the model (GPU, disks, fans, power supply),
    or memory that the machine does not have. It is the same factor in every window, so comparisons on one machine
    are more precise than the bound.
    """

    def __init__(
        self,
        model: PowerModel | None = None,
        clock: Clock | None = None,
        cpu_s: Callable[[], float] | None = None,
    ) -> None:
        """Load codecarbon now, so that its start-up is not inside a window.

        Args:
            model: Constants; looked up with codecarbon if None.
            clock: The clock.
            cpu_s: CPU seconds consumed so far; those of this process and its descendants if None.

        Raises:
            MeterError: codecarbon is missing or has no data about this machine.
        """
        self.model = codecarbon_model() if model is None else model
        self._cpu_s = cpu_s or CpuTime()
        self._cpu = cpu_name()
        notes = []
        if self.model.generic_tdp:
            said = f"CPU {self.model.cpu_model!r} is not in codecarbon's table, {self.model.tdp_w:g} W assumed"
            notes.append(warning("W230", said))
        super().__init__(
            name="estimate",
            why="models CPU and RAM power from CPU time, without measurement",
            boundary="estimate",
            provenance="estimated",
            clock=clock,
            notes=notes,
        )

    @property
    def device(self) -> MeteredDevice:
        """The CPU."""
        return MeteredDevice(name=self._cpu)

    @property
    def method(self) -> str:
        """The model and its constants."""
        model = self.model
        return (
            f"codecarbon {model.version} power model on process CPU time: CPU {model.cpu_model!r}, TDP "
            f"{model.tdp_w:g} W{' (generic)' if model.generic_tdp else ''} over {model.cpu_count} logical CPUs, "
            f"RAM {model.ram_w:g} W"
        )

    def learn_idle(self, seconds: float) -> float | None:
        """Return modelled power in W at rest over `seconds`: the RAM, and the CPU time in that time."""
        begun_s, before_s = self.clock.now(), self._cpu_s()
        self.clock.sleep(seconds)
        duration_s = self.clock.now() - begun_s
        if duration_s <= 0:
            return None
        self.idle_power_w = self.model.energy_j(self._cpu_s() - before_s, duration_s) / duration_s
        return self.idle_power_w

    def _begin(self) -> float:
        return self._cpu_s()

    def _end(self, state: float, started_s: float, stopped_s: float) -> EnergyReading:
        busy_s = self._cpu_s() - state
        duration_s = stopped_s - started_s
        if busy_s < 0:
            raise Fault("W231", f"CPU time decreased by {-busy_s:.3f} s")
        energy_j = self.model.energy_j(busy_s, duration_s)
        if not energy_j > 0:
            raise Fault("W231", f"the model gives {energy_j:g} J for {busy_s:.3f} CPU s in {duration_s:.3f} s")
        full_j = self.model.energy_j(self.model.cpu_count * duration_s, duration_s)
        return self._reading(energy_j, full_j / 2, started_s, stopped_s)
