"""One tool on one simulated board, in a process of its own: windows or faults in, JSON lines out.

Run by `__main__`, with the dynamic linker pointed at the simulated NVML.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perjoule.testing.nvml_simulator import NvmlSimulator
from tests.benchmarks.meters.recorded import lengths, load, played, split
from tests.benchmarks.meters.tools import TOOLS, Result

IDLE_W, WORK_W = 60.0, 300.0

Rows = Iterator[dict[str, Any]]


def windows(tool: str, simulator: NvmlSimulator, board: int, uuid: str, job: dict[str, Any]) -> Rows:
    """`job["counts"]`: length in s -> windows. Every length and every phase is drawn, or bad meters look good."""
    chance = random.Random(job["seed"])
    works = job["wave"] == "idle-work-idle"
    lengths = [float(length) for length, count in job["counts"].items() for _ in range(count)]
    chance.shuffle(lengths)
    with TOOLS[tool](uuid) as window:
        for length_s in lengths:
            time.sleep(chance.uniform(0.3, 0.5))
            with window() as result:
                begun_s = simulator.set_power(board, WORK_W) if works else simulator.now()
                time.sleep(length_s + chance.uniform(0.0, 0.1))
                ended_s = simulator.set_power(board, IDLE_W) if works else simulator.now()
            truth_j = simulator.energy_j(board, begun_s, ended_s)
            yield row(result) | {"length_s": length_s, "truth_j": truth_j}


def recorded(tool: str, simulator: NvmlSimulator, board: int, uuid: str, job: dict[str, Any]) -> Rows:
    """`job["count"]` windows of drawn lengths around work of a recorded board."""
    chance = random.Random(job["seed"])
    recording = load(Path(job["recording"]))
    simulator.play(board, *played(recording, recording.rest(), 0.0))
    with TOOLS[tool](uuid) as window:
        for length_s in lengths(job["count"], chance):
            time.sleep(chance.uniform(0.3, 1.0))
            cut, work_s = recording.cut(length_s)
            work, fall = split(played(recording, cut, work_s), work_s)
            with window() as result:
                begun_s = simulator.play(board, *work)
                time.sleep(begun_s + work_s - simulator.now())
                ended_s = simulator.play(board, *fall)  # which is late on a busy machine: the board works until then
            truth_j = simulator.energy_j(board, begun_s, ended_s)
            yield row(result) | {
                "length_s": work_s,
                "truth_j": truth_j,
                "board": recording.name,
                "period_s": job["period_s"],
            }


def fault(tool: str, simulator: NvmlSimulator, board: int, uuid: str, job: dict[str, Any]) -> Rows:
    """One window of `job["seconds"]` on a board to which `job["fault"]` happens: from the start, or half way."""
    halfway_s = job["seconds"] / 2
    begun_s = ended_s = simulator.now()
    opened = time.perf_counter()
    result = Result()
    try:
        if job["from_start"]:
            break_(simulator, board, job["fault"], simulator.now() - 1e-3)
        with TOOLS[tool](uuid) as window:
            opened = time.perf_counter()
            with window() as result:
                begun_s = simulator.now()
                time.sleep(halfway_s)
                if not job["from_start"]:
                    break_(simulator, board, job["fault"], simulator.now())
                time.sleep(job["seconds"] - halfway_s)
                ended_s = simulator.now()
            closed = time.perf_counter()
        outcome = row(result)
        outcome["end_s"] = closed - opened - job["seconds"]
    except BaseException as error:  # what a tool raises into the measured program is its result here
        outcome = row(result) | {"raised": f"{type(error).__name__}: {str(error)[:200]}"}
    truth_j = simulator.energy_j(board, begun_s, ended_s)
    until_j = simulator.energy_j(board, begun_s, min(begun_s + halfway_s, ended_s))
    yield outcome | {"truth_j": truth_j, "until_fault_j": until_j}


def break_(simulator: NvmlSimulator, board: int, fault: dict[str, Any], at_s: float) -> None:
    """Change the board; values that are "AT" become the time of the fault."""
    simulator.change(board, **{key: at_s if value == "AT" else value for key, value in fault.items()})


def row(result: Result) -> dict[str, Any]:
    """A result as JSON."""
    return {
        "energy_j": result.energy_j,
        "bound_j": result.bound_j,
        "partial_j": result.partial_j,
        "flags": result.flags,
    }


def main() -> None:
    """JOB FILE -> JSON lines on stdout; what tools print goes nowhere."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = sys.stdout
    simulator = NvmlSimulator.attach()
    with contextlib.redirect_stdout(io.StringIO()):
        runs = {"windows": windows, "recorded": recorded, "fault": fault}[job["kind"]]
        for found in runs(job["tool"], simulator, job["board"], job["uuid"], job):
            found = {"tool": job["tool"], "wave": job.get("wave"), "case": job.get("case")} | found
            out.write(json.dumps(found) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
