"""Generates Python code that makes a variant's images with diffusers alone, equal to those of perjoule."""

from __future__ import annotations

from perjoule import registry
from perjoule.errors import PerjouleError
from perjoule.suite.timesteps import sampler_of, timesteps_of
from perjoule.types import Cell, Variant
from perjoule.weights.catalogue import revision_of
from perjoule.weights.models import resolve_model


def diffusers_code(variant: Variant, steps: float | None, *, portable: bool = False) -> str:
    """Return Python code that makes the images of a variant.

    Args:
        variant: The variant.
        steps: Step count; None leaves it to the variant's policy.
        portable: Resolve `builtin:NAME` when the code runs, so that it does not contain a folder of this machine.
    """
    later = portable and variant.model.startswith("builtin:")
    model = variant.model if later else resolve_model(variant.model, "recommend")
    settings = [f"resolve_model({model!r}, 'here')" if later else repr(model), f"dtype=torch.{variant.dtype}"]
    scheduler, scheduler_args = sampler_of(variant)
    names = ["DiffusionPipeline", *([scheduler] if scheduler else [])]
    lines = ["import torch", f"from diffusers import {', '.join(names)}"]
    lines += ["from perjoule.weights.models import resolve_model", ""] if later else [""]
    revision = variant.revision or revision_of(model)
    if variant.denoiser:
        lines += _denoiser_lines(variant, model, revision)
        settings.append("unet=unet")
    if revision:
        settings.append(f"revision={revision!r}")
    if variant.file_variant:
        settings.append(f"variant={variant.file_variant!r}")
    if not variant.safety_checker:
        settings.append("safety_checker=None")
    lines.append(f"pipe = DiffusionPipeline.from_pretrained({', '.join(settings)})")
    if variant.lora:
        lines += _lora_lines(variant)
    if scheduler or scheduler_args:
        kind = scheduler or "type(pipe.scheduler)"
        extra = "".join(f", {k}={v!r}" for k, v in scheduler_args.items())
        lines.append(f"pipe.scheduler = {kind}.from_config(pipe.scheduler.config{extra})")
    lines.append('pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")')
    around = _runtime_lines(variant, lines)
    arguments = ["prompt"]
    if steps is None:
        lines.append(f"steps = ...  # the choice of policy {variant.policy!r} for this prompt")
        if variant.schedule:
            lines.append("from perjoule.suite.timesteps import short_first")
        arguments.append("timesteps=short_first(steps)" if variant.schedule else "num_inference_steps=steps")
    elif timesteps := timesteps_of(variant, round(steps)):
        arguments.append(f"timesteps={timesteps}")
    else:
        arguments.append(f"num_inference_steps={round(steps)}")
    arguments.append(f"guidance_scale={variant.guidance}")
    if variant.guidance_share < 1:
        lines.append("from perjoule_suites.guidance import guided_share")
        arguments.append(f"**guided_share(pipe, {variant.guidance_share})")
    if variant.negative_prompt:
        arguments.append(f"negative_prompt={variant.negative_prompt!r}")
    for key in ("width", "height"):
        if size := getattr(variant, f"{key}_px"):
            arguments.append(f"{key}={size}")
    arguments += [f"{key}={value!r}" for key, value in variant.call_args.items()]
    call = f"image = pipe({', '.join(arguments)}).images[0]"
    lines += [f"with {', '.join(around)}:", f"    {call}"] if around else [call]
    return "\n".join(lines)


def policy_code(cell: Cell) -> str | None:
    """Return the code of a step policy that chooses more than steps, e.g. a model; None if it has none of its own."""
    if cell.level is None:
        return None
    try:
        factory = registry.load("policies", cell.variant.policy, kind="step policy")
        if getattr(factory, "chooses_only_steps", False):  # making it would import torch
            return None
        policy = factory(cell, where=cell.cell_id)
        return str(policy.code()) if hasattr(policy, "code") else None
    except PerjouleError:  # e.g. its files were moved after the run
        return None


def _denoiser_lines(variant: Variant, model: str, revision: str | None) -> list[str]:
    """Return code for a UNet from one file, with the model's configuration or its own."""
    part = variant.denoiser
    assert part is not None
    own = f'config="{part.config}"' if part.config else ""
    at = part.revision or revision_of(part.model)
    pin = f", revision={at!r}" if at else ""
    base = f", revision={revision!r}" if revision else ""
    config = f"{part.model!r}{pin}" if own else f"{model!r}, subfolder='unet'{base}"
    file = f"hf_hub_download({part.model!r}, {part.file!r}{pin})"
    state = f"torch.load({file}, map_location='cpu', weights_only=True)"
    if part.file.endswith(".safetensors"):
        state = f"load_file({file})"
    return [
        "from diffusers import UNet2DConditionModel",
        "from huggingface_hub import hf_hub_download",
        "from safetensors.torch import load_file",
        "",
        f"unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config({config}))",
        f"unet.load_state_dict({state})",
        f"unet = unet.to(torch.{variant.dtype}).eval()",
    ]


def _lora_lines(variant: Variant) -> list[str]:
    part = variant.lora
    assert part is not None
    at = part.revision or revision_of(part.model)
    pin = f", revision={at!r}" if at else ""
    load = f"pipe.load_lora_weights({part.model!r}, weight_name={part.file!r}, adapter_name='lora'{pin})"
    if part.fuse:
        return [load, f"pipe.fuse_lora(lora_scale={part.scale})", "pipe.unload_lora_weights()"]
    return [load, f"pipe.set_adapters(['lora'], [{part.scale}])"]


def _runtime_lines(variant: Variant, lines: list[str]) -> list[str]:
    """Add code that changes the loaded pipeline; return the contexts of the call."""
    runtime, network = variant.runtime, "getattr(pipe, 'unet', None) or pipe.transformer"
    around = []
    if variant.cache:
        lines += [
            "from perjoule.types import Cache",
            "from perjoule_suites.reuse import enable_reuse, fresh",
            f"network = {network}",
            f"enable_reuse(pipe, network, Cache(kind={variant.cache.kind!r}, args={variant.cache.args!r}), 'cache')",
        ]
        around.append("fresh(network)")
    if runtime.channels_last:
        lines += [
            f"({network}).to(memory_format=torch.channels_last)",
            "pipe.vae.to(memory_format=torch.channels_last)",
        ]
    lines += [f"pipe.vae.enable_{kind}()" for kind in ("tiling", "slicing") if getattr(runtime, f"vae_{kind}")]
    if runtime.compile:
        lines += [f"network = {network}", f"network.forward = torch.compile(network.forward, mode={runtime.compile!r})"]
    if runtime.attention:
        kernel = {"math": "MATH", "cudnn": "CUDNN_ATTENTION"}.get(
            runtime.attention, f"{runtime.attention.upper()}_ATTENTION"
        )
        lines += [
            "from torch.nn.attention import SDPBackend, sdpa_kernel",
            f"network = {network}",
            f"network.forward = sdpa_kernel([SDPBackend.{kernel}])(network.forward)",
        ]
    return around
