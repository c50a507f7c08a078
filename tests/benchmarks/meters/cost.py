"""What a window of the counter's meter costs in CPU time: `python -m tests.benchmarks.meters.cost [SECONDS]`.

Windows are real time, on a simulated board. Waits for refreshes poll the counter, which costs more the longer they
take; they are listed apart from the rest of begin and end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from perjoule.meters import counter
from perjoule.meters.counter import CounterMeter
from perjoule.meters.nvml import open_nvml
from perjoule.meters.watcher import next_edges
from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard

WINDOWS = 20


class Waits:
    """`next_edges`, with the CPU time of its calls."""

    def __init__(self) -> None:
        self.cpu_s = 0.0

    def __call__(self, *arguments: Any) -> Any:
        begun_s = time.thread_time()
        try:
            return next_edges(*arguments)
        finally:
            self.cpu_s += time.thread_time() - begun_s


def ends_s(meter: CounterMeter) -> tuple[float, float]:
    """CPU seconds of begin and end of an empty window, and of the waits in them; medians."""
    rests, waits = [], []
    for _ in range(WINDOWS):
        with patch.object(counter, "next_edges", Waits()) as waited:
            begun_s = time.thread_time()
            with meter.window():
                pass
            taken_s = time.thread_time() - begun_s
        rests.append(taken_s - waited.cpu_s)
        waits.append(waited.cpu_s)
    return median(rests), median(waits)


def inside_s(meter: CounterMeter, seconds: float) -> float:
    """CPU seconds per second inside a window, of all threads."""
    with meter.window():
        time.sleep(0.1)  # the conditions are read at once, and then once per second
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - cpu_s) / (time.perf_counter() - begun_s)


def main(seconds: float) -> None:
    """Print a line per update period."""
    for period_s in (0.02, 0.05, 0.1):
        board = SimulatedBoard(wave=ConstantPower(100.0), counter_period_s=period_s)
        with (
            tempfile.TemporaryDirectory() as folder,
            NvmlSimulator([board], Path(folder)) as simulator,
            open_nvml(nvml=simulator.load(), environ={}) as meter,
        ):
            assert isinstance(meter, CounterMeter)
            ends_s(meter)  # imports and caches
            rest_s, waits_s = ends_s(meter)
            print(
                f"period {1e3 * period_s:.0f} ms: begin and end {1e3 * rest_s:.2f} ms, and {1e3 * waits_s:.2f} ms of "
                f"waits; {1e3 * inside_s(meter, seconds):.2f} ms per second inside",
                flush=True,
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
