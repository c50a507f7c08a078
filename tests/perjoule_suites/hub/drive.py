"""Run in a process of its own, because the hub's libraries read their address when they are imported:

    python -m tests.perjoule_suites.hub.drive OUT SUITE ...

Each suite is rehearsed at 32 px on the simulated board, exactly as `perjoule run SUITE --smoke --size 32` does it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from perjoule.cli import app
from perjoule.testing import Bursts, NvmlSimulator, SimulatedBoard


def main(out: Path, suites: list[str]) -> None:
    """One run directory `out/SUITE` for each suite."""
    torch.set_num_threads(1)
    board = SimulatedBoard(wave=Bursts(low_w=60, high_w=300, burst_s=0.01, slot_s=0.02), counter_period_s=0.02)
    with NvmlSimulator([board], out / "nvml") as simulator:
        simulator.load()
        for suite in suites:
            began = time.perf_counter()
            arguments = ["run", suite, "--smoke", "--size", "32", "--meter", "nvml", "--out", str(out / suite)]
            app(arguments, standalone_mode=False)
            sys.stderr.write(f"{suite}: {time.perf_counter() - began:.1f} s\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
