"""Evaluates the family: attributes found in images of held-out captions, by step count, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from perjoule.suite.seeding import image_seed
from perjoule_suites.tiny.recogniser import Recogniser, accuracy, by_attribute
from perjoule_suites.tiny.scenes import Scene, caption, sample_scene

GUIDANCE = 3.0


def held_out_scenes(count: int, seed: int = 99, things: int | None = None) -> list[Scene]:
    """Return distinct scenes outside the training set."""
    rng = np.random.default_rng(seed)
    scenes: dict[str, Scene] = {}
    while len(scenes) < count:
        scene = sample_scene(rng, held_out=True, things=things)
        scenes[scene.key] = scene
    return list(scenes.values())


def generate(
    pipeline: StableDiffusionPipeline,
    captions: Sequence[str],
    steps: int,
    *,
    guidance: float = GUIDANCE,
    seed: int = 1,
    batch: int = 25,
) -> NDArray[np.uint8]:
    """Draw one image per caption. -> (n, 64, 64, 3) uint8."""
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(captions), batch):
        texts = list(captions[start : start + batch])
        generators = [torch.Generator("cpu").manual_seed(image_seed(text, seed)) for text in texts]
        output = pipeline(
            texts, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np"
        )
        parts.append((output.images * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def attribute_table(
    pipeline: StableDiffusionPipeline,
    recogniser: Recogniser,
    scenes: Sequence[Scene],
    *,
    steps: int = 25,
    guidance: float = GUIDANCE,
) -> dict[str, float]:
    """Share of held-out captions whose attribute the recogniser finds in the image, by attribute."""
    images = generate(pipeline, [caption(s) for s in scenes], steps, guidance=guidance)
    return by_attribute(recogniser.recognise(images), scenes)


def quality_by_steps(
    pipeline: StableDiffusionPipeline,
    recogniser: Recogniser,
    scenes: Sequence[Scene],
    ladder: Sequence[int],
    *,
    guidance: float = GUIDANCE,
    resamples: int = 2_000,
) -> list[dict[str, Any]]:
    """Mean `scene` score at each step count with its 95 % bootstrap interval over captions."""
    texts = [caption(s) for s in scenes]
    chance = np.random.default_rng(0)
    draws = chance.integers(0, len(scenes), (resamples, len(scenes)))
    rows = []
    for steps in ladder:
        scores = accuracy(recogniser.recognise(generate(pipeline, texts, steps, guidance=guidance)), scenes)
        low, high = np.quantile(scores[draws].mean(1), [0.025, 0.975])
        rows.append({"steps": steps, "scene": float(scores.mean()), "low": float(low), "high": float(high)})
    return rows


def contact_sheet(images: NDArray[np.uint8], captions: Sequence[str], file: Path, columns: int = 6) -> None:
    """Pictures with their captions underneath, as one PNG."""
    import textwrap

    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.15 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title("\n".join(textwrap.wrap(text, 30)), fontsize=6.5, y=-0.12, va="top")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.07, wspace=0.06, hspace=0.36)
    figure.savefig(file, dpi=130, metadata={"Software": None})


def quality_figure(curve: Sequence[dict[str, Any]], file: Path) -> None:
    """Quality against steps with its intervals, as PNG."""
    from matplotlib.figure import Figure

    steps = [row["steps"] for row in curve]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(steps, [r["low"] for r in curve], [r["high"] for r in curve], color="#0072B2", alpha=0.25)
    axis.plot(steps, [r["scene"] for r in curve], color="#0072B2", marker="o")
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps, [str(s) for s in steps])
    axis.minorticks_off()
    axis.set_xlabel("denoising steps (DDIM, trailing)")
    axis.set_ylabel("scene: share of attributes found")
    axis.set_title("Held-out captions, 95 % bootstrap interval", loc="left", fontsize=10)
    axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120, metadata={"Software": None})
