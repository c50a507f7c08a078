"""Common code for the students of the tiny models: teacher, text embeddings, and files of a student.

A student differs from the teacher only in its UNet. Text encoder, tokenizer, autoencoder and scheduler are the
teacher's files, linked and not copied: every student folder is a whole pipeline, and the weights are kept once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging

from perjoule_suites.tiny.clip import tokenize
from perjoule_suites.tiny.scenes import caption, sample_scene

GUIDANCE = 3.0
TWO_THINGS_SHARE = 0.65


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """A pipeline of the family in float32, quietly."""
    logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_captions(rng: np.random.Generator, count: int) -> list[str]:
    """Return training captions; scenes of two things are more frequent, because they are harder."""
    scenes = [sample_scene(rng, things=2 if rng.random() < TWO_THINGS_SHARE else 1) for _ in range(count)]
    return [caption(scene, rng) for scene in scenes]


@torch.no_grad()
def text_states(teacher: StableDiffusionPipeline, texts: Sequence[str]) -> torch.Tensor:
    """Return the text embeddings for the UNet: (n, 32, 128)."""
    states: torch.Tensor = teacher.text_encoder(tokenize(teacher.tokenizer, list(texts))).last_hidden_state
    return states


def signal_and_noise(teacher: StableDiffusionPipeline, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scales of signal and noise in a noisy latent. (n,) -> two of (n, 1, 1, 1)."""
    alphas: torch.Tensor = teacher.scheduler.alphas_cumprod[timesteps][:, None, None, None]
    return alphas.sqrt(), (1 - alphas).sqrt()


def save_student(unet: UNet2DConditionModel, teacher: Path, to: Path) -> None:
    """Write the UNet as fp16 safetensors and link everything else to the teacher's folder."""
    shutil.rmtree(to, ignore_errors=True)
    half = UNet2DConditionModel.from_config(unet.config)
    half.load_state_dict(unet.state_dict())
    half.half().save_pretrained(to / "unet", safe_serialization=True)
    config = to / "unet" / "config.json"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    config.write_text("".join(x for x in lines if '"_name_or_path"' not in x), encoding="utf-8")
    for file in sorted(teacher.rglob("*")):
        inside = file.relative_to(teacher)
        if file.is_file() and inside.parts[0] != "unet":
            target = to / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            # files, not folders: a glob for weights does not look into linked folders
            target.symlink_to(os.path.relpath(file, target.parent))
