"""`ImageGenerator` for diffusers text-to-image pipelines.

Only hooks for counting and timing are added to the pipeline; the images are byte for byte those of a plain call with
the same generators (`perjoule.suite.seeding.image_seed`) on the same machine, in the same batch and with the same
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from perjoule.protocols import Generation, Images
from perjoule.suite.seeding import image_seed
from perjoule.suite.timesteps import timesteps_of
from perjoule.types import Examination, PromptFindings, Sampling, Variant, Work
from perjoule.weights.digests import digest_file, digest_named
from perjoule_suites.assembly import assemble, denoiser_of, takes_guidance_embedding
from perjoule_suites.counting import call_work
from perjoule_suites.examine import examine, prompt_findings, samplings
from perjoule_suites.guidance import guided_share
from perjoule_suites.hub import Source
from perjoule_suites.phases import PhaseHooks
from perjoule_suites.prompt_embeddings import encode_prompts
from perjoule_suites.reuse import fresh


class DiffusersGenerator:
    """A loaded pipeline with the settings of one variant."""

    def __init__(self, pipeline: Any, variant: Variant, sources: Sequence[Source]) -> None:
        """Store a pipeline created by `assemble`."""
        self._pipeline = pipeline
        self._variant = variant
        self._sources = tuple(sources)
        self._hooks = PhaseHooks(pipeline)

    @property
    def digest(self) -> str:
        """SHA-256 of the weight files: those of the pipeline by name, others by `model/name`."""
        base, *others = self._sources
        more = {f"{source.model}/{name}": path for source in others for name, path in source.files.items()}
        return digest_named(base.files | more)

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """For each model: the hub's commit (None for a folder) and the SHA-256 of each weight file."""
        return {
            source.model: {
                "revision": source.revision,
                "files": {name: digest_file(path) for name, path in source.files.items()},
            }
            for source in self._sources
        }

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline, for step policies that use its parts."""
        return self._pipeline

    @property
    def variant(self) -> Variant:
        """The settings."""
        return self._variant

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Encode the prompts once, with all text encoders; return embeddings for the pipeline call.

        `prompt_embeds` (n, tokens, width), with classifier-free guidance `negative_prompt_embeds`, and for SDXL and SD3
        also the pooled ones (n, width).
        """
        pipeline, variant = self._pipeline, self._variant
        return encode_prompts(
            pipeline,
            prompts,
            guided=variant.guidance > 1 and not takes_guidance_embedding(pipeline),
            negative_prompt=variant.negative_prompt,
            clip_skip=variant.call_args.get("clip_skip"),
        )

    def call_arguments(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> dict[str, Any]:
        """Return the arguments of the pipeline call, with which a plain call gives the same images."""
        variant = self._variant
        arguments: dict[str, Any] = {
            "prompt": list(prompts),
            "guidance_scale": variant.guidance,
            # on the CPU and one per image, so that the noise is the same on every device and in every batch
            "generator": [
                torch.Generator("cpu").manual_seed(image_seed(prompt, seed))
                for prompt, seed in zip(prompts, seeds, strict=True)
            ],
            "output_type": "np",
            **variant.call_args,
        }
        if timesteps := timesteps_of(variant, steps):
            arguments["timesteps"] = timesteps
        else:
            arguments["num_inference_steps"] = steps
        if variant.guidance_share < 1:
            arguments |= guided_share(self._pipeline, variant.guidance_share)
        if variant.negative_prompt:
            arguments["negative_prompt"] = [variant.negative_prompt] * len(prompts)
        if variant.width_px:
            arguments["width"] = variant.width_px
        if variant.height_px:
            arguments["height"] = variant.height_px
        return arguments

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        """Generate one image per prompt and seed."""
        self.take_counts()
        images = self.call(self.call_arguments(prompts, seeds, steps))
        evaluations, seconds = self.take_counts()
        return Generation(
            images=images, nfe_per_image=evaluations / len(images), steps=(steps,) * len(images), phases_s=seconds
        )

    def call(self, arguments: dict[str, Any]) -> Images:
        """Do one pipeline call. -> (n, h, w, 3) uint8, with the rounding of diffusers' numpy_to_pil.

        Raises:
            FloatingPointError: If latents or images contain NaN or infinite values.
        """
        fresh_cache = fresh(denoiser_of(self._pipeline)) if self._variant.cache else nullcontext()
        with fresh_cache:
            # as tensors, which stay on the device until they are small
            images = self._pipeline(**arguments | {"output_type": "pt"}).images
        return self.as_uint8(images)

    def as_uint8(self, pictures: torch.Tensor) -> Images:
        """Round images in 0..1 (n, 3, h, w) to uint8 (n, h, w, 3) on their device.

        Raises:
            FloatingPointError: If they, or input or output of the VAE since the last call, are NaN or infinite.
        """
        odd = self._hooks.take_not_finite()
        finite = torch.isfinite(pictures).flatten(1).all(dim=1)
        if count := int((~finite).sum()):
            odd.append(f"{count} of {len(pictures)} images")
        if odd:
            dtype = self._variant.dtype
            remedy = "" if dtype == "float32" else f"; dtype = {dtype!r} may overflow: try bfloat16 or float32"
            raise FloatingPointError(f"NaN or infinite values in {' and in '.join(odd)}{remedy}")
        # in the order of diffusers' pt_to_numpy and numpy_to_pil, whose bytes these are
        rounded = (pictures.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8)
        return np.ascontiguousarray(rounded.cpu().numpy())

    def read_prompts(self, prompts: Sequence[str]) -> PromptFindings:
        """Return parts of prompts without effect: ends that a text encoder cuts, a negative prompt without guidance."""
        components: dict[str, Any] = self._pipeline.components
        tokenizers = {k: v for k, v in components.items() if k.startswith("tokenizer") and v is not None}
        embedded = takes_guidance_embedding(self._pipeline)
        return prompt_findings(tokenizers, type(self._pipeline), self._variant, prompts, embedded=embedded)

    def timed(self, phase: str) -> AbstractContextManager[None]:
        """Time the code inside as a separate phase, for `take_counts`."""
        return self._hooks.span(phase)

    def take_counts(self) -> tuple[int, dict[str, float]]:
        """Return denoiser evaluations and seconds by phase since the last call; waits for the device."""
        self.synchronize()
        return self._hooks.take()

    def synchronize(self) -> None:
        """Wait for the GPU; do nothing on the CPU."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()


class DiffusersFactory:
    """Loads variants, and examines their models before."""

    def __call__(self, variant: Variant, *, where: str) -> DiffusersGenerator:
        """Load a variant's pipeline onto the GPU if there is one.

        Raises:
            UsageError: If the model is not a text-to-image pipeline of diffusers or not available, or a setting does
                not fit it.
        """
        pipeline, sources = assemble(variant, where)
        return DiffusersGenerator(pipeline, variant, sources)

    def examine(self, variant: Variant, prompts: Sequence[str], *, where: str) -> Examination:
        """Examine the model's local files without downloading anything or reading weights."""
        return examine(variant, prompts, where)

    def samplings(self, variant: Variant, step_counts: Sequence[int], *, where: str) -> tuple[Sampling, ...] | str:
        """Return how a variant samples at each step count, or the reason why that is not known."""
        return samplings(variant, step_counts, where)

    def call_work(self, variant: Variant, images: int, steps: int, *, where: str) -> Work | str:
        """Return the work of a call by the configurations of the networks, or the reason why it is not known."""
        return call_work(variant, images, steps, where)


load = DiffusersFactory()
