from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import nn

from perjoule.suite.seeding import image_seed
from perjoule_suites.tiny import few_step, sd_tiny
from perjoule_suites.tiny import sd_tiny_lcm as lcm_folder
from perjoule_suites.tiny import sd_tiny_pruned as pruned_folder
from perjoule_suites.tiny.export import load_pipeline, save_student
from perjoule_suites.tiny.sampling import GUIDANCE
from perjoule_suites.tiny.world.captions import parse

pytestmark = pytest.mark.slow

CAPTION = "a large red circle on a white ground"
FOLDERS = [lcm_folder, pruned_folder]


@pytest.fixture(scope="module")
def teacher() -> StableDiffusionPipeline:
    return load_pipeline(sd_tiny())


def draw(pipeline: DiffusionPipeline, steps: int, guidance: float = GUIDANCE) -> np.ndarray:
    generator = torch.Generator("cpu").manual_seed(image_seed(CAPTION, 1))
    return pipeline(
        CAPTION, num_inference_steps=steps, guidance_scale=guidance, generator=generator, output_type="np"
    ).images


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_student_loads_as_any_pipeline_does_and_draws_the_same_picture_twice(folder: Callable[[], Path]) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder(), dtype=torch.float32)
    assert type(pipeline) is StableDiffusionPipeline
    pipeline.set_progress_bar_config(disable=True)
    first, second = draw(pipeline, 2), draw(pipeline, 2)
    assert np.isfinite(first).all()
    assert first.shape == (1, 64, 64, 3)
    assert np.array_equal(first, second)


def test_the_students_own_files_are_small_and_the_rest_is_the_teachers() -> None:
    own_bytes = 0
    for folder in FOLDERS:
        for file in folder().rglob("*"):
            inside = file.relative_to(folder())
            if inside.parts[0] == "unet":
                own_bytes += file.stat().st_size if file.is_file() else 0
            elif file.is_file():  # a link in the repository, a copy in a wheel
                assert file.read_bytes() == (sd_tiny() / inside).read_bytes()
    assert own_bytes <= 12e6


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_the_few_step_student_evaluates_once_a_step_whatever_the_guidance(steps: int, guidance: float) -> None:
    pipeline = load_pipeline(lcm_folder())
    rows: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    image = draw(pipeline, steps, guidance)
    assert rows == [1] * steps
    # and the picture is that of a call without guidance
    assert np.array_equal(image, draw(pipeline, steps, 1.0))


def learns(student: nn.Module, loss_of: Callable[[], torch.Tensor]) -> tuple[float, float]:
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)
    before = loss_of().item()
    for _ in range(4):
        optimiser.zero_grad()
        loss_of().backward()
        optimiser.step()
    with torch.no_grad():
        return before, loss_of().item()


def test_a_few_steps_of_the_few_step_recipe_lower_its_loss(
    teacher: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_step, "_BATCH", 4)
    chance = torch.Generator().manual_seed(0)
    noise, latents = torch.randn(2, 4, 8, 16, 16, generator=chance).half()
    data = few_step.Pairs(captions=[CAPTION] * 4, noise=noise, latents=latents)
    student = type(teacher.unet).from_config(teacher.unet.config)
    student.load_state_dict(teacher.unet.state_dict())
    before, after = learns(student, lambda: few_step.losses(student, teacher, data, np.random.default_rng(0))[0])
    assert after < 0.9 * before


def test_pairs_are_drawn_once_from_captions_of_the_training_side(
    teacher: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_step, "_TEACHER_STEPS", 2)
    pairs = few_step.load_or_draw(teacher, tmp_path, 3)
    captions = [parse(text) for text in pairs.captions]
    assert {caption.split for caption in captions} == {"train"}
    assert {caption.level for caption in captions} == {"closed", "half open", "open"}
    assert pairs.latents.shape == pairs.noise.shape == (3, 8, 16, 16)
    monkeypatch.setattr(few_step, "_teach", None)  # a second drawing would call it
    again = few_step.load_or_draw(teacher, tmp_path, 3)
    assert torch.equal(pairs.latents, again.latents)


def test_a_saved_student_is_a_whole_pipeline(teacher: StableDiffusionPipeline, tmp_path: Path) -> None:
    student = few_step.with_embedded_guidance(teacher.unet)
    save_student(student, sd_tiny(), tmp_path / "student")
    loaded = load_pipeline(tmp_path / "student")
    # the teacher's own weights: without guidance the two draw alike
    assert np.array_equal(draw(loaded, 1), draw(teacher, 1, 1.0))
