"""Does a gate on counted work hold on a busy machine? Repeats runs and gates next to busy processes.

    python -m tests.benchmarks.work.gates --out DIR --busy 4 --repeats 50 --minutes 15

A baseline is measured once. Then in turns: the same again (A/A), one more step, guidance left on, and a text that is
encoded twice (the pipeline's `encode_prompt` is called a second time, so images do not change). Prints for each how
many gates failed, and in how many the verdict names the network and its counts. Stops after --minutes. Everything runs
in this process, so that imports are paid once, and no reports are drawn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from perjoule import cli
from perjoule.gating import GateConfig, gate
from perjoule.gating.records import Verdict
from perjoule.running import reporting
from perjoule.runs.directory import Run, load_run
from tests.benchmarks.work.load import busy

SUITE = """
name = "shipped"
title = "Shipped"
description = "What is shipped."
[prompts]
source = "prompts.txt"
[protocol]
seeds = [1]
idle_s = 0.0
[metrics]
primary = "clip_text"
names = ["clip_text"]
[[variants]]
name = "shipped"
model = "builtin:sd-tiny"
steps = [2]
guidance = 1.0
"""


@dataclass(kw_only=True)
class Change:
    """A change, how often it was made, failed and was named; `words` must be in a reason, and name the cause."""

    name: str
    old: str = ""
    new: str = ""
    words: str = ""
    twice: bool = False
    gates: int = 0
    failed: int = 0
    named: int = 0
    odd: list[str] = field(default_factory=list)

    @property
    def suite(self) -> str:
        """The suite with the change."""
        assert self.old in SUITE
        return SUITE.replace(self.old, self.new) if self.old else SUITE

    def judge(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.gates += 1
        self.failed += verdict.verdict == "fail"
        self.named += bool(self.words) and any(self.words in reason for reason in verdict.reasons)
        if verdict.verdict not in ("pass", "fail"):
            self.odd.append(f"{verdict.verdict}: {verdict.reasons}")


def changes() -> list[Change]:
    """What is repeated."""
    unet, text = "denoiser UNet2DConditionModel: ", "text encoder CLIPTextModel: "
    return [
        Change(name="A/A"),
        Change(
            name="one more step", old="steps = [2]", new="steps = [3]",
            words=f"{unet}evaluations per image 2 → 3, calls per image 2 → 3",
        ),
        Change(
            name="guidance left on", old="guidance = 1.0", new="guidance = 2.0",
            words=f"{unet}evaluations per image 2 → 4, GFLOP per image",
        ),
        Change(name="text encoded twice", twice=True, words=f"{text}calls per image 1 → 2"),
    ]  # fmt: skip


@contextmanager
def encoded_twice() -> Iterator[None]:
    """Let pipelines encode every prompt twice."""
    from perjoule_suites.assembly import assemble

    def assembled(*arguments: Any) -> Any:
        pipeline, sources = assemble(*arguments)
        encode = pipeline.encode_prompt

        def twice(*args: Any, **kwargs: Any) -> Any:
            encode(*args, **kwargs)
            return encode(*args, **kwargs)

        pipeline.encode_prompt = twice
        return pipeline, sources

    with patch("perjoule_suites.diffusers_generator.assemble", assembled):
        yield


def run_of(folder: Path, suite: str) -> Run:
    """Do `perjoule run` in this process."""
    shutil.rmtree(folder, ignore_errors=True)
    file = folder.parent / "suite.toml"
    file.write_text(suite)
    arguments = ["run", str(file), "--meter", "work", "--out", str(folder), "--quiet"]
    with patch.object(reporting, "report", return_value=[]), redirect_stdout(StringIO()):
        cli.app(arguments, standalone_mode=False)
    return load_run(folder)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=15)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "prompts.txt").write_text("a large plain red circle\nthree stars\n")
    config = GateConfig(change=("variants",))
    repeated, energies = changes(), set()
    started = time.monotonic()
    with busy(chosen.busy):
        baseline = run_of(chosen.out / "baseline", SUITE)
        for repeat in range(chosen.repeats):
            if time.monotonic() - started > 60 * chosen.minutes:
                break
            for change in repeated:
                if change.twice:
                    with encoded_twice():
                        candidate = run_of(chosen.out / "candidate", change.suite)
                else:
                    candidate = run_of(chosen.out / "candidate", change.suite)
                change.judge(gate(baseline, candidate, config=config))
                if change.name == "A/A":
                    energies.add(float(candidate.windows["energy_j"].sum()))
            done = ", ".join(f"{c.name} {c.failed} of {c.gates} fail, {c.named} named" for c in repeated)
            print(f"{repeat + 1:3d}  {time.monotonic() - started:5.0f} s  {done}", file=sys.stderr, flush=True)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{chosen.busy} busy processes, load average {load}, {time.monotonic() - started:.0f} s")
    for change in repeated:
        print(f"{change.name:20s} gates {change.gates:3d}  FAIL {change.failed:3d}  named {change.named:3d}")
        print(*change.odd, sep="\n", end="")
    print(f"different joules of the A/A runs: {len(energies)}")


if __name__ == "__main__":
    main()
