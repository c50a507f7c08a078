"""Builds the diffusers pipeline of a variant: weights, adapter, scheduler, reuse between steps, runtime.

Each setting follows its authors' model card or diffusers' documentation. A setting that a model does not support is
not ignored, but raises a `SuiteError`.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from perjoule.errors import SuiteError, UsageError, first_line, install_command
from perjoule.suite.timesteps import sampler_of
from perjoule.types import Variant
from perjoule.weights.settings import file_problem
from perjoule_suites import hub
from perjoule_suites.examine import model_problems
from perjoule_suites.faults import broken_file, explain, quiet, size_words
from perjoule_suites.guidance import SUPPORTED
from perjoule_suites.reuse import enable_reuse
from perjoule_suites.schedules import make_scheduler, parameters

# arguments of a pipeline call that have their own key, or that perjoule sets
_RESERVED = frozenset(
    {
        "self", "prompt", "prompt_2", "prompt_3", "negative_prompt", "height", "width", "num_inference_steps",
        "timesteps", "sigmas", "guidance_scale", "generator", "latents", "num_images_per_prompt", "output_type",
        "return_dict", "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    }
)  # fmt: skip

_KERNELS = {
    "math": "MATH",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
}


def assemble(variant: Variant, where: str) -> tuple[Any, list[hub.Source]]:
    """Load a variant's pipeline onto the GPU if there is one; return it with the source of its weights.

    Raises:
        UsageError: Weights could not be downloaded.
        SuiteError: A setting does not fit the model.
    """
    import diffusers

    quiet()
    if torch.cuda.is_available():
        gc.collect()  # pipelines contain reference cycles, and two large ones seldom fit
        torch.cuda.empty_cache()
    source, index = hub.fetch_pipeline(variant, where)
    problems = list(model_problems(source.folder, index, variant, where))
    if problems:
        raise SuiteError("\n".join(problems))
    sources = [source]
    dtype: torch.dtype = getattr(torch, variant.dtype)
    parts: dict[str, Any] = {}
    if "safety_checker" in index and not variant.safety_checker:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    if variant.denoiser:
        sources.append(hub.fetch_file(variant.denoiser, f"{where}.denoiser"))
        config = source.folder / hub.denoiser_name(index) / "config.json"
        if variant.denoiser.config:
            config = sources[-1].folder / variant.denoiser.config
        kind = getattr(diffusers, index[hub.denoiser_name(index)][1])
        parts[hub.denoiser_name(index)] = _denoiser(kind, config, sources[-1], dtype, where)
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            source.folder,
            dtype=dtype,
            variant=variant.file_variant or None,
            use_safetensors=None if variant.pickled_weights else True,
            trust_remote_code=False,
            local_files_only=True,
            **parts,
        )
    except Exception as error:  # file system, JSON, safetensors and diffusers raise many types
        raise _unloadable(error, source, f"{where}.model") from error
    if variant.lora:
        sources.append(hub.fetch_file(variant.lora, f"{where}.lora"))
        _add_lora(pipeline, variant, sources[-1], where)
    _check_call(pipeline, variant, where)
    if any(sampler_of(variant)):
        pipeline.scheduler = make_scheduler(pipeline.scheduler, variant, where)
    _check_guidance(pipeline, variant, where)
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline = pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{where}.model = {variant.model!r} does not fit the GPU: {first_line(error)}") from error
    _set_runtime(pipeline, variant, where)
    return pipeline, sources


def denoiser_of(pipeline: Any) -> Any:
    """Return the UNet or transformer of a pipeline."""
    return getattr(pipeline, "unet", None) or pipeline.transformer


def takes_guidance_embedding(pipeline: Any) -> bool:
    """Return whether the guidance scale is an input of the denoiser, which then runs only once per step."""
    config = denoiser_of(pipeline).config
    return getattr(config, "time_cond_proj_dim", None) is not None or bool(getattr(config, "guidance_embeds", False))


def _denoiser(kind: Any, config: Path, source: hub.Source, dtype: torch.dtype, where: str) -> Any:
    """Load a network from one file of weights, as on the cards of SDXL-Lightning, Hyper-SD, DMD2 and LCM-SDXL."""
    from safetensors.torch import load_file

    (path,) = source.files.values()
    if problem := file_problem(config):
        raise UsageError(f"{where}.denoiser: {problem}")
    try:
        with torch.device("meta"):  # without initialising weights that are replaced
            network = kind.from_config(kind.load_config(config))
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        network.load_state_dict(state, assign=True)
    except Exception as error:
        if broken_file(source.files.values()):
            raise _unloadable(error, source, f"{where}.denoiser.file") from error
        raise UsageError(
            f"{where}.denoiser.file = {path.name!r}: these weights do not fit the {kind.__name__} of {config}: "
            f"{first_line(error)}"
        ) from error
    return network.to(dtype).eval()


def _add_lora(pipeline: Any, variant: Variant, source: hub.Source, where: str) -> None:
    lora = variant.lora
    assert lora is not None
    if not hasattr(pipeline, "load_lora_weights"):
        raise SuiteError(f"{where}.lora: {type(pipeline).__name__} does not support adapters")
    try:
        pipeline.load_lora_weights(str(source.folder), weight_name=lora.file, adapter_name="perjoule")
    except Exception as error:
        if "PEFT" in str(error):
            raise UsageError(f"{where}.lora: an adapter needs the package peft: {install_command('peft')}") from error
        raise _unloadable(error, source, f"{where}.lora.file") from error
    if not pipeline.get_active_adapters():
        raise SuiteError(f"{where}.lora.file = {lora.file!r}: no weight in it fits {type(pipeline).__name__}")
    if lora.fuse:
        pipeline.fuse_lora(lora_scale=lora.scale)
        pipeline.unload_lora_weights()
    else:
        pipeline.set_adapters(["perjoule"], [lora.scale])


def _check_call(pipeline: Any, variant: Variant, where: str) -> None:
    known = parameters(type(pipeline).__call__)
    for key in variant.call_args:
        if key in _RESERVED:
            raise SuiteError(f"{where}.call_args.{key}: perjoule sets this argument; use the variant's own key for it")
        if key not in known:
            free = ", ".join(name for name in known if name not in _RESERVED)
            raise SuiteError(f"{where}.call_args.{key}: {type(pipeline).__name__} has no such argument: {free}")
    if variant.negative_prompt and "negative_prompt" not in known:
        raise SuiteError(f"{where}.negative_prompt: {type(pipeline).__name__} does not support one")


def _check_guidance(pipeline: Any, variant: Variant, where: str) -> None:
    by_scale = "classifier-free" if variant.guidance > 1 else "none"
    mode = "embedded" if takes_guidance_embedding(pipeline) else by_scale
    if variant.guidance_mode not in ("auto", mode):
        raise SuiteError(
            f"{where}.guidance_mode = {variant.guidance_mode!r}: with guidance = {variant.guidance}, this model's is "
            f"{mode!r}"
        )
    if variant.guidance_share < 1 and (mode != "classifier-free" or type(pipeline).__name__ not in SUPPORTED):
        raise SuiteError(
            f"{where}.guidance_share = {variant.guidance_share}: only for classifier-free guidance of "
            f"{', '.join(SUPPORTED)}, not for {mode!r} of {type(pipeline).__name__}: remove the key"
        )


def _set_runtime(pipeline: Any, variant: Variant, where: str) -> None:
    runtime, network = variant.runtime, denoiser_of(pipeline)
    if variant.cache:
        enable_reuse(pipeline, network, variant.cache, f"{where}.cache")
    if runtime.channels_last:
        network.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if runtime.vae_tiling:
        pipeline.vae.enable_tiling()
    if runtime.vae_slicing:
        pipeline.vae.enable_slicing()
    if runtime.compile:
        # the function and not the module, so that the hooks that count and time stay outside the graph
        network.forward = torch.compile(network.forward, mode=runtime.compile)
    if runtime.attention:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # not of the whole pipeline: the VAE has one head of 512 channels, and text encoders have masks, which some
        # kernels do not support
        network.forward = sdpa_kernel([getattr(SDPBackend, _KERNELS[runtime.attention])])(network.forward)


def _unloadable(error: Exception, source: hub.Source, where: str) -> UsageError:
    broken = broken_file(source.files.values())
    if broken is None:
        return explain(error, source.model, where)
    remedy = "run again to download it again" if source.revision else "copy or download it again"
    return UsageError(
        f"{where} = {source.model!r} cannot be loaded: {_shown(broken, source.folder)} is cut short or not a "
        f"safetensors file ({size_words(broken)}): delete {hub.to_delete(broken)} and {remedy}"
    )


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
