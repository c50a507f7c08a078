"""Guidance in a share of the calls: fewer evaluations, counted, with the images of diffusers' own callback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers.callbacks import SDCFGCutoffCallback

from perjoule.errors import SuiteError
from perjoule.forecast.nfe import guided_calls, nfe_per_image
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.types import Cell, Variant
from perjoule_suites.budgetfusion.policies import budgetfusion_peek
from perjoule_suites.diffusers_generator import DiffusersGenerator, load
from perjoule_suites.schedules import make_scheduler
from perjoule_suites.testing import build

pytestmark = pytest.mark.slow

TINY = Variant(
    name="tiny", model="builtin:sd-tiny", steps=(4,), guidance=3.0, guidance_share=0.5, scheduler="DDIMScheduler"
)
PROMPTS = ["a large red circle on a white ground", "a blue star"]
OTHERS = ["stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-3.5-medium"]


@pytest.fixture(scope="module")
def tiny() -> DiffusersGenerator:
    return load(TINY, where="s")


def latents(generator: Any, arguments: dict[str, Any]) -> Any:
    return generator.pipeline(**arguments | {"output_type": "latent"}).images.numpy()


def test_one_image_is_that_of_diffusers_own_callback(tiny: DiffusersGenerator) -> None:
    arguments = tiny.call_arguments(PROMPTS[:1], [1], 4)
    ours = latents(tiny, arguments)
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)  # after the second of four calls
    theirs = tiny.call_arguments(PROMPTS[:1], [1], 4) | {
        "callback_on_step_end": cutoff,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    assert (ours == latents(tiny, theirs)).all()


def test_a_batch_is_that_of_its_single_images(tiny: DiffusersGenerator) -> None:
    """diffusers' callback would give every image the prompt of the last one."""
    batch = latents(tiny, tiny.call_arguments(PROMPTS, [1, 2], 4))
    single = [latents(tiny, tiny.call_arguments([p], [s], 4))[0] for p, s in zip(PROMPTS, [1, 2], strict=True)]
    np.testing.assert_allclose(batch, np.stack(single), atol=1e-3)


def test_the_next_call_begins_with_guidance_again(tiny: DiffusersGenerator) -> None:
    first = tiny.generate(PROMPTS[:1], [1], 4)
    again = tiny.generate(PROMPTS[:1], [1], 4)
    assert (first.images == again.images).all()
    assert first.nfe_per_image == again.nfe_per_image == 6  # 2 + 2 + 1 + 1


@pytest.mark.parametrize(
    ("scheduler", "share", "steps"),
    [
        ("DDIMScheduler", 0.67, 3),
        ("DDIMScheduler", 0.9, 2),
        ("PNDMScheduler", 0.5, 3),
        ("HeunDiscreteScheduler", 0.5, 2),
    ],
)
def test_the_hook_counts_what_the_closed_form_says(
    tiny: DiffusersGenerator, scheduler: str, share: float, steps: int
) -> None:
    settings = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    variant = replace(TINY, scheduler=scheduler, scheduler_args=settings, guidance_share=share)
    before = tiny.pipeline.scheduler
    tiny.pipeline.scheduler = make_scheduler(before, variant, "s")
    try:
        drawn = DiffusersGenerator(tiny.pipeline, variant, []).generate(PROMPTS, [1, 2], steps)
    finally:
        tiny.pipeline.scheduler = before
    assert drawn.nfe_per_image == nfe_per_image(variant, steps)


@pytest.mark.parametrize("model", OTHERS)
def test_other_pipelines(tmp_path: Path, model: str) -> None:
    build(tmp_path, [model])
    variant = Variant(name="v", model=str(tmp_path / model), steps=(4,), guidance=4.5, guidance_share=0.5)
    variant = replace(variant, width_px=32, height_px=32)
    drawn = load(variant, where="s").generate(PROMPTS, [1, 2], 4)
    assert drawn.nfe_per_image == 6
    full = load(replace(variant, guidance_share=1.0), where="s").generate(PROMPTS, [1, 2], 4)
    assert full.nfe_per_image == 8
    assert (full.images != drawn.images).any()


def test_a_model_without_two_evaluations_per_step_is_refused() -> None:
    lcm = replace(TINY, model="builtin:sd-tiny-lcm", scheduler="")
    if load(replace(lcm, guidance_share=1.0, guidance=1.0), where="s").pipeline.unet.config.time_cond_proj_dim is None:
        pytest.skip("this student has no embedded guidance")
    with pytest.raises(SuiteError, match=r"s\.guidance_share = 0\.5: only for classifier-free guidance"):
        load(lcm, where="s")


def test_a_peek_is_refused() -> None:
    variant = replace(TINY, policy="budgetfusion-peek", policy_args={"predictor": "builtin:steps-tiny-peek2"})
    with pytest.raises(SuiteError, match=r"s\.guidance_share: a peek"):
        budgetfusion_peek(Cell(cell_id="c", variant=variant, level=1.0), where="s")


def test_the_printed_code_ends_guidance_too() -> None:
    code = diffusers_code(TINY, 4)
    assert "from perjoule_suites.guidance import guided_share" in code
    assert "**guided_share(pipe, 0.5)" in code


@pytest.mark.parametrize(
    ("calls", "share", "guided"), [(6, 0.67, 4), (3, 0.667, 2), (2, 0.99, 1), (1, 0.5, 1), (9, 1.0, 9)]
)
def test_guided_calls(calls: int, share: float, guided: int) -> None:
    assert guided_calls(calls, share) == guided
