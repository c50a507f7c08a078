"""Compare the meters and write `docs/meters.md` with its figure: `python -m tests.benchmarks.meters [--quick]`.

Needs a C compiler, and zeus==0.16.0 beside perjoule for the column of that name. Takes about a quarter of an hour:
windows are real time, every tool has a process and a board of its own, all boards are alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perjoule.testing import SquareWave
from perjoule.testing.nvml_simulator import Bursts, NvmlSimulator, SimulatedBoard, StepLog
from tests.benchmarks.meters.recorded import BOARDS, PERIODS_S, boards, rest_w
from tests.benchmarks.meters.recorded import summary as recorded_summary
from tests.benchmarks.meters.summary import write_figures, write_page
from tests.benchmarks.meters.tools import TOOLS
from tests.benchmarks.meters.virtual import summary

ROOT = Path(__file__).resolve().parents[3]
WAVES: dict[str, Any] = {
    "idle-work-idle": StepLog(start_w=60.0),
    "square 1 s": SquareWave(low_w=60.0, high_w=300.0, period_s=1.0),
    "square 200 ms": SquareWave(low_w=60.0, high_w=300.0, period_s=0.2),
    "bursts 15 ms": Bursts(low_w=60.0, high_w=300.0, burst_s=0.015, slot_s=0.3, seed=7),
}
COUNTS = {"0.05": 30, "0.2": 20, "1": 10, "5": 4, "30": 1}
LOAD_COUNTS = {"0.05": 60, "0.1": 60, "0.2": 60, "1": 40, "5": 8, "30": 1}
PARTS = ("virtual", "windows", "recorded", "fault")
COUNTER, POWER = ("energy", "energy_field"), ("instant", "average", "usage", "samples")
FAULTS: dict[str, dict[str, Any]] = {
    "counter not supported": {"unsupported": COUNTER, "unsupported_from_s": "AT"},
    "power not supported": {"unsupported": POWER, "unsupported_from_s": "AT"},
    "both not supported": {"unsupported": (*COUNTER, *POWER), "unsupported_from_s": "AT"},
    "30 % unknown errors": {"unknown_rate": 0.3},
    "board lost": {"lost_at_s": "AT"},
    "counter reset": {"reset_at_s": "AT"},
    "counter stuck": {"stuck_at_s": "AT"},
}


def main() -> None:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the windows, for a look")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of meters.md")
    parser.add_argument("--parallel", type=int, default=4, help="processes at once; they mostly sleep")
    parser.add_argument("--only", nargs="*", choices=TOOLS, help="measure these; keep the stored windows of the others")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="measure these; keep the others")
    options = parser.parse_args()
    tools = [tool for tool in TOOLS if not tool.startswith("Zeus") or find_spec("zeus")]
    measured = [tool for tool in tools if not options.only or tool in options.only]
    options.out.mkdir(parents=True, exist_ok=True)
    stored = _stored(options.out / "meters.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        virtual = stored[0].get("virtual", {})
        if "virtual" in options.parts:
            virtual = summary(Path(folder), options.quick) | recorded_summary(Path(folder), options.quick)
    begun, load = time.time(), [os.getloadavg()[0]]
    work = [job for job in jobs(measured, options.quick) if job["kind"] in options.parts]
    rows = [row for row in stored[1:] if not any(_is_of(row, job) for job in work)]
    rows += run_all(work, options.parallel)
    load.append(os.getloadavg()[0])
    machine = stored[0].get("machine", "")
    if work:
        again = f" ({', '.join(options.only)} alone; the other tools' windows are older)" if options.only else ""
        minutes, busy = (time.time() - begun) / 60, f"{min(load):.1f} to {max(load):.1f}"
        machine = (
            f"The real-time windows were taken within {minutes:.0f} minutes on {os.cpu_count()} CPU cores, "
            f"{options.parallel} tools at a time, at a load average of {busy}{again}."
        )
    lines = [json.dumps(compact(row)) for row in ({"virtual": virtual, "machine": machine}, *rows)]
    (options.out / "meters.jsonl").write_text("\n".join(lines) + "\n")
    write_page(rows, virtual, options.out / "meters.md", quick=options.quick, machine=machine)
    write_figures(rows, options.out / "images")


def _stored(file: Path) -> list[dict[str, Any]]:
    """What an earlier run has left: a head, and a row per window."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else [{}]


