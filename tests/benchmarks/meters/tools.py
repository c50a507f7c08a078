"""The meters that are compared, behind one shape: a context manager around the work that leaves joules or None."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """What a tool says about one window; `flags` are its own warnings, `bound_j` only where it states one."""

    energy_j: float | None = None
    bound_j: float | None = None
    partial_j: float | None = None
    flags: list[str] = field(default_factory=list)


Opened = Callable[[], Any]  # () -> context manager that yields a Result, filled in when it closes


@contextmanager
def perjoule(uuid: str) -> Iterator[Opened]:
    """`open_meter("nvml:UUID")`."""
    from perjoule import open_meter

    with open_meter(f"nvml:{uuid}") as meter:

        @contextmanager
        def window() -> Iterator[Result]:
            result = Result()
            with meter.window() as opened:
                yield result
            reading = opened.reading
            result.energy_j, result.bound_j = reading.energy_j, reading.uncertainty_j
            result.partial_j = reading.partial_energy_j
            result.flags = [warning[:4] for warning in reading.warnings]

        yield window


@contextmanager
def counter(uuid: str) -> Iterator[Opened]:
    """The difference of nvmlDeviceGetTotalEnergyConsumption, as most scripts take it."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    @contextmanager
    def window() -> Iterator[Result]:
        result = Result()
        first = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        yield result
        result.energy_j = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - first) / 1000

    yield window


@contextmanager
def polling(uuid: str) -> Iterator[Opened]:
    """nvmlDeviceGetPowerUsage ten times a second, summed as rectangles: what home-made loggers do."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    @contextmanager
    def window() -> Iterator[Result]:
        result = Result()
        total_j, done = [0.0], threading.Event()

        def run() -> None:
            last_s = time.perf_counter()
            while True:
                try:
                    power_w = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
                except pynvml.NVMLError:  # in a script, a traceback on stderr and a thread that has ended
                    result.flags.append("traceback")
                    return
                ended = done.wait(0.1)
                now_s = time.perf_counter()
                total_j[0] += power_w * (now_s - last_s)
                last_s = now_s
                if ended:
                    return

        thread = threading.Thread(target=run)
        thread.start()
        yield result
        done.set()
        thread.join()
        result.energy_j = total_j[0]

    yield window


@contextmanager
def zeus(uuid: str) -> Iterator[Opened]:
    """ZeusMonitor as its documentation opens it; there is no torch device to synchronise here."""
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor(gpu_indices=[_index(uuid)], cpu_indices=[])
    gpu = next(iter(monitor.gpu_indices))

    @contextmanager
    def window() -> Iterator[Result]:
        result = Result()
        monitor.begin_window("window", sync_execution=False)
        yield result
        result.energy_j = monitor.end_window("window", sync_execution=False).gpu_energy[gpu]

    yield window


@contextmanager
def codecarbon_task(uuid: str) -> Iterator[Opened]:
    """OfflineEmissionsTracker.start_task and stop_task."""
    said = _Said()
    tracker = _codecarbon(uuid)

    @contextmanager
    def window() -> Iterator[Result]:
        result = Result(flags=said.anew())
        tracker.start_task()
        yield result
        result.energy_j = tracker.stop_task().gpu_energy * 3.6e6

    try:
        yield window
    finally:
        tracker.stop()


@contextmanager
def codecarbon_default(uuid: str) -> Iterator[Opened]:
    """A new OfflineEmissionsTracker around every window, started and stopped, at its default 15 s."""
    said = _Said()

    @contextmanager
    def window() -> Iterator[Result]:
        result = Result(flags=said.anew())
        tracker = _codecarbon(uuid)
        tracker.start()
        try:
            yield result
        finally:
            tracker.stop()
        result.energy_j = tracker.final_emissions_data.gpu_energy * 3.6e6

    yield window


TOOLS: dict[str, Callable[[str], Any]] = {
    "perjoule": perjoule,
    "counter difference": counter,
    "Zeus 0.16": zeus,
    "codecarbon task": codecarbon_task,
    "codecarbon default": codecarbon_default,
    "10 Hz polling": polling,
}


class _Said(logging.Handler):
    """Whether codecarbon logs a warning about the GPU; it always has some about CPU and settings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._flags: list[str] = []
        logging.getLogger("codecarbon").addHandler(self)

    def anew(self) -> list[str]:
        """A new list, into which all goes from now on."""
        self._flags = []
        return self._flags

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the fact that something was said about the GPU's readings."""
        if any(words in record.getMessage() for words in ("Failed to", "Energy counter")):
            self._flags.append("logged")


def _codecarbon(uuid: str) -> Any:
    from codecarbon import OfflineEmissionsTracker

    return OfflineEmissionsTracker(
        country_iso_code="USA",
        save_to_file=False,
        gpu_ids=[_index(uuid)],
        log_level="warning",
        allow_multiple_runs=True,
    )


def _index(uuid: str) -> int:
    import pynvml

    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        if pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)) == uuid:
            return index
    raise LookupError(uuid)
