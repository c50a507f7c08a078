"""Nodes of a Ray cluster on this machine, with simulated boards that sleep instead of drawing.

A generator of these tests replaces that of diffusers in every process of a cluster: through the metadata of a
distribution that comes first on the module path.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path

import psutil

from perjoule.protocols import Generation
from perjoule.testing import FakeGenerator, NvmlSimulator, SimulatedBoard, StepLog
from perjoule.types import Variant
from tests.support.suites import suite_text

ROOT = Path(__file__).parents[2]
WORK_W, REST_W, LIMIT_W = 300.0, 60.0, 400.0
STEP_S = "PERJOULE_TEST_STEP_S"
_FORGOTTEN = ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES")
_START_S = 300.0
# limits that a busy machine keeps; users have shorter ones
_PATIENT = "from perjoule.running import ray; ray.JOIN_S = 300; ray.FREE_S = 120; from perjoule.cli import main; main()"


class SleepingGenerator(FakeGenerator):
    """Draws like the fake; each step takes real seconds, in which the worker's board draws `WORK_W`."""

    def __init__(self, simulator: NvmlSimulator, board: int, step_s: float) -> None:
        super().__init__(step_s=step_s)
        self._simulator, self._board = simulator, board

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        self._simulator.set_power(self._board, WORK_W)
        time.sleep(self._step_s * steps * len(prompts))
        self._simulator.set_power(self._board, REST_W)
        return super().generate(prompts, seeds, steps)


def load(variant: Variant, *, where: str) -> SleepingGenerator:
    """The entry point of the generator in these clusters."""
    board = int(os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    return SleepingGenerator(NvmlSimulator.attach(), board, float(os.environ[STEP_S]))


def board(model: str = "NVIDIA A100") -> SimulatedBoard:
    return SimulatedBoard(model=model, wave=StepLog(start_w=REST_W), limit_w=LIMIT_W, counter_period_s=0.02)


def suite_file(folder: Path, prompts: int, steps: Sequence[int] = (1, 2), blocks: int = 1) -> Path:
    """A suite of one variant, with one window per prompt, cell and block."""
    (folder / "prompts.txt").write_text(
        "".join(f"{number} red circles on a white ground\n" for number in range(prompts))
    )
    protocol = {"seeds": [1], "batch_size": 1, "blocks": blocks, "idle_s": 0, "warmup_iterations": 0}
    file = folder / "suite.toml"
    file.write_text(suite_text({"steps": list(steps), "guidance": 3.0}, protocol=protocol))
    return file


@contextmanager
def simulated(folder: Path, boards: Sequence[SimulatedBoard], step_s: float) -> Iterator[dict[str, str]]:
    """The environment of processes that see these boards and draw by sleeping."""
    metadata = folder / "plugin" / "perjoule-0.dist-info"
    metadata.mkdir(parents=True)
    ours = distribution("perjoule")
    points = (ours.read_text("entry_points.txt") or "").replace(
        "perjoule_suites.diffusers_generator:load", f"{__name__}:load"
    )
    (metadata / "entry_points.txt").write_text(points)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: perjoule\nVersion: {ours.version}\n")
    path = [str(folder / "plugin"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    with NvmlSimulator(boards, folder / "nvml") as simulator:
        yield {
            **{
                name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES")
            },
            **simulator.environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PERJOULE_STATE": str(folder / "state"),
            STEP_S: str(step_s),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(),
        }


def command(suite: Path, out: Path, *options: str) -> list[str]:
    """`perjoule run` on Ray, with patience."""
    run = [sys.executable, "-c", _PATIENT, "run", str(suite), "--out", str(out)]
    return [*run, "--executor", "ray", "--meter", "nvml", *options]


class Node:
    """A node of a cluster: `ray start` with its own processes."""

    def __init__(self, environment: Mapping[str, str], *options: str, address: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets are short
        self.address = address or f"127.0.0.1:{free_port()}"
        place = (
            (f"--address={address}",)
            if address
            else ("--head", f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={self.folder}",
                  "--include-dashboard=false")
        )  # fmt: skip
        ours = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, "--block",
                "--disable-usage-stats", "--object-store-memory=100000000", *options]  # fmt: skip
        self._log = (self.folder / "start.log").open("w+")
        self.process = subprocess.Popen(
            ours, env=environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        end_s = time.monotonic() + _START_S
        while "Ray runtime started" not in (said := (self.folder / "start.log").read_text()):
            if self.process.poll() is not None or time.monotonic() > end_s:
                self.close()
                raise RuntimeError(f"ray start: {said}")
            time.sleep(0.1)

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Processes of this node whose command line contains a name."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if name in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def kill(self) -> None:
        """Kill the node's processes, as if its machine was switched off."""
        for process in [psutil.Process(self.process.pid), *self.processes()]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.kill()
        self.process.wait(30)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def cluster(*nodes: tuple[Mapping[str, str], Sequence[str]]) -> Iterator[list[Node]]:
    """A cluster; each node has its environment and its options of `ray start`."""
    with ExitStack() as stack:
        started: list[Node] = []
        for environment, options in nodes:
            node = Node(environment, *options, address=started[0].address if started else None)
            stack.callback(node.close)
            started.append(node)
        yield started


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
