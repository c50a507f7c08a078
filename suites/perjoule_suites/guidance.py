"""Classifier-free guidance in the first part of the schedule only; the rest runs with half of the evaluations.

    8 calls, share 0.75        1  2  3  4  5  6  7  8
    rows per image             2  2  2  2  2  2  1  1        14 evaluations instead of 16

In the last part guidance changes little (Kynkäänniemi et al., arXiv:2404.07724). diffusers' own `SDCFGCutoffCallback`
keeps the embeddings of the last image only and thus works for one image per call; this one works for any number.
"""

from __future__ import annotations

from typing import Any

from perjoule.forecast.nfe import guided_calls

# tensors with a half for each of both evaluations, as the pipelines name them
_HALVES = ("prompt_embeds", "pooled_prompt_embeds", "add_text_embeds", "add_time_ids")
SUPPORTED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")


def guided_share(pipeline: Any, share: float) -> dict[str, Any]:
    """Return arguments of the pipeline call that end guidance after a share of the denoiser's calls.

    Args:
        pipeline: One of `SUPPORTED`.
        share: Share of the calls with guidance, from the first.
    """
    names = [name for name in _HALVES if name in pipeline._callback_tensor_inputs]

    def after_step(pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index + 1 == guided_calls(pipeline.num_timesteps, share):
            pipeline._guidance_scale = 0.0  # set again by the next call
            tensors |= {name: tensors[name].chunk(2)[1] for name in names}
        return tensors

    return {"callback_on_step_end": after_step, "callback_on_step_end_tensor_inputs": names}
