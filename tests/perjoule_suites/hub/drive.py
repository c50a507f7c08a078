"""Run in a process of its own, because the hub's libraries read their address when they are imported:

    python -m tests.perjoule_suites.hub.drive OUT [SUITE ...]

Every built-in suite that takes models from the hub is rehearsed at 32 px on a simulated board, as `perjoule run SUITE
--smoke --size 32 --meter nvml` does it. The suites of budgetfusion-sd21 are gone through in their order: collect,
train, run, evaluate.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perjoule.cli import app
from perjoule.suite.reading import find_suite, load_suite, write_suite
from perjoule.testing import Bursts, NvmlSimulator, SimulatedBoard
from perjoule.types import PromptSource, Suite
from perjoule_suites.budgetfusion import training

REHEARSED = ("sd15", "sd21", "sdxl", "sd35", "few-step", "compressed", "caching")
CURVES = ("budgetfusion-sd21-curves", "budgetfusion-sd21-curves-dev")
MINI = "budgetfusion-sd21-mini"
STUDY = "budgetfusion-sd21"
BOARD = SimulatedBoard(wave=Bursts(low_w=60, high_w=300, burst_s=0.01, slot_s=0.02), counter_period_s=0.02)


def main(out: Path, suites: Sequence[str] = (*REHEARSED, STUDY)) -> None:
    """One run directory `out/SUITE` for each suite."""
    torch.set_num_threads(1)
    os.chdir(out)
    with NvmlSimulator([BOARD], out / "nvml") as simulator:
        simulator.load()
        for suite in suites:
            if suite == STUDY:
                adaptive(out)
            else:
                perjoule("run", suite, "--smoke", "--size", "32", "--meter", "nvml", "--out", suite)


def adaptive(out: Path) -> None:
    """The suites of budgetfusion-sd21 in their order: collect, train, run, evaluate."""
    # a few epochs, since nothing can be learnt from what random weights draw
    assert training.train.__kwdefaults__ is not None
    training.train.__kwdefaults__["recipe"] = replace(training.RECIPE, epochs=2)
    for name, prompts in zip(CURVES, ("builtin:tiny-train", "builtin:tiny-dev"), strict=True):
        file = few(name, out, prompts, 20, steps=3)
        perjoule("budgetfusion", "collect", str(file), "--meter", "nvml", "--out", name)
    perjoule("run", str(few(MINI, out, "builtin:tiny-test", 2, steps=3)), "--meter", "nvml", "--out", MINI)
    learnt = ["--calibration", CURVES[1], "--metric", "iclip", "--level", "1000", "--out", "steps-sd21"]
    perjoule("budgetfusion", "train", CURVES[0], *learnt)
    study = few(STUDY, out, "builtin:tiny-test", 2, steps=3)
    perjoule("run", str(study), "--meter", "nvml", "--out", STUDY)
    perjoule("budgetfusion", "evaluate", STUDY, "--metric", "iclip")


def few(name: str, out: Path, prompts: str, limit: int, steps: int | None) -> Path:
    """A built-in suite as a file, with few prompts, the first rungs and small images.

    Without `dsim`, whose weights have three times 86 million parameters; its own tests have smaller ones.
    """
    suite = load_suite(find_suite(name))
    small: dict[str, Any] = {"width_px": 32, "height_px": 32}
    variants = tuple(replace(v, steps=v.steps[:steps], levels=v.levels[:1], **small) for v in suite.variants)
    quick = replace(suite.protocol, seeds=(1,), idle_s=0.0, cooldown_s=0.0, max_uncertainty=None)
    metrics = replace(suite.metrics, names=tuple(metric for metric in suite.metrics.names if metric != "dsim"))
    source: PromptSource = replace(suite.prompts, source=prompts, limit=limit, split=None)
    less: Suite = replace(suite, prompts=source, variants=variants, protocol=quick, metrics=metrics)
    write_suite(less, out / f"{name}.toml")
    return out / f"{name}.toml"


def perjoule(*arguments: str) -> None:
    """The command line, in this process."""
    began = time.perf_counter()
    sys.stdout.write(f"$ perjoule {' '.join(arguments)}\n")
    try:
        app(list(arguments), standalone_mode=False)
    except SystemExit as done:  # `budgetfusion` ends so, as a command of its own
        if done.code:
            raise
    sys.stdout.write(f"{time.perf_counter() - began:.1f} s\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or (*REHEARSED, STUDY))
