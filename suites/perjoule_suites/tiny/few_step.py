"""The few-step student: it names the teacher's guided picture in one, two or four evaluations.

The teacher draws pictures along its short-first schedule; noise and picture are stored as pairs. The student learns to
name the picture from pure noise and from points on the straight line between noise and picture (the straightening of
"Flow Straight and Fast", arXiv:2209.03003), where the picture is partly its own first answer. Guidance is built in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray

from perjoule.files import replacing
from perjoule.suite.timesteps import short_first, trailing
from perjoule_suites.tiny.denoiser import dev_captions, means
from perjoule_suites.tiny.fitting import Recipe, fit, seed_everything
from perjoule_suites.tiny.sampling import (
    LATENT_SHAPE,
    draw,
    latents_of,
    signal_and_noise,
    text_states,
)
from perjoule_suites.tiny.world.captions import LEVELS, Level, draw_caption

RECIPE = Recipe(
    name="few-step",
    steps=2_000,
    learning_rate=6e-4,
    weight_decay=0.01,
    ema_decay=0.998,
    warmup_steps=100,
    seed=21,
)
PAIR_COUNT = 8_192
_PART, _BATCH, _TEACHER_STEPS, _HUBER = 256, 32, 12, 0.1
# no picture depends on it: the pipeline sees that guidance is embedded and leaves the second evaluation out
_GUIDANCE_CHANNELS = 8
# where the second and later steps of two, three and four begin, with trailing spacing
_LATER = tuple(t for steps in (2, 3, 4) for t in trailing(steps)[1:])
_DEV: dict[Level, int] = {"closed": 20, "half open": 20, "open": 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The teacher's pictures. noise, latents: (n, 8, 16, 16) float16; `latents[i]` came out of `noise[i]`."""

    captions: list[str]
    noise: torch.Tensor
    latents: torch.Tensor


def load_or_draw(teacher: StableDiffusionPipeline, folder: Path, count: int) -> Pairs:
    """Return the pairs in `folder`; missing parts are drawn first. Levels of openness have equal shares."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, count, _PART):
        file = folder / f"pairs-{start:06d}.pt"
        if not file.exists():
            rng = np.random.default_rng([RECIPE.seed, start])
            size = min(_PART, count - start)
            texts = [draw_caption(rng, level=LEVELS[i % len(LEVELS)]).text(rng) for i in range(size)]
            noise = torch.randn(size, *LATENT_SHAPE, generator=torch.Generator().manual_seed(start)).half()
            latents = [
                _teach(teacher, texts[i : i + _BATCH], noise[i : i + _BATCH].float()).half()
                for i in range(0, size, _BATCH)
            ]
            with replacing(file) as stream:
                torch.save({"captions": texts, "noise": noise, "latents": torch.cat(latents)}, stream)
        parts.append(torch.load(file, weights_only=True))
    return Pairs(
        captions=[text for part in parts for text in part["captions"]],
        noise=torch.cat([part["noise"] for part in parts]),
        latents=torch.cat([part["latents"] for part in parts]),
    )


def _teach(teacher: StableDiffusionPipeline, texts: list[str], noise: torch.Tensor) -> torch.Tensor:
    states = text_states(teacher.text_encoder, teacher.tokenizer, ["", *texts])
    return latents_of(teacher.unet, states[1:], noise, short_first(_TEACHER_STEPS), empty=states[:1])


def train(teacher: StableDiffusionPipeline, workdir: Path, recipe: Recipe, pairs: int) -> UNet2DConditionModel:
    """Draw the pairs and train the student on them."""
    data = load_or_draw(teacher, workdir / "few-step-pairs", pairs)
    seed_everything(recipe.seed)
    student = UNet2DConditionModel.from_config(teacher.unet.config)
    student.load_state_dict(teacher.unet.state_dict())
    student.to(memory_format=torch.channels_last).train()
    captions = dev_captions(_DEV)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return losses(student, teacher, data, rng)

    def validate() -> dict[str, float]:
        figures: dict[str, float] = {}
        network = (student.eval(), teacher.text_encoder, teacher.tokenizer, teacher.vae)
        for level, some in captions.items():
            for steps in (1, 2, 4):
                images = draw(network, [caption.text() for caption in some], trailing(steps), guidance=None)
                figures[f"{level}, {steps}: score"] = means(images, some)["score"]
        student.train()
        return figures

    fit(recipe, student, loss_of, workdir, validate=validate, validate_every=500)
    return with_embedded_guidance(student)


def losses(
    student: UNet2DConditionModel, teacher: StableDiffusionPipeline, data: Pairs, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """Distance of the student's pictures from the teacher's, from pure noise and from further in."""
    index = rng.integers(0, len(data.captions), _BATCH)
    noise, real = data.noise[index].float(), data.latents[index].float()
    states = text_states(teacher.text_encoder, teacher.tokenizer, [data.captions[int(i)] for i in index])

    def picture(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, sigma = signal_and_noise(t)
        velocity: torch.Tensor = student(noisy, t, states).sample
        return signal * noisy - sigma * velocity

    first = picture(noise, torch.full((_BATCH,), 999))
    t = torch.from_numpy(_draw_later(rng, _BATCH))
    own = torch.from_numpy(rng.random((_BATCH, 1, 1, 1), dtype=np.float32))
    signal, sigma = signal_and_noise(t)
    second = picture(signal * torch.lerp(real, first.detach(), own) + sigma * noise, t)
    at_once, later = _huber(first - real), _huber(second - real)
    # the remaining error is smaller near the end: without the weight, late steps would hardly be trained
    loss = at_once.mean() + (later / sigma.flatten().clamp(min=0.2)).mean()
    return loss, {"at_once": at_once.mean().item(), "later": later.mean().item()}


def _draw_later(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return times, mostly at the start of a second or later step, sometimes anywhere."""
    anywhere = rng.integers(20, 999, count)
    return np.where(rng.random(count) < 0.75, rng.choice(np.array(_LATER), count), anywhere)


def _huber(error: torch.Tensor) -> torch.Tensor:
    """Return a smooth absolute error, which blurs less than the squared error. (n, ...) -> (n,)."""
    return ((error.square() + _HUBER**2).sqrt() - _HUBER).flatten(1).mean(1)


def with_embedded_guidance(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same network, marked for the pipeline as one that needs no classifier-free guidance."""
    marked = UNet2DConditionModel.from_config({**unet.config, "time_cond_proj_dim": _GUIDANCE_CHANNELS})
    torch.nn.init.zeros_(marked.time_embedding.cond_proj.weight)
    marked.load_state_dict(unet.state_dict(), strict=False)
    return marked.eval()
