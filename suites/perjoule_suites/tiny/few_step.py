"""The few-step student, which makes the teacher's guided images in one, two or four evaluations.

The teacher draws pictures with its guidance in 16 steps; noise and picture are kept as pairs. On the straight way from
the one to the other the student learns to name the picture from every point: at the far end that is one-step
distillation, further in it is the straightening of "Flow Straight and Fast" (arXiv:2209.03003). Points further in are
mixed from the teacher's picture and the student's own one-step picture, so that its second step has met what its first
step leaves. The images already include guidance, so a step has only one evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray

from perjoule.files import replacing
from perjoule_suites.tiny.distil import GUIDANCE, draw_captions, load_pipeline, signal_and_noise, text_states
from perjoule_suites.tiny.training import Recipe, fit, seed_everything

RECIPE = Recipe(
    name="few-step",
    steps=2_200,
    learning_rate=6e-4,
    weight_decay=0.01,
    ema_decay=0.995,
    warmup_steps=100,
    seed=21,
)
PAIR_COUNT = 8_192
_CHUNK, _BATCH, _TEACHER_STEPS, _HUBER = 256, 32, 16, 0.1
# where the second and later steps of two, three and four begin (trailing spacing)
_LATER_STEPS = np.array([749, 666, 499, 333, 249])
# no picture depends on it: the pipeline sees that guidance is embedded and leaves the second evaluation out
_GUIDANCE_CHANNELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The teacher's pictures. noise, latents: (n, 8, 16, 16) float16; `latents[i]` was generated from `noise[i]`."""

    captions: list[str]
    noise: torch.Tensor
    latents: torch.Tensor


def load_or_draw_pairs(teacher: StableDiffusionPipeline, folder: Path, count: int = PAIR_COUNT) -> Pairs:
    """Return the pairs in `folder`; missing ones are generated first."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, count, _CHUNK):
        file = folder / f"pairs-{start:06d}.pt"
        if not file.exists():
            texts = draw_captions(np.random.default_rng([RECIPE.seed, start]), min(_CHUNK, count - start))
            noise = torch.randn(len(texts), 8, 16, 16, generator=torch.Generator().manual_seed(start)).half()
            latents = [
                guided_latents(teacher, texts[i : i + _BATCH], noise[i : i + _BATCH].float()).half()
                for i in range(0, len(texts), _BATCH)
            ]
            with replacing(file) as stream:
                torch.save({"captions": texts, "noise": noise, "latents": torch.cat(latents)}, stream)
        parts.append(torch.load(file, weights_only=True))
    return Pairs(
        captions=[text for part in parts for text in part["captions"]],
        noise=torch.cat([part["noise"] for part in parts]),
        latents=torch.cat([part["latents"] for part in parts]),
    )


@torch.no_grad()
def guided_latents(teacher: StableDiffusionPipeline, texts: list[str], noise: torch.Tensor) -> torch.Tensor:
    """Return the teacher's latents for noise, with guidance."""
    states = text_states(teacher, [""] * len(texts) + texts)
    teacher.scheduler.set_timesteps(_TEACHER_STEPS)
    latents = noise
    for t in teacher.scheduler.timesteps:
        with torch.autocast("cpu", torch.bfloat16):
            both = teacher.unet(torch.cat([latents, latents]), t, states).sample.float()
        plain, worded = both.chunk(2)
        latents = teacher.scheduler.step(plain + GUIDANCE * (worded - plain), t, latents).prev_sample
    return latents


def train(
    teacher_folder: Path, workdir: Path, *, recipe: Recipe = RECIPE, pairs: int = PAIR_COUNT
) -> UNet2DConditionModel:
    """Draw the pairs and train the student on them."""
    teacher = load_pipeline(teacher_folder)
    data = load_or_draw_pairs(teacher, workdir / "few-step-pairs", pairs)
    seed_everything(recipe.seed)
    student = UNet2DConditionModel.from_config(teacher.unet.config)
    student.load_state_dict(teacher.unet.state_dict())
    student.train()

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return losses(student, teacher, data, rng)

    fit(recipe, student, loss_of, workdir)
    return with_embedded_guidance(student)


def losses(
    student: UNet2DConditionModel, teacher: StableDiffusionPipeline, data: Pairs, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """How far the student's pictures are from the teacher's, at once and from further in, on a batch drawn by `rng`."""
    index = rng.integers(0, len(data.captions), _BATCH)
    noise, real = data.noise[index].float(), data.latents[index].float()
    states = text_states(teacher, [data.captions[int(i)] for i in index])

    def picture(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, sigma = signal_and_noise(teacher, t)
        with torch.autocast("cpu", torch.bfloat16):
            velocity: torch.Tensor = student(noisy, t, states).sample
        return signal * noisy - sigma * velocity.float()

    first = picture(noise, torch.full((_BATCH,), 999))
    t = torch.from_numpy(_draw_later(rng, _BATCH))
    own = torch.from_numpy(rng.random((_BATCH, 1, 1, 1), dtype=np.float32))
    signal, sigma = signal_and_noise(teacher, t)
    second = picture(signal * torch.lerp(real, first.detach(), own) + sigma * noise, t)
    at_once, later = _huber(first - real), _huber(second - real)
    # the remaining error is smaller near the end: without the weight, late steps would hardly be trained
    loss = at_once.mean() + (later / sigma.flatten().clamp(min=0.2)).mean()
    return loss, {"at_once": at_once.mean().item(), "later": later.mean().item()}


def _draw_later(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return times, mostly at the begin of the second or a later step, sometimes anywhere."""
    anywhere = rng.integers(20, 999, count)
    return np.where(rng.random(count) < 0.75, rng.choice(_LATER_STEPS, count), anywhere)


def _huber(error: torch.Tensor) -> torch.Tensor:
    """Return a smooth absolute error, which blurs less than the squared error. (n, ...) -> (n,)."""
    return ((error.square() + _HUBER**2).sqrt() - _HUBER).flatten(1).mean(1)


def with_embedded_guidance(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same network, marked for the pipeline as one that needs no classifier-free guidance."""
    marked = UNet2DConditionModel.from_config({**unet.config, "time_cond_proj_dim": _GUIDANCE_CHANNELS})
    torch.nn.init.zeros_(marked.time_embedding.cond_proj.weight)
    marked.load_state_dict(unet.state_dict(), strict=False)
    return marked.eval()
