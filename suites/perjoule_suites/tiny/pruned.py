"""The pruned student: the teacher's UNet without its middle block and with fewer layers and channels.

Block pruning after "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion" (arXiv:2305.15798): the rest
starts from the teacher's weights and learns from the task and from the teacher's output. It uses guidance like the
teacher.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from perjoule.suite.timesteps import short_first
from perjoule_suites.tiny.data import Latents
from perjoule_suites.tiny.denoiser import dev_captions, draw_timesteps, means
from perjoule_suites.tiny.fitting import Recipe, fit, seed_everything
from perjoule_suites.tiny.sampling import draw, signal_and_noise, text_states
from perjoule_suites.tiny.world.captions import Level

RECIPE = Recipe(
    name="pruned",
    steps=4_500,
    learning_rate=1.5e-3,
    weight_decay=0.01,
    ema_decay=0.998,
    warmup_steps=100,
    seed=22,
)
_CHANNELS, _LAYERS = (64, 48, 48), (0, 1, 1)
_BATCH, _CAPTION_DROPOUT_PERCENT, _TASK_WEIGHT = 32, 10, 0.25
_DEV: dict[Level, int] = {"closed": 20, "half open": 20, "open": 20}
_UP_INPUT = re.compile(r"up_blocks\.(\d)\.resnets\.(\d)\.(norm1|conv1|conv_shortcut)\.")


def build(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return the pruned network with the matching weights of the teacher."""
    change = {"block_out_channels": _CHANNELS, "layers_per_block": _LAYERS, "mid_block_type": None}
    student = UNet2DConditionModel.from_config({**teacher.config, **change})
    weights, whole = teacher.state_dict(), tuple(teacher.config.block_out_channels)
    layers = (teacher.config.layers_per_block,) * len(whole)
    cut = {}
    for name, like in student.state_dict().items():
        weight = weights[name]
        at = _UP_INPUT.match(name)
        for axis, (size, left) in enumerate(zip(weight.shape, like.shape, strict=True)):
            if at and axis == (0 if at[3] == "norm1" else 1) and size != left:
                block, resnet = int(at[1]), int(at[2])
                index = _of_both(_inputs(whole, layers, block, resnet), _inputs(_CHANNELS, _LAYERS, block, resnet))
            else:
                index = _kept(size, left)
            weight = weight.index_select(axis, index)
        cut[name] = weight
    student.load_state_dict(cut)
    return student


def _inputs(channels: Sequence[int], layers: Sequence[int], block: int, resnet: int) -> tuple[int, int]:
    """Channels that a resnet on the way up gets from below and from its skip."""
    up = channels[::-1]
    here, below, above = up[block], up[max(0, block - 1)], up[min(block + 1, len(up) - 1)]
    last = layers[::-1][block]
    return (below if resnet == 0 else here), (above if resnet == last else here)


def _of_both(whole: tuple[int, int], left: tuple[int, int]) -> torch.Tensor:
    return torch.cat([_kept(whole[0], left[0]), whole[0] + _kept(whole[1], left[1])])


def _kept(whole: int, left: int) -> torch.Tensor:
    """Return the channels to keep, spread evenly, so that groups of a norm and attention heads lose equally."""
    return torch.arange(left) * whole // left


def train(teacher: StableDiffusionPipeline, data: Latents, workdir: Path, recipe: Recipe) -> UNet2DConditionModel:
    """Train the student on encoded renders and on the teacher's outputs."""
    seed_everything(recipe.seed)
    student = build(teacher.unet).to(memory_format=torch.channels_last).train()
    captions = dev_captions(_DEV)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        index = rng.integers(0, len(data.captions), _BATCH)
        texts = ["" if rng.integers(100) < _CAPTION_DROPOUT_PERCENT else data.captions[int(i)].text(rng) for i in index]
        states = text_states(teacher.text_encoder, teacher.tokenizer, texts)
        clean = torch.from_numpy(data.latents[index]).float()
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        t = torch.from_numpy(draw_timesteps(rng, _BATCH))
        signal, sigma = signal_and_noise(t)
        noisy = signal * clean + sigma * noise
        with torch.no_grad():
            taught = teacher.unet(noisy, t, states).sample
        velocity = student(noisy, t, states).sample
        output, task = F.mse_loss(velocity, taught), F.mse_loss(velocity, signal * noise - sigma * clean)
        return output + _TASK_WEIGHT * task, {"output": output.item(), "task": task.item()}

    def validate() -> dict[str, float]:
        network = (student.eval(), teacher.text_encoder, teacher.tokenizer, teacher.vae)
        figures = {}
        for level, some in captions.items():
            images = draw(network, [caption.text() for caption in some], short_first(12))
            figures[f"{level}: score"] = means(images, some)["score"]
        student.train()
        return figures

    fit(recipe, student, loss_of, workdir, validate=validate, validate_every=1_000)
    return student.eval()
