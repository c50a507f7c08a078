"""Any diffusers text-to-image pipeline as an `ImageGenerator`.

Nothing is added to the pipeline but hooks that count and time; the images are byte for byte those of a bare call with
the same generators (`perjoule.seeding.image_seed`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from perjoule.digests import digest_folder
from perjoule.errors import SuiteError, UsageError
from perjoule.models import resolve_model
from perjoule.protocols import Generation, Images
from perjoule.seeding import image_seed
from perjoule.types import Variant

_PHASES = {
    "text_encoder": ("text_encoder", "text_encoder_2", "text_encoder_3"),
    "denoise": ("unet", "transformer"),
    "vae_decode": ("vae.decoder",),
}


class PhaseHooks:
    """Counts denoiser evaluations and times the parts of a pipeline by forward hooks on its modules.

    On a GPU the times are between CUDA events, so that they cost no synchronisation inside the window; they are read
    when the call is over.
    """

    def __init__(self, pipeline: Any) -> None:
        self.evaluations = 0
        self._open: dict[str, Any] = {}
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._cuda = pipeline.device.type == "cuda"
        for phase, paths in _PHASES.items():
            for path in paths:
                module = _at(pipeline, path)
                if isinstance(module, nn.Module):
                    module.register_forward_pre_hook(partial(self._enter, phase), with_kwargs=True)
                    module.register_forward_hook(partial(self._leave, phase))

    def take(self) -> tuple[int, dict[str, float]]:
        """Denoiser evaluations (batch rows: guidance counts twice) and seconds by phase since the last take."""
        evaluations, self.evaluations = self.evaluations, 0
        seconds = {
            phase: sum(a.elapsed_time(b) / 1e3 if self._cuda else b - a for a, b in spans)
            for phase, spans in self._spans.items()
        }
        self._spans.clear()
        return evaluations, seconds

    def _enter(self, phase: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if phase == "denoise":
            self.evaluations += len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states", ())))
        self._open[phase] = self._now()

    def _leave(self, phase: str, _module: nn.Module, _args: Any, _output: Any) -> None:
        self._spans[phase].append((self._open.pop(phase), self._now()))

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class DiffusersGenerator:
    """A loaded pipeline with the settings of one variant."""

    def __init__(self, pipeline: Any, variant: Variant, digest: str) -> None:
        self._pipeline = pipeline
        self._variant = variant
        self.digest = digest
        self._hooks = PhaseHooks(pipeline)

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline, for step policies that look inside."""
        return self._pipeline

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Read the prompts once: `prompt_embeds` (n, tokens, width) and, with guidance, `negative_prompt_embeds`.

        For pipelines whose `encode_prompt` returns these two (Stable Diffusion 1 and 2 and what derives from them).
        """
        pipeline, variant = self._pipeline, self._variant
        embedded = getattr(pipeline.unet.config, "time_cond_proj_dim", None) is not None
        found, negative = pipeline.encode_prompt(
            list(prompts),
            pipeline.device,
            1,
            variant.guidance > 1 and not embedded,
            negative_prompt=[variant.negative_prompt] * len(prompts) if variant.negative_prompt else None,
        )
        return {"prompt_embeds": found} | ({} if negative is None else {"negative_prompt_embeds": negative})

    def call_arguments(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> dict[str, Any]:
        """The arguments of the pipeline call: what one would write by hand to get the same images."""
        variant = self._variant
        arguments: dict[str, Any] = {
            "prompt": list(prompts),
            "num_inference_steps": steps,
            "guidance_scale": variant.guidance,
            # on the CPU and one for each image: the noise is the same on every device and in every batch
            "generator": [
                torch.Generator("cpu").manual_seed(image_seed(prompt, seed))
                for prompt, seed in zip(prompts, seeds, strict=True)
            ],
            "output_type": "np",
        }
        if variant.negative_prompt:
            arguments["negative_prompt"] = [variant.negative_prompt] * len(prompts)
        if variant.width_px:
            arguments["width"] = variant.width_px
        if variant.height_px:
            arguments["height"] = variant.height_px
        return arguments

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        """Draw one image per prompt and seed."""
        self.take_counts()
        images = self.call(self.call_arguments(prompts, seeds, steps))
        evaluations, seconds = self.take_counts()
        return Generation(
            images=images, nfe_per_image=evaluations / len(images), steps=(steps,) * len(images), phases_s=seconds
        )

    def call(self, arguments: dict[str, Any]) -> Images:
        """One pipeline call. -> (n, h, w, 3) uint8, by the same rounding as diffusers' numpy_to_pil."""
        return np.asarray((np.asarray(self._pipeline(**arguments).images) * 255).round(), np.uint8)

    def take_counts(self) -> tuple[int, dict[str, float]]:
        """Denoiser evaluations and seconds by phase since the last time; waits for the device."""
        self.synchronize()
        return self._hooks.take()

    def synchronize(self) -> None:
        """Wait for the GPU; nothing to wait for on the CPU."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def load(variant: Variant, *, where: str) -> DiffusersGenerator:
    """Load a variant's pipeline onto the GPU if there is one.

    Raises:
        UsageError: If the model is no diffusers pipeline, cannot be had, or its scheduler is not known.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    model = resolve_model(variant.model, f"{where}.model")
    folder = Path(model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UsageError(
            f"{where}.model = {variant.model!r}: this folder is no diffusers pipeline: model_index.json is missing"
        )
    dtype: torch.dtype = getattr(torch, variant.dtype)
    try:
        if not folder.is_dir():
            folder = Path(diffusers.DiffusionPipeline.download(model, revision=variant.revision))
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype)
    except Exception as error:  # hub, file system, JSON, safetensors: each library raises its own
        raise UsageError(f"{where}.model = {variant.model!r} cannot be loaded: {_first_line(error)}") from error
    if variant.scheduler or variant.scheduler_args:
        pipeline.scheduler = _scheduler(diffusers, pipeline, variant, where)
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return DiffusersGenerator(pipeline, variant, digest_folder(folder, ("**/*.safetensors", "**/*.bin")))


def _scheduler(diffusers: Any, pipeline: Any, variant: Variant, where: str) -> Any:
    name = variant.scheduler or type(pipeline.scheduler).__name__
    kind = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "from_config"):
        known = sorted({c.__name__ for c in pipeline.scheduler.compatibles} | {type(pipeline.scheduler).__name__})
        raise SuiteError(f"{where}.scheduler = {name!r}: no scheduler of diffusers; these fit: {', '.join(known)}")
    known_args = set(pipeline.scheduler.config) | set(_parameters(kind.__init__))
    for key in variant.scheduler_args:
        if key not in known_args:
            raise SuiteError(
                f"{where}.scheduler_args.{key}: {name} has no such setting: {', '.join(_parameters(kind.__init__))}"
            )
    return kind.from_config(pipeline.scheduler.config, **variant.scheduler_args)


def _parameters(function: Callable[..., Any]) -> list[str]:
    import inspect

    return [name for name in inspect.signature(function).parameters if name not in ("self", "kwargs")]


def _at(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = getattr(root, part, None)
    return root


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
