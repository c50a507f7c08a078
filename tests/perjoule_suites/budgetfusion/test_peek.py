from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import SuiteError
from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.budgetfusion import peek
from perjoule_suites.diffusers_generator import DiffusersGenerator

pytestmark = pytest.mark.slow

TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=(1,), guidance=3.0)

PROMPTS = ["a large red circle on a white ground", "a striped blue ring left of a pink star on a dotted grey ground"]
SEEDS = [1, 2]


@given(st.integers(1, 200), st.integers(1, 2))
def test_schedules_fall_and_share_their_first(steps: int, shared: int) -> None:
    if steps < shared:
        with pytest.raises(ValueError, match="steps that share"):
            peek.shared_schedule(steps, shared)
        return
    times = peek.shared_schedule(steps, shared)
    assert len(times) == steps
    assert all(a > b for a, b in pairwise(times))
    assert times[-1] >= 0
    assert times[:shared] == peek.shared_schedule(shared, shared)


def test_trailing_schedule_is_that_of_diffusers(generator: DiffusersGenerator) -> None:
    scheduler = generator.pipeline.scheduler
    for steps in (1, 2, 3, 5, 8, 25):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == peek.shared_schedule(steps, 1)


@pytest.mark.parametrize(("steps", "shared"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (6, 1), (6, 2)])
def test_a_look_changes_no_pixel_and_costs_no_evaluation(
    generator: DiffusersGenerator, steps: int, shared: int
) -> None:
    generator.take_counts()
    whole = peek.draw_shared(generator, PROMPTS, SEEDS, steps, shared)
    evaluations, _ = generator.take_counts()
    encoded = generator.encode(PROMPTS)
    seen = peek.glimpse(generator, encoded, PROMPTS, SEEDS, shared)
    looked = peek.go_on(generator, encoded, PROMPTS, SEEDS, seen, steps, shared)
    assert np.array_equal(whole, looked)
    assert generator.take_counts()[0] == evaluations == 2 * 2 * steps
    assert "step" not in vars(generator.pipeline.scheduler)  # nothing is left behind


def test_it_is_ddim(generator: DiffusersGenerator) -> None:
    ddim = diffusers_generator.load(TINY, where="s").generate(PROMPTS, SEEDS, 4).images
    ours = peek.draw_shared(generator, PROMPTS, SEEDS, 4, 1)
    assert np.abs(ddim.astype(int) - ours).max() <= 1  # rounding


def test_other_samplers_are_refused() -> None:
    ddim = diffusers_generator.load(TINY, where="s")
    with pytest.raises(SuiteError, match="DDIMScheduler"):
        peek.require_one_step_sampler(ddim.pipeline, "s.toml: variants[0]")
    second = replace(TINY, scheduler="DPMSolverMultistepScheduler", scheduler_args={"solver_order": 2})
    with pytest.raises(SuiteError, match="solver_order = 1"):
        peek.require_one_step_sampler(diffusers_generator.load(second, where="s").pipeline, "s.toml: variants[0]")
