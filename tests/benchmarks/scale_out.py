"""Runs on Ray with simulated boards, harmed in several ways, and the recipes of docs/scale-out.md.

    python -m tests.benchmarks.scale_out [STEP_S] [PART...]      parts: speed faults recipes; all by default

Boards sleep for STEP_S seconds per step, 1 by default, so that more boards than CPUs are of use. Prints one line for
each check, with what it found. `speed` compares 1, 2 and 4 workers, on one to three nodes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from perjoule.runs.directory import load_run
from perjoule.suite.reading import load_suite
from tests.support.ray_nodes import ROOT, Node, board, command, simulated, suite_file

PROMPTS, STEPS = 8, (1, 2)
_LIMIT_S = 1800


def main(step_s: float, parts: list[str]) -> None:
    for name, part in {"speed": speed, "faults": faults, "recipes": recipes}.items():
        if name in (parts or ["speed", "faults", "recipes"]):
            with TemporaryDirectory(prefix="scale-") as folder:
                part(Path(folder), step_s)


def say(what: str, **found: Any) -> None:
    print(f"{what}: {', '.join(f'{name} {value}' for name, value in found.items())}", flush=True)


@contextmanager
def nodes_of(folder: Path, step_s: float, models: str) -> Iterator[tuple[Callable[..., Node], dict[str, str]]]:
    """A function that starts nodes with some of the boards, and the environment of the driver."""
    started: list[Node] = []
    with simulated(folder, [board(f"NVIDIA {model}") for model in models.split()], step_s) as environment:

        def start(boards: str, cpus: int) -> Node:
            count = len(boards.split(","))
            options = (f"--num-gpus={count}", f"--num-cpus={cpus}")
            address = started[0].address if started else None
            started.append(Node(environment | {"CUDA_VISIBLE_DEVICES": boards}, *options, address=address))
            return started[-1]

        try:
            yield start, environment
        finally:
            for node in reversed(started):
                node.close()


class Driver:
    """A process of `perjoule run`, and what is in its run directory meanwhile."""

    def __init__(self, arguments: list[str], out: Path, environment: Mapping[str, str]) -> None:
        self.out = out
        self._begun_s = time.monotonic()
        self.process = subprocess.Popen(
            arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def trials(self) -> int:
        journal = self.out / "trials.jsonl"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def until(self, count: int) -> float:
        """Wait for this number of trials; returns when they were there."""
        while self.trials() < count:
            if self.process.poll() is not None:
                raise RuntimeError(self.process.communicate())
            time.sleep(0.01)
        return time.monotonic()

    def end(self) -> tuple[int, float, str]:
        """Wait for the end. -> (exit code, seconds since the start, stderr)"""
        err = self.process.communicate(timeout=_LIMIT_S)[1]
        return self.process.returncode, time.monotonic() - self._begun_s, err


def summary(out: Path, planned: int) -> dict[str, Any]:
    run = load_run(out)
    attempts = out / "superseded.jsonl"
    points = run.points.unique("cell_id").sort("steps_mean")
    return {
        "trials": f"{len(run.trials)} of {planned}",
        "repeated ids": len(run.trials) - run.trials["trial_id"].n_unique(),
        "failed": len(run.trials) - run.trials["failure"].null_count(),
        "boards": run.trials["device_digest"].n_unique(),
        "superseded attempts": attempts.read_bytes().count(b"\n") if attempts.exists() else 0,
        "images": len(list((out / "images").iterdir())),
        "J/image": " and ".join(
            f"{row['energy_j_per_image']:.1f} [{row['energy_low']:.1f}, {row['energy_high']:.1f}]"
            for row in points.iter_rows(named=True)
        ),
    }


def digests(out: Path) -> pl.Series:
    return load_run(out).trials.sort("trial_id")["image_sha256"]


def speed(folder: Path, step_s: float) -> None:
    file, planned = suite_file(folder, PROMPTS, STEPS), PROMPTS * len(STEPS)
    with nodes_of(folder, step_s, "A100 " * 4) as (start, environment):
        head, seconds = start("0", cpus=1), {}
        for workers, more in ((1, None), (2, ("1", 1)), (4, ("2,3", 2))):
            if more is not None:
                start(*more)
            out = folder / f"run{workers}"
            driver = Driver(command(file, out, "--address", head.address), out, environment)
            while not (out / "environment.json").exists():  # written when all workers are ready
                if driver.process.poll() is not None:
                    raise RuntimeError(driver.process.communicate())
                time.sleep(0.01)
            begun_s = time.monotonic()
            seconds[workers] = driver.until(planned) - begun_s
            code, _, err = driver.end()
            assert code == 0, err
            say(
                f"{workers} workers",
                seconds=f"{seconds[workers]:.1f}",
                speedup=f"{seconds[1] / seconds[workers]:.2f}",
                **{"same images": digests(out).equals(digests(folder / "run1"))},
                **summary(out, planned),
            )


def faults(folder: Path, step_s: float) -> None:
    file, planned = suite_file(folder, PROMPTS, STEPS), PROMPTS * len(STEPS)
    with nodes_of(folder, step_s, "A100 A100 A100 H100") as (start, environment):
        head = start("0", cpus=1)
        second = start("1", cpus=1)
        third = start("2", cpus=1)

        def driver(name: str, *options: str) -> Driver:
            out = folder / name
            return Driver(command(file, out, "--address", head.address, *options), out, environment)

        one = driver("killed")
        one.until(2)
        second.processes("ray::RemoteBench")[0].kill()
        one.until(6)
        third.kill()
        code, _, err = one.end()
        said = [line for line in err.splitlines() if "warning: worker" in line]
        say("worker killed, then a node switched off", code=code, **summary(one.out, planned))
        print(*said, sep="\n", flush=True)

        one = driver("driver")
        one.until(3)
        one.process.kill()
        one.end()
        kept = one.trials()
        again = driver("driver", "--resume")
        code, _, err = again.end()
        say("driver killed and resumed", code=code, kept=kept, **summary(again.out, planned))

        start("3", cpus=1)
        code, took_s, err = driver("unlike").end()
        say("A100 and H100", code=code, directory=(folder / "unlike").exists(), says=repr(last_line(err)))

        impatient = [sys.executable, "-m", "perjoule", "run", str(file), "--executor", "ray", "--meter", "nvml",
                     "--out", str(folder / "never"), "--address"]  # fmt: skip
        for process in head.processes("gcs_server"):
            process.send_signal(signal.SIGSTOP)
        for what, address in (
            ("stale cluster, stopped", head.address),
            ("stale cluster, gone", head.address),
            ("wrong address", "127.0.0.1:1"),
        ):
            if what.endswith("gone"):
                head.kill()
            code, took_s, err = Driver([*impatient, address], folder / "never", environment).end()
            say(what, code=code, seconds=f"{took_s:.1f}", says=repr(last_line(err)))


def last_line(err: str) -> str:
    return (err.strip().splitlines() or [""])[-1]


# what the recipes call, on two nodes of this machine with a board each
_PROGRAMS = {
    "perjoule": f'exec {sys.executable} -m perjoule "$@"',
    "ray": f'exec {sys.executable} -m ray.scripts.scripts "$@"',
    "python3": f'exec {sys.executable} "$@"',
    "scontrol": "echo 127.0.0.1; echo 127.0.0.2",
    "srun": """board=0
