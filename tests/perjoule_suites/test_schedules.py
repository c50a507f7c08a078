"""What is known of a sampler before a run, compared with what diffusers does."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch

from perjoule.types import Variant
from perjoule_suites.schedules import samplings_of

pytestmark = pytest.mark.slow

# Stable Diffusion 2.1 base: its scheduler_config.json states no spacing
OWN = diffusers.PNDMScheduler.from_config(
    {
        "beta_start": 0.00085,
        "clip_sample": False,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
)
PIPELINE = diffusers.StableDiffusionPipeline
SD21 = Variant(name="v", model="m")


def sampling(scheduler: str, steps: int, call_args: dict[str, Any] | None = None, **settings: Any) -> Any:
    variant = replace(SD21, scheduler=scheduler, scheduler_args=settings, call_args=call_args or {})
    (found,) = samplings_of(OWN, PIPELINE, variant, [steps], "s")
    return found


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [2, 3, 5, 7, 8, 10, 12, 15, 20, 25, 30, 33, 50, 97, 125, 129])
def test_the_stride_error_is_that_of_diffusers_own_step(spacing: str, steps: int) -> None:
    """A step with a predicted noise of zero multiplies by √(ᾱ(end) / ᾱ(t)), which shows where it ends."""
    scheduler = diffusers.DDIMScheduler.from_config(OWN.config, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    alphas, times, errors = scheduler.alphas_cumprod.double(), scheduler.timesteps.tolist(), [0]
    one = torch.ones(1, 1, dtype=torch.float64)
    for time, following in pairwise(times):
        end = float(scheduler.step(torch.zeros_like(one), time, one).prev_sample) ** 2 * float(alphas[time])
        errors.append(abs(int((alphas - end).abs().argmin()) - following))
    assert sampling("DDIMScheduler", steps, timestep_spacing=spacing).stride_error == max(errors)
    if spacing == "leading" or (spacing == "trailing" and 1000 % steps == 0):
        assert max(errors) == 0


def test_pndm_strides_like_ddim_and_dpm_solver_does_not() -> None:
    assert sampling("PNDMScheduler", 20, timestep_spacing="trailing").stride_error == 0
    assert sampling("PNDMScheduler", 15, timestep_spacing="trailing").stride_error == 1
    assert sampling("DPMSolverMultistepScheduler", 15, timestep_spacing="trailing").stride_error == 0


@pytest.mark.parametrize(
    ("scheduler", "settings", "steps", "stochastic"),
    [
        ("DDIMScheduler", {}, 10, False),
        ("DPMSolverMultistepScheduler", {}, 10, False),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, 10, True),
        ("UniPCMultistepScheduler", {}, 10, False),
        ("EulerDiscreteScheduler", {}, 10, False),
        ("EulerAncestralDiscreteScheduler", {}, 10, True),
        ("DDPMScheduler", {}, 10, True),
        ("LCMScheduler", {}, 1, False),
        ("LCMScheduler", {}, 4, True),
        ("PNDMScheduler", {}, 10, False),
    ],
)
def test_solvers_that_add_noise(scheduler: str, settings: dict[str, Any], steps: int, stochastic: bool) -> None:
    assert sampling(scheduler, steps, **settings).stochastic == stochastic


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "TCDScheduler"])
def test_eta_makes_a_solver_stochastic(scheduler: str) -> None:
    """Without it the pipeline passes 0, whatever the default of the scheduler is."""
    assert not sampling(scheduler, 4).stochastic
    assert sampling(scheduler, 4, call_args={"eta": 1.0}).stochastic


def test_the_walk_leaves_torchs_random_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    sampling("EulerAncestralDiscreteScheduler", 4)
    assert torch.equal(before, torch.random.get_rng_state())
