"""Evaluations of the denoiser for an image, in closed form: for plans, and for tests of the count by hook."""

from __future__ import annotations

import math
from typing import Any

from perjoule.types import Variant

# second order by two evaluations a step but for the last, after diffusers' `schedulers/`
_TWO_A_STEP = frozenset(
    {
        "HeunDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSDEScheduler",
    }
)
# of PNDM's four-stage start, which takes the place of three steps
_RUNGE_KUTTA_EVALUATIONS, _RUNGE_KUTTA_STEPS = 12, 3


def evaluations(scheduler: str, steps: int, scheduler_args: dict[str, Any]) -> int:
    """Calls of the denoiser for `num_inference_steps = steps`.

    Args:
        scheduler: diffusers class name.
        steps: At least 1.
        scheduler_args: Its config, as far as it matters: PNDM's `skip_prk_steps`, which Stable Diffusion sets.
    """
    if scheduler in _TWO_A_STEP:
        return 2 * steps - 1
    if scheduler == "PNDMScheduler":
        if scheduler_args.get("skip_prk_steps", True):
            return steps + 1 if steps > 1 else 1  # the second timestep is evaluated twice
        return steps - _RUNGE_KUTTA_STEPS + _RUNGE_KUTTA_EVALUATIONS
    return steps


def guided_calls(calls: int, share: float) -> int:
    """Calls of the denoiser with guidance: a share of all, rounded; the first is one, and with a share the last is not.

    4 calls, 0.67   3 guided         2 calls, 0.9   1 guided (so that a warm-up of two steps shows both kinds)
    """
    if share >= 1:
        return calls
    return max(1, min(calls - 1, math.floor(share * calls + 0.5)))


def nfe_per_image(variant: Variant, steps: int) -> int:
    """Evaluations in rows of the denoiser's batch: classifier-free guidance takes two a call.

    For a variant that keeps its model's own scheduler, one call a step is assumed; a model's own PNDM makes one more.
    """
    guided = variant.guidance > 1 and variant.guidance_mode in ("auto", "classifier-free")
    calls = evaluations(variant.scheduler, steps, variant.scheduler_args)
    return calls + (guided_calls(calls, variant.guidance_share) if guided else 0)
