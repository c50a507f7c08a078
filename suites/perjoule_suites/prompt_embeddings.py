"""Embeddings of prompts by all text encoders of a pipeline: SD 1 and 2 (one), SDXL (two, pooled), SD3 (three)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

# results of encode_prompt in order; Stable Diffusion 1 and 2 return only the first two
_NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@torch.no_grad()
def encode_prompts(
    pipeline: Any, prompts: Sequence[str], *, guided: bool, negative_prompt: str = "", clip_skip: int | None = None
) -> dict[str, Any]:
    """Return embeddings that the pipeline's call accepts instead of prompts.

    Args:
        pipeline: A diffusers text-to-image pipeline with `encode_prompt`.
        prompts: n prompts.
        guided: Whether classifier-free guidance also needs negative ones.
        negative_prompt: Negative prompt for all prompts.
        clip_skip: Argument of the call.

    Returns:
        `prompt_embeds` (n, tokens, width), if guided `negative_prompt_embeds`, and, if the pipeline has them, the
        pooled ones (n, width).
    """
    known = inspect.signature(pipeline.encode_prompt).parameters
    arguments: dict[str, Any] = {
        "prompt": list(prompts),
        "device": pipeline.device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": guided,
        "negative_prompt": [negative_prompt] * len(prompts) if negative_prompt else None,
    }
    # the second and third encoder get the same prompt
    arguments |= {key: None for key in ("prompt_2", "prompt_3") if key in known}
    if clip_skip is not None:
        arguments["clip_skip"] = clip_skip
    tensors = zip(_NAMES, pipeline.encode_prompt(**arguments), strict=False)
    return {name: tensor for name, tensor in tensors if tensor is not None}
