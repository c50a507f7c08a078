from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import SuiteError
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.suite.reading import load_suite
from perjoule.suite.timesteps import sampler_of, short_first, timesteps_of, trailing
from perjoule.types import Variant
from tests.support.suites import suite_text

VARIANT = Variant(name="v", model="org/model", steps=(4,), schedule="short-first")


@given(st.integers(1, 200), st.sampled_from([short_first, trailing]))
def test_schedules_start_at_pure_noise_and_fall(steps: int, schedule: object) -> None:
    assert callable(schedule)
    times = schedule(steps)
    assert len(times) == steps
    assert times[0] == 999
    assert all(a > b for a, b in pairwise(times))
    assert times[-1] >= 0


@given(st.integers(3, 200))
def test_the_first_step_is_short_and_the_others_are_even(steps: int) -> None:
    first, *rest = short_first(steps)
    gaps = [a - b for a, b in pairwise([*rest, 0])]
    assert first - rest[0] == 83
    assert max(gaps) - min(gaps) <= 1


def test_a_named_schedule_makes_the_timesteps_of_every_step_count() -> None:
    assert timesteps_of(VARIANT, 3) == [999, 916, 458]
    assert timesteps_of(VARIANT, 1) == [999]
    assert timesteps_of(replace(VARIANT, schedule=""), 3) is None
    given_times = replace(VARIANT, schedule="", timesteps=(999, 500, 20))
    assert timesteps_of(given_times, 3) == [999, 500, 20]


def test_its_sampler_is_ddim_unless_the_variant_names_one() -> None:
    assert sampler_of(VARIANT) == ("DPMSolverMultistepScheduler", {"solver_order": 1})
    euler = replace(VARIANT, scheduler="EulerDiscreteScheduler")
    assert sampler_of(euler) == ("EulerDiscreteScheduler", {})
    assert sampler_of(replace(VARIANT, schedule="")) == ("", {})


def test_the_code_of_a_variant_contains_schedule_and_sampler() -> None:
    code = diffusers_code(VARIANT, 4)
    assert "DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order=1)" in code
    assert "timesteps=[999, 916, 611, 305]" in code
    adaptive = diffusers_code(replace(VARIANT, policy="budgetfusion"), None)
    assert "timesteps=short_first(steps)" in adaptive
    compile(adaptive, "code", "exec")


def test_given_timesteps_and_a_named_schedule_exclude_each_other(tmp_path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(suite_text({"schedule": "short-first", "timesteps": [999, 500], "steps": [2]}, protocol={}))
    with pytest.raises(SuiteError, match=r"variants\[0\]\.schedule = 'short-first': timesteps are given too"):
        load_suite(file)
    file.write_text(suite_text({"schedule": "short-last", "steps": [2]}, protocol={}))
    with pytest.raises(SuiteError, match=r"variants\[0\]\.schedule = 'short-last'"):
        load_suite(file)
