"""Memory, handles, threads and CPU time per trial of one long run with an instant generator.

    nice python -m tests.benchmarks.soak [TRIALS] [--seconds S]

Prints a line per 1,000 trials (20,000 by default), then what may not grow: memory by more than 5 % after the first
1,000 trials, open files and threads at all, and CPU time per trial by more than 20 %. CPU time instead of wall time, so
that other work on the machine does not matter; from the second block on, because only the first one stores images.
Stops early after S seconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from perjoule.errors import Interrupted
from perjoule.forecast.budget import Budget, Spending
from perjoule.prompts import prompt_id
from perjoule.protocols import Generation
from perjoule.running.execute import Progress, execute
from perjoule.running.trial import GeneratorCache
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Prompt
from tests.perjoule.running.test_execute import ENVIRONMENT, POWER_W, STEP_S, make_suite

PART = 1_000
CELLS, BLOCKS = 2, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The state of the process after some trials."""

    trials: int
    memory_mib: float
    files: int
    threads: int
    cpu_ms: float

    @classmethod
    def now(cls, trials: int) -> Reading:
        process = psutil.Process()
        return cls(
            trials=trials,
            memory_mib=process.memory_info().rss / 2**20,
            files=process.num_fds(),
            threads=process.num_threads(),
            cpu_ms=1000 * time.process_time(),
        )


class Instant(FakeGenerator):
    """The fake without its list of calls."""

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        self.calls.clear()
        return super().generate(prompts, seeds, steps)


def soak(trials: int, seconds: float) -> list[Reading]:
    """Do the trials in one run, and read the state of the process after each part."""
    count = max(trials // (CELLS * BLOCKS), 1)
    prompts = [Prompt(prompt_id=prompt_id(f"prompt {n}"), text=f"prompt {n}") for n in range(count)]
    suite = make_suite(seeds=(1,), batch_size=1, blocks=BLOCKS, interleave=True)
    clock, readings, ends = VirtualClock(), list[Reading](), time.monotonic() + seconds

    def on_progress(progress: Progress) -> None:
        if progress.trials_done % PART == 0:
            readings.append(Reading.now(progress.trials_done))
            print(readings[-1], flush=True)
        if time.monotonic() > ends:
            raise Interrupted(f"stopped after {progress.trials_done} trials")

    with TemporaryDirectory(prefix="perjoule-soak-") as folder:
        writer = RunWriter.create(Path(folder) / "run", suite, prompts, ENVIRONMENT)
        try:
            execute(
                make_plan(suite, prompts),
                protocol=suite.protocol,
                meter=SyntheticMeter(POWER_W, clock, uncertainty_j=0.1, seed=1),
                generators=GeneratorCache(
                    FakeFactory(Instant(side_px=8, clock=clock, step_s=STEP_S)), lambda variant: variant.name
                ),
                writer=writer,
                on_progress=on_progress,
                spending=Spending(Budget(max_joules=1e12)),
            )
        except Interrupted as stopped:
            print(stopped)
    return readings


def main(arguments: Sequence[str]) -> None:
    """Print the readings and what has grown."""
    numbers = [argument for argument in arguments if argument.isdecimal()]
    seconds = float(arguments[arguments.index("--seconds") + 1]) if "--seconds" in arguments else float("inf")
    trials = int(numbers[0]) if numbers else 20_000
    readings = soak(trials, seconds)
    first, last = readings[0], readings[-1]
    print(f"memory: {last.memory_mib / first.memory_mib - 1:+.1%} after {first.trials:,} trials")
    print(f"open files: {first.files} to {last.files}; threads: {first.threads} to {last.threads}")
    later = [reading for reading in readings if reading.trials >= trials / BLOCKS]
    times = [(b.cpu_ms - a.cpu_ms) / (b.trials - a.trials) for a, b in pairwise(later)]
    if times:
        middle = statistics.median(times)
        low, high = (value / middle - 1 for value in (min(times), max(times)))
        print(f"CPU time per trial: {middle:.2f} ms, {low:+.0%} to {high:+.0%}; last {times[-1] / middle - 1:+.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
