from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from perjoule.errors import PerjouleError
from perjoule.seeding import image_seed
from perjoule.types import Variant
from perjoule_suites.diffusers_generator import load
from perjoule_suites.tiny import sd_tiny

TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=(3,), guidance=3.0)
PROMPTS = ["a large red circle on a white ground", "a blue star above a pink ring on a grey ground"]


def bare(prompts: list[str], seeds: list[int], steps: int, guidance: float = 3.0) -> np.ndarray:
    """What one would write by hand."""
    pipe = StableDiffusionPipeline.from_pretrained(sd_tiny(), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(image_seed(p, s)) for p, s in zip(prompts, seeds, strict=True)]
    pictures = pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators).images
    return np.stack([np.asarray(picture) for picture in pictures])


def test_images_are_those_of_bare_diffusers() -> None:
    found = load(TINY, where="s").generate(PROMPTS, [1, 2], 3)
    assert found.images.dtype == np.uint8
    assert np.array_equal(found.images, bare(PROMPTS, [1, 2], 3))


@pytest.mark.parametrize(
    ("guidance", "scheduler", "evaluations"),
    [
        (3.0, "", 2 * 4),
        (1.0, "", 4),
        (3.0, "DPMSolverMultistepScheduler", 2 * 4),
        (3.0, "EulerDiscreteScheduler", 2 * 4),
        (3.0, "UniPCMultistepScheduler", 2 * 4),
        (3.0, "HeunDiscreteScheduler", 2 * 7),  # two evaluations a step but for the last
        (3.0, "PNDMScheduler", 2 * 5),  # one more than asked for
    ],
)
def test_evaluations_are_counted_not_believed(guidance: float, scheduler: str, evaluations: int) -> None:
    settings = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    variant = replace(TINY, guidance=guidance, scheduler=scheduler, scheduler_args=settings)
    found = load(variant, where="s").generate(PROMPTS, [1, 1], 4)
    assert found.nfe_per_image == evaluations
    assert set(found.phases_s) == {"text_encoder", "denoise", "vae_decode"}
    assert all(seconds > 0 for seconds in found.phases_s.values())


def test_an_image_does_not_depend_on_its_batch() -> None:
    generator = load(TINY, where="s")
    together = generator.generate(PROMPTS, [5, 6], 4).images.astype(int)
    alone = generator.generate(PROMPTS[1:], [6], 4).images[0].astype(int)
    # kernels differ with the batch by parts in a million, which may turn the last bit of a pixel
    assert np.abs(together[1] - alone).max() <= 1


def test_noise_is_the_same_for_all_step_counts_and_differs_by_prompt_and_seed() -> None:
    seeds = {image_seed(p, s) for p in PROMPTS for s in (1, 2)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    arguments = [load(TINY, where="s").call_arguments(PROMPTS, [1, 1], steps)["generator"] for steps in (1, 50)]
    first, second = ([torch.randn(4, generator=g) for g in generators] for generators in arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_scheduler_settings_reach_the_scheduler() -> None:
    variant = replace(TINY, scheduler="EulerDiscreteScheduler", scheduler_args={"timestep_spacing": "linspace"})
    scheduler = load(variant, where="s")._pipeline.scheduler
    assert type(scheduler).__name__ == "EulerDiscreteScheduler"
    assert scheduler.config.timestep_spacing == "linspace"
    assert (
        scheduler.config.prediction_type
        == DDIMScheduler.from_pretrained(sd_tiny(), subfolder="scheduler").config.prediction_type
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "builtin:nothing"}, "s.model"),
        ({"scheduler": "EulerScheduler"}, "s.scheduler = 'EulerScheduler'"),
        ({"scheduler_args": {"timestep_spcing": "x"}}, "s.scheduler_args.timestep_spcing"),
        ({"model": "someone/not-there"}, "s.model = 'someone/not-there' cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(PerjouleError) as caught:
        load(replace(TINY, **change), where="s")  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_damaged_pipeline_is_named(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(sd_tiny(), tmp_path / "broken")
    weights = tmp_path / "broken" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PerjouleError, match="cannot be loaded"):
        load(replace(TINY, model=str(tmp_path / "broken")), where="s")


def test_digest_is_of_the_weights(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(sd_tiny(), tmp_path / "copy")
    original = load(TINY, where="s").digest
    assert load(replace(TINY, model=str(tmp_path / "copy")), where="s").digest == original
