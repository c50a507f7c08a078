"""Counts the work of a variant from the configurations of its networks, without weights and without drawing.

    images of a call ─► text encoders ─► denoiser × evaluations ─► decoder
                        (twice if guided)  (twice the rows in guided calls)

Only pipelines of Stable Diffusion and SDXL: which tensors the networks of other pipelines get is known only by running
them. A test compares the counts with those of real calls.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from perjoule.errors import UsageError
from perjoule.forecast.nfe import evaluations, guided_calls
from perjoule.suite.timesteps import sampler_of
from perjoule.types import Variant, Work
from perjoule.weights.settings import settings_problem
from perjoule.work.counter import WorkCounter, total_work
from perjoule.work.shapes import shapes_only
from perjoule_suites import hub

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline")
_TOKENS = 77


def call_work(variant: Variant, images: int, steps: int, where: str) -> Work | str:
    """Return the work of one pipeline call, or the reason why it cannot be counted.

    Args:
        variant: The variant.
        images: Images of the call.
        steps: `num_inference_steps`.
        where: Suite file and key, for messages.
    """
    if reason := _unusual(variant):
        return f"the work of {reason} is known only by running it"
    try:
        folder, _ = hub.local_folder(variant, where)
        if folder is None:
            return f"{variant.model} is not downloaded yet, so its networks are not known"
        index = hub.read_index(folder, variant.model, f"{where}.model")
    except UsageError as error:
        return str(error)
    if index["_class_name"] not in _PIPELINES:
        return f"the networks of {index['_class_name']} are counted only by running them"
    try:
        return _count(folder, index, variant, images, steps)
    except Exception as error:  # foreign configurations may contain anything
        return f"the networks in {folder} cannot be counted from their configurations: {type(error).__name__}: {error}"


def _unusual(variant: Variant) -> str:
    settings = {
        "a cache between steps": variant.cache is not None,
        "an adapter": variant.lora is not None,
        "another denoiser": variant.denoiser is not None,
        "a safety checker": variant.safety_checker,
        "tiles or slices of the decoder": variant.runtime.vae_tiling or variant.runtime.vae_slicing,
        "further arguments of the call": bool(variant.call_args),
    }
    return " and ".join(name for name, used in settings.items() if used)


def _count(folder: Path, index: dict[str, Any], variant: Variant, images: int, steps: int) -> Work:
    encoders = [name for name, _, _ in hub.components(index) if name.startswith("text_encoder")]
    for name in ("unet", "vae", *encoders):
        if problem := settings_problem(folder / name):
            raise UsageError(problem)
    configs = {name: _config(folder, name) for name in ("unet", "vae")}
    embedded = configs["unet"].get("time_cond_proj_dim") is not None
    rows = 2 if variant.guidance > 1 and not embedded else 1
    scale = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    own = configs["unet"]["sample_size"]
    height, width = ((px // scale if px else own) for px in (variant.height_px, variant.width_px))
    is_xl = index["_class_name"] == "StableDiffusionXLPipeline"
    # SDXL's decoder overflows in half precision, so that its pipeline computes it in single
    upcast = is_xl and variant.dtype == "float16" and configs["vae"].get("force_upcast", False)
    # SDXL takes zeros for an empty negative prompt
    zeros = is_xl and not variant.negative_prompt and index.get("force_zeros_for_empty_prompt", True)
    texts = [(_text(folder, name, index[name][1], images, variant.dtype), 1 if zeros else rows) for name in encoders]
    decoder = _decoder(folder, images, height, width, "float32" if upcast else variant.dtype)
    scheduler, scheduler_args = sampler_of(variant)
    calls = evaluations(scheduler or index["scheduler"][1], steps, scheduler_args)
    guided = guided_calls(calls, variant.guidance_share) if rows == 2 else calls
    denoiser = [
        (_denoiser(folder, is_xl, images * each, height, width, variant.dtype), count)
        for each, count in ((rows, guided), (1, calls - guided))
        if count
    ]
    # no device computed
    return replace(total_work([*texts, *denoiser, (decoder, 1)]), devices=("meta",))


def _config(folder: Path, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    return config


def _work(counter: WorkCounter) -> Work:
    if counter.work is None:
        raise ValueError(counter.reason)
    return counter.work


@cache
def _text(folder: Path, name: str, kind: str, rows: int, dtype: str) -> Work:
    import torch
    import transformers

    config = transformers.CLIPTextConfig.from_pretrained(folder / name, local_files_only=True)
    config.dtype = getattr(torch, dtype)  # the file may state that of its weights
    tokens = min(_TOKENS, config.max_position_embeddings)
    with shapes_only(dtype), WorkCounter(count_new=True) as counter:
        network = getattr(transformers, kind)(config).eval()
        network(torch.zeros(rows, tokens, dtype=torch.int64), output_hidden_states=kind.endswith("WithProjection"))
    return _work(counter)


@cache
def _denoiser(folder: Path, is_xl: bool, rows: int, height: int, width: int, dtype: str) -> Work:
    import torch
    from diffusers import UNet2DConditionModel

    config = _config(folder, "unet")
    with shapes_only(dtype), WorkCounter(count_new=True) as counter:
        network = UNet2DConditionModel.from_config(config).eval()
        arguments: dict[str, Any] = {}
        if (width_of_scale := config.get("time_cond_proj_dim")) is not None:
            arguments["timestep_cond"] = torch.empty(rows, width_of_scale)
        if is_xl:
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            arguments["added_cond_kwargs"] = {
                "text_embeds": torch.empty(rows, pooled),
                "time_ids": torch.empty(rows, 6),
            }
        text = torch.empty(rows, _tokens_of(folder), config["cross_attention_dim"])
        latents = torch.empty(rows, config["in_channels"], height, width)
        network(latents, torch.zeros((), dtype=torch.int64), text, **arguments)
    return _work(counter)


def _tokens_of(folder: Path) -> int:
    return min(_TOKENS, int(_config(folder, "text_encoder").get("max_position_embeddings", _TOKENS)))


@cache
def _decoder(folder: Path, rows: int, height: int, width: int, dtype: str) -> Work:
    import torch
    from diffusers import AutoencoderKL

    config = _config(folder, "vae")
    with shapes_only(dtype), WorkCounter(count_new=True) as counter:
        vae = AutoencoderKL.from_config(config).eval()
        latents = torch.empty(rows, config["latent_channels"], height, width)
        if vae.post_quant_conv is not None:
            latents = vae.post_quant_conv(latents)
        vae.decoder(latents)
    return _work(counter)
