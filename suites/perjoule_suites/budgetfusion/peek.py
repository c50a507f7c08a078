"""Looking at the first evaluations before deciding how many there will be, at not one evaluation more.

    evaluation      1        2        3        4   …
    3 steps      t = 999     916      457
    6 steps      t = 999     916      733      549   …        k = 2: all schedules share their first two timesteps
                 └── the same for all ──┘
                     predicted clean latent ─► predictor ─► N ─► the rest of schedule N

With trailing spacing every schedule begins at the last timestep, so the first evaluation is shared as it is (k = 1). At
zero terminal SNR it sees pure noise and knows little of what the seed will bring. For k = 2 the schedules are made to
share their second timestep as well, one twelfth below the first. A long first step would be cheap to share but ends
elsewhere than the reference (999 to 666: 6 steps at an `iclip` of .957); a short one does no harm to few steps (999 to
916: .998, where trailing spacing has .990).

The sampler is first order and deterministic (DDIM, as DPM-Solver++ of order 1), so a step depends on nothing before it,
and the images are those that the same schedule gives without a look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perjoule.errors import SuiteError
from perjoule.protocols import Images
from perjoule_suites.diffusers_generator import DiffusersGenerator

MOST_SHARED = 2
SECOND_SHARE = 11 / 12


def shared_schedule(steps: int, shared: int, train_timesteps: int = 1000) -> list[int]:
    """Timesteps of `steps` evaluations, falling, of which the first `shared` are the same for every number of steps.

    shared = 1: trailing spacing (arXiv:2305.08891). shared = 2: 999 and 916, then trailing spacing from
    there; for twelve steps it is trailing spacing, but for rounding.

    Raises:
        ValueError: Fewer steps than are shared, or `shared` not 1 or 2.
    """
    if not 1 <= shared <= MOST_SHARED or steps < shared:
        raise ValueError(
            f"{steps} steps that share {shared}: 1 or {MOST_SHARED} shared, and no more than there are steps"
        )
    if shared == 1:
        return [round(train_timesteps * (1 - i / steps)) - 1 for i in range(steps)]
    second = round(train_timesteps * SECOND_SHARE)
    return [train_timesteps - 1, *(round(second * (1 - i / (steps - 1))) - 1 for i in range(steps - 1))]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glimpse:
    """What is known after the shared evaluations of n images.

    Attributes:
        clean: (n, c, h, w) the predicted clean latents.
        sample: (n, c, h, w) the noisy latents that the last shared evaluation saw.
        output: (n, c, h, w) what it said, guidance applied.
    """

    clean: torch.Tensor
    sample: torch.Tensor
    output: torch.Tensor


def require_one_step_sampler(pipeline: Any, where: str) -> None:
    """Raise SuiteError unless a step of the pipeline's scheduler depends on nothing before it."""
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise SuiteError(
            f"{where}: a look at the first evaluations is for Stable Diffusion 1 and 2: a {type(pipeline).__name__} "
            "decodes and conditions in other ways"
        )
    scheduler = pipeline.scheduler
    if type(scheduler).__name__ != "DPMSolverMultistepScheduler" or scheduler.config.solver_order != 1:
        raise SuiteError(
            f"{where}: the schedule is set while the image is drawn, which needs a first-order deterministic sampler "
            "that takes timesteps: scheduler = 'DPMSolverMultistepScheduler', scheduler_args = {solver_order = 1}, "
            f"which is DDIM, and not {type(scheduler).__name__}"
        )


def glimpse(
    generator: DiffusersGenerator, encoded: dict[str, Any], prompts: Sequence[str], seeds: Sequence[int], shared: int
) -> Glimpse:
    """The shared evaluations. encoded: of `DiffusersGenerator.encode`."""
    scheduler = generator.pipeline.scheduler
    seen: dict[str, torch.Tensor] = {}
    step = scheduler.step

    def watched(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
        seen["output"], seen["sample"] = model_output, sample
        return step(model_output, timestep, sample, **kwargs)

    times = shared_schedule(shared, shared, scheduler.config.num_train_timesteps)
    arguments = _arguments(generator, encoded, prompts, seeds) | {"timesteps": times, "output_type": "latent"}
    scheduler.step = watched
    try:
        # a schedule that ends here steps to the clean latent that is predicted here
        clean = generator.pipeline(**arguments).images
    finally:
        del scheduler.step
    return Glimpse(clean=clean, sample=seen["sample"], output=seen["output"])


def go_on(
    generator: DiffusersGenerator,
    encoded: dict[str, Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    seen: Glimpse,
    steps: int,
    shared: int,
) -> Images:
    """The rest of the schedule of `steps` evaluations, from what was seen. -> (n, h, w, 3) uint8."""
    pipeline = generator.pipeline
    scheduler = pipeline.scheduler
    times = shared_schedule(steps, shared, scheduler.config.num_train_timesteps)
    if steps == shared:
        return generator.as_uint8(_decoded(pipeline, seen.clean))
    scheduler.set_timesteps(timesteps=times, device=pipeline.device)
    # the last shared step again, now to the next timestep of this schedule: arithmetic, not an evaluation
    latents = scheduler.step(seen.output, scheduler.timesteps[shared - 1], seen.sample).prev_sample
    arguments = _arguments(generator, encoded, prompts, seeds) | {"timesteps": times[shared:], "latents": latents}
    return generator.call(arguments)


def draw_shared(
    generator: DiffusersGenerator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    shared: int,
    encoded: dict[str, Any] | None = None,
) -> Images:
    """The same schedule without a look, in one pipeline call. -> (n, h, w, 3) uint8. encoded: what was read already."""
    times = shared_schedule(steps, shared, generator.pipeline.scheduler.config.num_train_timesteps)
    if encoded is not None:
        return generator.call(_arguments(generator, encoded, prompts, seeds) | {"timesteps": times})
    arguments = generator.call_arguments(prompts, seeds, steps)
    del arguments["num_inference_steps"]
    return generator.call(arguments | {"timesteps": times})


def _arguments(
    generator: DiffusersGenerator, encoded: dict[str, Any], prompts: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    arguments = generator.call_arguments(prompts, seeds, 1)
    for key in ("prompt", "negative_prompt", "num_inference_steps"):
        arguments.pop(key, None)
    return arguments | encoded


@torch.no_grad()
def _decoded(pipeline: Any, latents: torch.Tensor) -> Any:
    """The pipeline's own last lines: decode and denormalise. -> (n, h, w, 3) in 0..1."""
    pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    return pipeline.image_processor.postprocess(pixels, output_type="np", do_denormalize=[True] * len(latents))