while [[ "$1" == --* ]]; do case "$1" in --exclude=*) board=1;; esac; shift; done
CUDA_VISIBLE_DEVICES=$board exec "$@" --num-gpus=1 --num-cpus=1 --object-store-memory=100000000
""",
}


def recipes(folder: Path, step_s: float) -> None:
    text = (ROOT / "docs" / "scale-out.md").read_text("utf-8")
    scripts = dict(re.findall(r"^```bash (\S+\.sbatch)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    programs = folder / "bin"
    programs.mkdir()
    for name, body in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    file, planned = suite_file(folder, PROMPTS, STEPS), PROMPTS * len(STEPS)
    runs = folder / "runs"
    with simulated(folder, [board(), board()], step_s) as simulated_environment:
        environment = simulated_environment | {
            "PATH": f"{programs}{os.pathsep}{simulated_environment['PATH']}",
            "SUITE": str(file),
            "RUNS": str(runs),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_NNODES": "2",
            "SLURM_ARRAY_TASK_COUNT": "2",
            "RAY_PORT": "6399",
            "RAY_TMPDIR": "/tmp",
        }

        def script(name: str, **more: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                ["bash", "-c", scripts[name]], env=environment | more, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder,
            )  # fmt: skip

        parts = [
            script("shards.sbatch", SLURM_ARRAY_TASK_ID=str(number), CUDA_VISIBLE_DEVICES=str(number - 1))
            for number in (1, 2)
        ]
        for one in parts:
            require_done(one)
        require_done(script("merge.sbatch"))
        say("shards.sbatch and merge.sbatch", **summary(runs / "whole", planned))
        (runs / "whole").rename(runs / "merged")
        require_done(script("ray.sbatch"))
        say("ray.sbatch", **summary(runs / "whole", planned))
        assert digests(runs / "whole").equals(digests(runs / "merged"))
        assert load_suite(runs / "whole" / "suite.toml") == load_suite(runs / "merged" / "suite.toml")


def require_done(process: subprocess.Popen[str]) -> None:
    output = process.communicate(timeout=_LIMIT_S)[0]
    if process.returncode:
        sys.exit(f"{process.args!r} ended with {process.returncode}:\n{output}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, sys.argv[2:])
