"""Uses the first evaluations to decide the number of steps, without additional evaluations.

    evaluation      1        2        3        4   …
    3 steps      t = 999     916      458
    6 steps      t = 999     916      733      550   …        k = 2: all schedules share their first two timesteps
                 └── the same for all ──┘
                     predicted clean latent ─► predictor ─► N ─► the rest of schedule N

Every schedule begins at the last timestep, so the first evaluation is shared (k = 1). At zero terminal SNR its input is
pure noise, and it shows little of the effect of the seed. For k = 2 the schedules also share their second timestep:
they are `short_first`, which a variant can also choose for itself (`schedule`). A long first step changes the image; a
short one does not harm schedules of few steps.

The sampler is first order and deterministic (DDIM, as DPM-Solver++ of order 1), so a step does not depend on
earlier steps, and the images are the same as without the decision in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perjoule.errors import SuiteError
from perjoule.protocols import Images
from perjoule.suite.timesteps import short_first, timesteps_of, trailing
from perjoule_suites.diffusers_generator import DiffusersGenerator

MOST_SHARED = 2


def shared_schedule(steps: int, shared: int, train_timesteps: int = 1000) -> list[int]:
    """Return descending timesteps of `steps` evaluations; the first `shared` are the same for every number of steps.

    shared = 1: trailing spacing; shared = 2: `short_first`.

    Raises:
        ValueError: There are fewer steps than `shared`, or `shared` is not 1 or 2.
    """
    if not 1 <= shared <= MOST_SHARED or steps < shared:
        raise ValueError(f"{steps} steps that share {shared}: share 1 or {MOST_SHARED}, and at most all steps")
    return trailing(steps, train_timesteps) if shared == 1 else short_first(steps, train_timesteps)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glimpse:
    """State after the shared evaluations of n images.

    Attributes:
        clean: (n, c, h, w) predicted clean latents.
        sample: (n, c, h, w) noisy latents before the last shared evaluation.
        output: (n, c, h, w) its output, with guidance.
    """

    clean: torch.Tensor
    sample: torch.Tensor
    output: torch.Tensor


def require_one_step_sampler(pipeline: Any, where: str) -> None:
    """Raise SuiteError if a step of the pipeline's scheduler depends on earlier steps."""
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise SuiteError(
            f"{where}: a peek works only with Stable Diffusion 1 and 2, not with {type(pipeline).__name__}, which has "
            "another decoder and conditioning"
        )
    scheduler = pipeline.scheduler
    if type(scheduler).__name__ != "DPMSolverMultistepScheduler" or scheduler.config.solver_order != 1:
        raise SuiteError(
            f"{where}: a peek sets the schedule during generation, which needs a first-order deterministic sampler "
            "with custom timesteps: scheduler = 'DPMSolverMultistepScheduler', scheduler_args = {solver_order = 1}, "
            f"which is DDIM, instead of {type(scheduler).__name__}"
        )


def glimpse(
    generator: DiffusersGenerator, encoded: dict[str, Any], prompts: Sequence[str], seeds: Sequence[int], shared: int
) -> Glimpse:
    """Do the shared evaluations. encoded: result of `DiffusersGenerator.encode`."""
    scheduler = generator.pipeline.scheduler
    last: dict[str, torch.Tensor] = {}
    step = scheduler.step

    def watched(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
        last["output"], last["sample"] = model_output, sample
        return step(model_output, timestep, sample, **kwargs)

    times = _times(generator, shared, shared)
    arguments = _arguments(generator, encoded, prompts, seeds) | {"timesteps": times, "output_type": "latent"}
    scheduler.step = watched
    try:
        # a schedule that ends here returns the clean latent that is predicted here
        clean = generator.pipeline(**arguments).images
    finally:
        del scheduler.step
    return Glimpse(clean=clean, sample=last["sample"], output=last["output"])


def go_on(
    generator: DiffusersGenerator,
    encoded: dict[str, Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    start: Glimpse,
    steps: int,
    shared: int,
) -> Images:
    """Do the rest of the schedule of `steps` evaluations. -> (n, h, w, 3) uint8."""
    pipeline = generator.pipeline
    scheduler = pipeline.scheduler
    times = _times(generator, steps, shared)
    if steps == shared:
        return generator.as_uint8(_decoded(pipeline, start.clean))
    scheduler.set_timesteps(timesteps=times, device=pipeline.device)
    # repeats the last shared step to the next timestep of this schedule, without an evaluation
    latents = scheduler.step(start.output, scheduler.timesteps[shared - 1], start.sample).prev_sample
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
    """Do the same schedule in one pipeline call. -> (n, h, w, 3) uint8. encoded: encoded prompts."""
    times = _times(generator, steps, shared)
    if encoded is not None:
        return generator.call(_arguments(generator, encoded, prompts, seeds) | {"timesteps": times})
    return generator.call(_free(generator.call_arguments(prompts, seeds, steps)) | {"timesteps": times})


def _arguments(
    generator: DiffusersGenerator, encoded: dict[str, Any], prompts: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    arguments = _free(generator.call_arguments(prompts, seeds, 1))
    for key in ("prompt", "negative_prompt"):
        arguments.pop(key, None)
    return arguments | encoded


def _times(generator: DiffusersGenerator, steps: int, shared: int) -> list[int]:
    """Return the variant's own schedule, or else the one with `shared` first timesteps."""
    train_timesteps = generator.pipeline.scheduler.config.num_train_timesteps
    times = shared_schedule(steps, shared, train_timesteps)
    return timesteps_of(generator.variant, steps, train_timesteps) or times


def _free(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call without those that set its schedule."""
    return {key: value for key, value in arguments.items() if key not in ("num_inference_steps", "timesteps")}


@torch.no_grad()
def _decoded(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode and denormalise, like the end of the pipeline's call. -> (n, 3, h, w) in 0..1."""
    pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    images: torch.Tensor = pipeline.image_processor.postprocess(
        pixels, output_type="pt", do_denormalize=[True] * len(latents)
    )
    return images
