"""The pruned student: the teacher's UNet without its middle block, one resnet per side, and half the inner channels.

Block pruning after "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion" (arXiv:2305.15798): the
rest starts from the teacher's weights and learns from the task, from the teacher's output and from its features. The
missing blocks save a fifth of the time, the missing channels nearly half of the rest and most of the file. Like
the teacher it uses guidance with two evaluations per step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn

from perjoule_suites.tiny import dataset, denoiser
from perjoule_suites.tiny.distil import TWO_THINGS_SHARE, load_pipeline, signal_and_noise, text_states
from perjoule_suites.tiny.scenes import caption
from perjoule_suites.tiny.training import Recipe, fit, seed_everything

RECIPE = Recipe(
    name="pruned",
    steps=3_600,
    learning_rate=1.5e-3,
    weight_decay=0.01,
    ema_decay=0.998,
    warmup_steps=100,
    seed=22,
)
SCENE_COUNT = 20_000
_CHANNELS, _LAYERS = (64, 64, 48), (0, 1, 1)
_BATCH, _CAPTION_DROPOUT = 64, 0.1
_TASK_WEIGHT, _FEATURE_WEIGHT = 0.25, 0.1
_BLOCKS = ("down_blocks.0", "down_blocks.1", "down_blocks.2", "up_blocks.0", "up_blocks.1", "up_blocks.2")


def build(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return the pruned network with the matching weights of the teacher."""
    config = {
        **teacher.config,
        "block_out_channels": _CHANNELS,
        "layers_per_block": _LAYERS,
        "mid_block_type": None,
    }
    student = UNet2DConditionModel.from_config(config)
    weights = teacher.state_dict()
    student.load_state_dict({name: _cut(weights[name], like.shape) for name, like in student.state_dict().items()})
    return student


def _cut(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    for axis, (whole, left) in enumerate(zip(weight.shape, shape, strict=True)):
        weight = weight.index_select(axis, _kept(whole, left))
    return weight


def _kept(whole: int, left: int) -> torch.Tensor:
    """Return the channels to keep: every second, so that all groups of a norm and all attention heads lose equally."""
    if (whole, left) == (192, 128):
        # 128 from below and the 64 of a skip, which the top level keeps
        return torch.cat([torch.arange(0, 128, 2), torch.arange(128, 192)])
    return torch.arange(left) * whole // left


def train(
    teacher_folder: Path, workdir: Path, *, recipe: Recipe = RECIPE, scenes: int = SCENE_COUNT
) -> UNet2DConditionModel:
    """Render scenes, encode them, and train the student on them and on the teacher's outputs."""
    teacher = load_pipeline(teacher_folder)
    data = dataset.load_or_render(workdir, count=scenes, held_out=False, seed=1)
    latents = denoiser.cached_latents(teacher.vae, data, workdir / f"latents-{scenes}.pt", scenes)
    seed_everything(recipe.seed)
    student = build(teacher.unet).train()
    two = np.array([len(scene.things) == 2 for scene in data.scenes])
    pools = (np.flatnonzero(~two), np.flatnonzero(two))

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        index = np.array([rng.choice(pools[int(rng.random() < TWO_THINGS_SHARE)]) for _ in range(_BATCH)])
        texts = [caption(data.scenes[int(i)], rng) for i in index]
        states = text_states(teacher, ["" if rng.random() < _CAPTION_DROPOUT else text for text in texts])
        clean = latents[index].float()
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        t = torch.from_numpy(denoiser.draw_timesteps(rng, _BATCH))
        signal, sigma = signal_and_noise(teacher, t)
        noisy = signal * clean + sigma * noise
        return losses(student, teacher.unet, noisy, t, states, signal * noise - sigma * clean)

    fit(recipe, student, loss_of, workdir)
    return student.eval()


def losses(
    student: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    noisy: torch.Tensor,
    t: torch.Tensor,
    states: torch.Tensor,
    velocity: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Distance from the teacher's output, from the true `velocity` and from the teacher's features, weighted."""
    with (
        _features(student) as student_features,
        _features(teacher) as teacher_features,
        torch.autocast("cpu", torch.bfloat16),
    ):
        with torch.no_grad():
            teacher_output = teacher(noisy, t, states).sample.float()
        student_output = student(noisy, t, states).sample.float()
    task, output = F.mse_loss(student_output, velocity), F.mse_loss(student_output, teacher_output)
    features = torch.stack([_feature_error(student_features[name], teacher_features[name]) for name in _BLOCKS]).mean()
    loss = output + _TASK_WEIGHT * task + _FEATURE_WEIGHT * features
    return loss, {"output": output.item(), "task": task.item(), "features": features.item()}


@contextmanager
def _features(unet: UNet2DConditionModel) -> Iterator[dict[str, torch.Tensor]]:
    """Record the outputs of the blocks inside the context, by name."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        # a block on the way down also returns what its skips carry
        outputs[name] = output[0] if isinstance(output, tuple) else output

    hooks = [unet.get_submodule(name).register_forward_hook(partial(keep, name)) for name in _BLOCKS]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _feature_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared error over the kept channels, as a share of their power."""
    target = teacher.float()[:, _kept(teacher.shape[1], student.shape[1])]
    return F.mse_loss(student.float(), target) / target.square().mean()
