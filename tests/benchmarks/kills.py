"""Kills a run at random moments with SIGKILL and continues it, until nothing is lost, repeated or orphaned.

    python -m tests.benchmarks.kills [KILLS] [SEED]

Each process makes or resumes a run of instant pipelines, as `perjoule run --resume` does, and is killed after a random
time: in a window, between two files of a trial, in a repair, or while tables are derived. Prints counts per run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from perjoule.runs.directory import is_run, load_run
from perjoule.runs.lock import being_written
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


def child(path: Path) -> int:
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work(path)
        status = 0
    finally:
        os._exit(status)


def main(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    done = {"kills": 0, "runs": 0, "lost": 0, "repeated": 0, "other images": 0, "orphan rows": 0, "failed resumes": 0}
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        begun = time.monotonic()
        work(whole)
        usual_s = time.monotonic() - begun
        truth = hashes(load_run(whole))
        while done["kills"] < kills:
            path = Path(folder) / "run"
            alive = True
            while alive:
                process = child(path)
                time.sleep(chance.uniform(0, usual_s / 2))
                if done["kills"] < kills:
                    os.kill(process, signal.SIGKILL)
                status = os.waitpid(process, 0)[1]
                done["kills"] += os.WIFSIGNALED(status)
                done["failed resumes"] += os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0
                alive = os.WIFSIGNALED(status)
            run = load_run(path)
            ids = run.trials["trial_id"].to_list()
            done["runs"] += 1
            done["lost"] += len(PLAN) - len(set(ids))
            done["repeated"] += len(ids) - len(set(ids))
            done["other images"] += hashes(run) != truth
            done["other images"] += any(
                (path / "images" / file.name).read_bytes() != file.read_bytes() for file in (whole / "images").iterdir()
            )
            done["orphan rows"] += len(list(path.rglob("*.tmp"))) + sum(
                f'"{trial_id}"' not in (path / "trials.jsonl").read_text()
                for name in DETAILS
                for trial_id in (line.split('"')[3] for line in (path / f"{name}.jsonl").read_text().splitlines())
            )
            shutil.rmtree(path)
            print(", ".join(f"{name}: {count}" for name, count in done.items()), flush=True)


if __name__ == "__main__":
    main(*[int(word) for word in (*sys.argv[1:], *("100", "0")[len(sys.argv) - 1 :])])
