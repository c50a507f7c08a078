"""Runs on virtual time, in which an image of N steps takes 0.5 s and 20 J a step, or costs what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from perjoule.prompts import prompt_id
from perjoule.running.execute import execute
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, load_run
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Prompt, Suite, Variant
from tests.perjoule.running.test_execute import POWER_W, STEP_S, make_suite

J_PER_STEP = POWER_W * STEP_S
MODEL = Variant(name="v", model="m", steps=(1, 4))
PROMPTS = tuple(Prompt(prompt_id=prompt_id(t), text=t) for t in ("a cat", "a dog", "a fox", "an owl"))


def suite_of(*variants: Variant, **protocol: object) -> Suite:
    """One image a window, two seeds, no rest and no warm-up unless `protocol` says otherwise."""
    return replace(make_suite(**({"batch_size": 1} | protocol)), variants=variants or (MODEL,))


def run_of(suite: Suite, path: Path, power_w: Callable[[float], float] | float = POWER_W) -> Run:
    """Generate and meter a suite on virtual time."""
    clock = VirtualClock()
    writer = RunWriter.create(path, suite, PROMPTS, {"comparability": {"device": ["board"]}, "comparability_key": "k"})
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(power_w, clock),
        generators=GeneratorCache(FakeFactory(FakeGenerator(clock=clock, step_s=STEP_S)), lambda variant: variant.name),
        writer=writer,
        on_progress=lambda _: None,
    )
    writer.finish()
    return load_run(path)


def noisy_power(seed: int = 0) -> Callable[[float], float]:
    """40 W give or take 5 %, another value every second."""
    watts = POWER_W * (1 + 0.05 * np.random.default_rng(seed).normal(size=10_000))
    return lambda t_s: float(watts[int(t_s) % len(watts)])


def named(variant: Variant, name: str, **changes: object) -> Variant:
    return replace(variant, name=name, **changes)  # type: ignore[arg-type]
