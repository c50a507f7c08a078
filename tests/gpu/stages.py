"""The stages of a check: each in a process of its own, with a time limit, and its output on disk at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.gpu.records import Deadline, RecordFile, now, without_uuids

ROOT = Path(__file__).resolve().parents[2]
RESERVE_S = 8.0  # for summary and archive
GRACE_S = 10.0  # between Ctrl-C, after which perjoule leaves a run that can be scored, and the end of a process
_CUT = "cut off"
# tests that use a GPU if there is one, and those of the meters
_TESTED_ON_A_GPU = ("tests/perjoule_suites", "tests/perjoule/pytest_energy", "tests/perjoule/meters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage.

    Attributes:
        name: Name on the command line.
        commands: Run one after the other; all share the time limit. The first that fails ends the stage.
        most_s: Time limit.
        least_s: The stage is skipped if less is left.
        accepted: Exit codes that are not failures.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    most_s: float
    least_s: float = 5.0
    accepted: frozenset[int] = frozenset({0})


def all_stages(out: Path, *, short: bool) -> tuple[Stage, ...]:
    """Return the stages in the order of their worth; `short` for a rehearsal on a CPU."""
    python = (sys.executable,)
    perjoule, pytest = (*python, "-m", "perjoule"), (*python, "-m", "pytest", "-p", "no:cacheprovider", "-q")
    baselines = out / "pytest"
    energy = (
        *(*pytest, str(ROOT / "tests/gpu/energy_calls.py"), "--benchmark", "--energy-meter", "nvml"),
        *("--rootdir", str(baselines), "--confcutdir", str(baselines), "--energy-window", "0.3"),
        *(("--energy-rounds", "2") if short else ()),
    )
    many = ("-n", "auto") if _has_xdist() and not short else ()
    tests = (*pytest, *many, "-v", "--maxfail", "40", "--junit-xml")  # -v: a line per test, should it be cut off
    run = (*perjoule, "run", "--meter", "nvml", "--offline", "--quiet")

    def suite(name: str, minutes: float, *more: str) -> tuple[str, ...]:
        limits = ("--limit", "2", "--smoke") if short else ("--max-minutes", f"{minutes:g}", *more)
        return (*run, name, "--out", str(out / name), *limits)

    # keeps a real GPU busy, so it is not rehearsed
    proof = Stage(
        name="proof", commands=((*perjoule, "doctor", "--prove", "--meter", "nvml", "--plot", str(out / "proof.png")),),
        most_s=220, least_s=170,
    )  # fmt: skip
    return (
        Stage(name="doctor", commands=((*perjoule, "doctor", "--json"),), most_s=30),
        Stage(name="meter", commands=(_module("meter_stage", out / "meter.jsonl", 185),), most_s=200),
        Stage(name="sizes", commands=(_module("sizes_stage", out / "sizes.jsonl", 100),), most_s=115),
        Stage(name="demo", commands=(suite("demo", 2),), most_s=150, least_s=30, accepted=frozenset({0, 130})),
        Stage(
            name="pytest",
            commands=(
                (*energy, "--energy-save", "first", "--energy-report", str(baselines / "first.json")),
                (*energy, "--energy-baseline", "first", "--energy-report", str(baselines / "second.json")),
            ),
            most_s=80,
        ),
        *(() if short else (proof,)),
        Stage(
            name="batching", commands=(suite("batching", 1.2, "--limit", "48"),), most_s=90, least_s=40,
            accepted=frozenset({0, 130}),
        ),
        Stage(
            name="tests",
            commands=(
                (*tests, str(out / "tests-gpu.xml"), "-m", "gpu", str(ROOT / "tests")),
                *(
                    ()
                    if short
                    else ((*tests, str(out / "tests-all.xml"), *(str(ROOT / folder) for folder in _TESTED_ON_A_GPU)),)
                ),
            ),
            most_s=150, least_s=20, accepted=frozenset({0, 1}),
        ),
    )  # fmt: skip


def _module(name: str, path: Path, seconds: float) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tests.gpu.{name}", str(path), f"{seconds:g}")


def _has_xdist() -> bool:
    from importlib.util import find_spec

    return find_spec("xdist") is not None


class Check:
    """Runs stages into a folder.

    Args:
        out: Folder of all output.
        seconds: Time for all stages together.
        environment: Environment of the processes.
        archive: A tar.gz of the folder, written after each stage.
    """

    def __init__(self, out: Path, seconds: float, environment: dict[str, str], archive: Path | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "pytest").mkdir(exist_ok=True)
        self._out, self._archive, self._deadline = out, archive, Deadline(seconds - RESERVE_S)
        self._environment = environment | {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that the board of NVML and that of CUDA are the same
            "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        self._log = RecordFile(out / "stages.jsonl")

    def run(self, stages: Sequence[Stage]) -> int:
        """Run the stages; return 1 if one failed or was cut off."""
        failed = 0
        for stage in stages:
            outcome = self._run(stage)
            failed |= outcome not in stage.accepted and outcome != "skipped"
            self._summarise()
        return failed

    def _run(self, stage: Stage) -> int | str:
        limit_s = min(stage.most_s, self._deadline.left_s)
        if limit_s < stage.least_s:
            self._log.write("stage", name=stage.name, outcome="skipped", left_s=self._deadline.left_s)
            print(f"{stage.name}: skipped, {max(limit_s, 0):.0f} s are left", flush=True)
            return "skipped"
        print(f"{stage.name}: at most {limit_s:.0f} s …", flush=True)
        begin_s = now()
        outcome: int | str = 0
        deadline = Deadline(limit_s)
        with (self._out / f"{stage.name}.txt").open("a", encoding="utf-8") as file:
            for command in stage.commands:
                outcome = self._process(command, deadline, file)
                if outcome not in stage.accepted:
                    break
        seconds = now() - begin_s
        self._log.write("stage", name=stage.name, outcome=outcome, seconds=seconds, left_s=self._deadline.left_s)
        print(
            f"{stage.name}: {outcome if outcome == _CUT else f'exit code {outcome}'} after {seconds:.0f} s", flush=True
        )
        return outcome

    def _process(self, command: Sequence[str], deadline: Deadline, file: IO[str]) -> int | str:
        """Run a command; return its exit code, or that it was cut off."""
        process = subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        copier = threading.Thread(target=_copy, args=(process.stdout, file), daemon=True)
        copier.start()
        try:
            return process.wait(max(deadline.left_s, 0.0))
        except subprocess.TimeoutExpired:
            _end(process)
            return _CUT
        except BaseException:
            _end(process)
            raise
        finally:
            copier.join(GRACE_S)

    def _summarise(self) -> None:
        """Write summary.md and the archive; a failure there costs no data."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.gpu", "summary", str(self._out)], cwd=ROOT, env=self._environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        (self._out / "summary.md").write_text(done.stdout + done.stderr, encoding="utf-8")
        if self._archive is not None:
            part = self._archive.with_name(self._archive.name + ".part")
            with tarfile.open(part, "w:gz") as tar:
                tar.add(self._out, arcname=self._out.name)
            shutil.move(part, self._archive)


def _copy(source: IO[str], target: IO[str]) -> None:
    for line in source:
        target.write(without_uuids(line))
        target.flush()


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and its children, first by Ctrl-C."""
    for number, grace_s in ((signal.SIGINT, GRACE_S), (signal.SIGKILL, GRACE_S)):
        try:
            os.killpg(process.pid, number)
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
        return