def _is_of(row: dict[str, Any], job: dict[str, Any]) -> bool:
    """Whether a stored row is measured again by a job."""
    names = ("tool", "wave", "case")
    return (
        "board" not in row and job["kind"] != "recorded" and all(row.get(name) == job.get(name) for name in names)
    ) or ("board" in row and job["kind"] == "recorded" and row["tool"] == job["tool"])


def compact(value: Any) -> Any:
    """Without what is not there, and with floats that are as fine as a millijoule needs."""
    if isinstance(value, dict):
        return {key: compact(one) for key, one in value.items() if one is not None and one != []}
    if isinstance(value, list):
        return [compact(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def jobs(tools: list[str], quick: bool) -> list[dict[str, Any]]:
    """One per tool and wave, and per tool and fault from the start and half way."""
    made = []
    for wave in WAVES:
        counts = LOAD_COUNTS if wave == "idle-work-idle" else COUNTS
        if quick:
            counts = {length: max(count // 10, 1) for length, count in counts.items() if float(length) <= 5}
        made += [
            {"kind": "windows", "tool": tool, "wave": wave, "counts": counts, "seed": 20261124 + number}
            for number, tool in enumerate(tools)
        ]
    for case, fault in FAULTS.items():
        for from_start in (False, True):
            words = f"{case}, {'from the start' if from_start else 'half way'}"
            made += [
                {"kind": "fault", "tool": tool, "case": words, "fault": fault, "from_start": from_start, "seconds": 6.0}
                for tool in tools
            ]
    for number, recording in enumerate(boards()):
        folder = str(BOARDS / recording.name)
        made += [
            {
                "kind": "recorded",
                "tool": tool,
                "recording": folder,
                "rest_w": rest_w(recording),
                "period_s": period_s,
                "count": 3 if quick else 28,
                "seed": 20261128 + 10 * number + place,
            }
            for tool in tools
            for place, period_s in enumerate(PERIODS_S if tool == "perjoule" else (0.1,))
        ]
    return made


def _seconds(job: dict[str, Any]) -> float:
    """Seconds of work in a job, about."""
    counts: dict[str, int] = job.get("counts", {})
    return sum(float(length) * n for length, n in counts.items()) + float(job.get("count", 0))


def run_all(work: list[dict[str, Any]], parallel: int) -> list[dict[str, Any]]:
    """All jobs, `parallel` at a time; the longest first."""
    work = sorted(work, key=_seconds)[::-1]
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(parallel) as pool:
        for done, found in enumerate(pool.map(run_one, work), start=1):
            rows += found
            print(f"{done}/{len(work)} jobs", file=sys.stderr, end="\r", flush=True)
    return rows


def run_one(job: dict[str, Any]) -> list[dict[str, Any]]:
    """A simulator of two boards, the second one measured: who takes the first by default is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        wave = WAVES[job["wave"]] if "wave" in job else WAVES["square 200 ms"]
        if job["kind"] == "recorded":
            wave = StepLog(start_w=job["rest_w"])
        noise_w = 1.5 if job.get("wave") == "idle-work-idle" else 0.0
        board = SimulatedBoard(
            wave=wave,
            noise_w=noise_w,
            counter_phase_s=0.013,
            counter_period_s=job.get("period_s", 0.1),
            limit_w=500.0 if job["kind"] == "recorded" else 400.0,
        )
        simulator = NvmlSimulator([SimulatedBoard(), board], Path(folder))
        uuid = simulator.boards[1].uuid
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job | {"board": 1, "uuid": uuid}))
        # every tool is told its board by name; Zeus and codecarbon would count within the variable, were it set
        environment = os.environ | simulator.environment() | {"ZEUS_LOG_LEVEL": "ERROR"}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.meters.worker", str(file)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        simulator.close()
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        found = [{"tool": job["tool"], "wave": job.get("wave"), "case": job.get("case"), "died": last[:200]}]
    return found


if __name__ == "__main__":
    main()
