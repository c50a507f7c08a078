"""Kills runs and merges at random moments with SIGKILL and continues them: is anything lost, repeated or orphaned?

    python -m tests.benchmarks.kills [KILLS] [SEED]

Each process makes or resumes a run of instant pipelines, as `perjoule run --resume` does, and is killed after a random
time: in a window, between two files of a trial, in a repair, or while tables are derived. Then two runs of parts are
merged as often. Prints counts per run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from perjoule.runs.directory import is_run, load_run
from perjoule.runs.lock import being_written
from perjoule.runs.merging import merge_runs
from perjoule.runs.stored import DETAILS
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from tests.perjoule.running.test_execute import ENVIRONMENT, PROMPTS, do, hashes, make_suite

SUITE = make_suite(blocks=2, batch_size=1)
PLAN = make_plan(SUITE, PROMPTS)


def work(path: Path) -> None:
    """What a process does that is not killed."""
    path.mkdir(exist_ok=True)
    with being_written(path):
        if is_run(path):
            writer = RunWriter.resume(path, SUITE, PLAN, ENVIRONMENT)
        else:
            writer = RunWriter.create(path, SUITE, PROMPTS, ENVIRONMENT)
        do(SUITE, writer)


def check(path: Path, whole: Path) -> None:
    """Print what a finished run lost, repeated or left behind."""
    run = load_run(path)
    ids = run.trials["trial_id"].to_list()
    stored = {file.name: file.read_bytes() for file in (path / "images").iterdir()}
    details = [line.split('"')[3] for name in DETAILS for line in (path / f"{name}.jsonl").read_text().splitlines()]
    counts = {
        "lost": len(PLAN) - len(set(ids)),
        "repeated": len(ids) - len(set(ids)),
        "other images": stored != {file.name: file.read_bytes() for file in (whole / "images").iterdir()},
        "other digests": hashes(run) != hashes(load_run(whole)),
        "orphan rows": len(set(details) - set(ids)),
        "temporary files": len(list(path.rglob("*.tmp"))),
    }
    print(", ".join(f"{name}: {int(count)}" for name, count in counts.items()), flush=True)


def child(task: Callable[[], object]) -> int:
    """Start a task in a process of its own, and return its number. The threads of polars do not survive a fork, so
    this process must not use polars itself."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        task()
        status = 0
    finally:
        os._exit(status)


def part(path: Path, number: int) -> None:
    """Do every second trial."""
    writer = RunWriter.create(path, SUITE, PROMPTS, ENVIRONMENT)
    writer.done |= {assignment.trial_id for assignment in PLAN[number::2]}
    do(SUITE, writer)


def merges(kills: int, chance: random.Random, folder: Path) -> None:
    """Kill merges; what is left must not pass as a run, and must not stop the next merge."""
    parts, out = [folder / "part0", folder / "part1"], folder / "merged"
    for number, path in enumerate(parts):
        os.waitpid(child(partial(part, path, number)), 0)
    begun = time.monotonic()
    os.waitpid(child(lambda: merge_runs(parts, out)), 0)
    usual_s = time.monotonic() - begun
    shutil.rmtree(out)
    done, left, passing = 0, 0, 0
    while done < kills:
        if chance.random() < 0.5:
            out.mkdir()
        process = child(lambda: merge_runs(parts, out))
        time.sleep(chance.uniform(0, usual_s))
        os.kill(process, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(process, 0)[1]):
            shutil.rmtree(out)
            continue
        done += 1
        left += any(folder.rglob(".perjoule-new*"))
        if (out / "environment.json").exists():  # killed after its last step
            passing += 1
        elif os.waitpid(child(lambda: merge_runs(parts, out)), 0)[1]:
            sys.exit(f"could not be merged after {done} kills")
        if done % 10 == 0:
            os.waitpid(child(lambda: check(out, folder / "whole")), 0)
        shutil.rmtree(out)
    print(f"{done} kills of merges, {left} of which left files, {passing} after the last step", flush=True)


def main(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    done = 0
    with TemporaryDirectory() as folder:
        whole, path = Path(folder) / "whole", Path(folder) / "run"
        begun = time.monotonic()
        os.waitpid(child(lambda: work(whole)), 0)
        usual_s = time.monotonic() - begun
        while done < kills:
            killed = True
            while killed:
                process = child(lambda: work(path))
                time.sleep(chance.uniform(0, usual_s / 2))
                if done < kills:
                    os.kill(process, signal.SIGKILL)
                status = os.waitpid(process, 0)[1]
                killed = os.WIFSIGNALED(status)
                done += killed
                if status and not killed:
                    sys.exit(f"could not be continued after {done} kills")
            os.waitpid(child(lambda: check(path, whole)), 0)
            print(f"{done} kills", flush=True)
            shutil.rmtree(path)
        merges(kills, chance, Path(folder))


if __name__ == "__main__":
    main(*[int(word) for word in (*sys.argv[1:], *("100", "0")[len(sys.argv) - 1 :])])
