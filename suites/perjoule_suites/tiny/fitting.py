"""One training loop for every network of the tiny models: seeded, checkpointed, resumable.

The data of step *i* depend on `(seed, i)` only, and a checkpoint contains weights, optimiser and the averaged weights.
So a resumed training uses the same batches in the same order as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from perjoule.files import replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a training.

    Attributes:
        name: Stem of the checkpoint and log files.
        steps: Optimiser steps in all.
        learning_rate: Peak of the cosine schedule, after a linear warm-up.
        weight_decay: Weight decay of AdamW.
        warmup_steps: Length of the warm-up.
        restarts: Steps at which the rate begins another cosine.
        ema_decay: Decay of the averaged weights; 0 switches averaging off.
        seed: Seed of the data order and of the initial weights.
    """

    name: str
    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_steps: int = 200
    restarts: tuple[int, ...] = ()
    ema_decay: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Peers:
    """Processes that train one network together. rank: of this process; count: number of processes."""

    rank: int
    count: int

    def part(self, batch: int) -> slice:
        """Rows of a batch that this process computes."""
        return slice(self.rank * batch // self.count, (self.rank + 1) * batch // self.count)

    def average(self, gradients: list[torch.Tensor]) -> None:
        """Replace the gradients by their mean over all processes."""
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def fit(
    recipe: Recipe,
    module: nn.Module,
    loss_of: Callable[[np.random.Generator, int], tuple[torch.Tensor, dict[str, float]]],
    workdir: Path,
    *,
    checkpoint_every_s: float = 60.0,
    validate: Callable[[], dict[str, float]] | None = None,
    validate_every: int = 500,
    peers: Peers | None = None,
) -> nn.Module:
    """Train `module` to the end of its recipe, from a checkpoint if there is one.

    Args:
        recipe: Steps, rates and seed.
        module: The module to train; changed in place, with the averaged weights at the end if there are any.
        loss_of: `(rng, step) -> (loss, figures to log)`.
        workdir: Folder of `<name>.pt` (checkpoint) and `<name>.jsonl` (log).
        checkpoint_every_s: Seconds between checkpoints.
        validate: Called every `validate_every` steps on the averaged weights; its figures are logged.
        validate_every: See above.
        peers: Processes that train together, each with a part of every batch. Only the first writes files.

    Returns:
        The module.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoint, log = workdir / f"{recipe.name}.pt", workdir / f"{recipe.name}.jsonl"
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    average = [p.detach().clone() for p in trained] if recipe.ema_decay else []
    first, spent_s = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first, spent_s = saved["average"], saved["step"], saved["spent_s"]
    began = saved_at = time.monotonic()

    def save(step: int) -> None:
        state = {
            "module": module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average,
            "step": step,
            "spent_s": spent_s + time.monotonic() - began,
        }
        with replacing(checkpoint) as file:
            torch.save(state, file)

    for step in range(first, recipe.steps):
        rate = recipe.learning_rate * _schedule(step, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, figures = loss_of(np.random.default_rng([recipe.seed, step]), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if peers:
            peers.average([p.grad for p in trained if p.grad is not None])
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if average:
            decay = min(recipe.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in trained], 1 - decay)
        done = step + 1
        if peers and peers.rank:
            continue
        if done % 50 == 0 or done == recipe.steps:
            row = {"step": done, "loss": loss.item(), "lr": rate, "s": spent_s + time.monotonic() - began}
            if validate and (done % validate_every == 0 or done == recipe.steps):
                _swap(trained, average)
                row |= validate()
                _swap(trained, average)
            _append(log, row | figures)
        if time.monotonic() - saved_at > checkpoint_every_s:
            save(done)
            saved_at = time.monotonic()
    if not peers or not peers.rank:
        save(recipe.steps)
    _swap(trained, average)
    return module


def seed_everything(seed: int) -> None:
    """Seed torch for the initial weights (the data have their own generator)."""
    torch.manual_seed(seed)


def _schedule(step: int, recipe: Recipe) -> float:
    """The learning rate of a step, relative to its peak: cosines with warm restarts (arXiv:1608.03983)."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    edges = (recipe.warmup_steps, *recipe.restarts, recipe.steps)
    cycle = sum(step >= edge for edge in edges[1:-1])
    first, last = edges[cycle : cycle + 2]
    past = (step - first) / max(1, last - first)
    return 0.5 * (1 + math.cos(math.pi * past)) * 0.98 + 0.02


def _swap(parameters: Iterable[nn.Parameter], average: Iterable[torch.Tensor]) -> None:
    for parameter, mean in zip(parameters, average, strict=False):
        current = parameter.detach().clone()
        parameter.data.copy_(mean)
        mean.copy_(current)


def _append(log: Path, row: dict[str, float]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({k: round(float(v), 6) for k, v in row.items()}) + "\n")
