"""Evaluates a model of the family: score by openness and step count, and whose doing the needed steps are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from perjoule.files import replacing
from perjoule.suite.timesteps import short_first, trailing
from perjoule_suites.tiny.sampling import GUIDANCE, draw
from perjoule_suites.tiny.world.captions import LEVELS, Caption, Level, draw_distinct
from perjoule_suites.tiny.world.score import judge

LADDER = (2, 3, 4, 6, 8, 12, 16, 25)
SCHEDULES: dict[str, Callable[[int], list[int]]] = {"short-first": short_first, "trailing": trailing}
_SEED, _RESAMPLES, _NEAR, _ENOUGH = 31, 4_000, 0.9, 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Figures of one level's captions. scores, likeness, perfect: (captions, seeds, steps).

    likeness is the structural similarity to the image of the last step count with the same noise.
    """

    scores: Array
    likeness: Array
    perfect: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to draw. guidance: None for a student with built-in guidance."""

    ladder: Sequence[int] = LADDER
    seeds: int = 2
    schedule: str = "short-first"
    guidance: float | None = GUIDANCE


def curves(
    pipeline: StableDiffusionPipeline, captions: Sequence[Caption], setup: Setup, folder: Path, name: str
) -> Curves:
    """Draw and judge all images; each seed is stored in `folder` and not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    network = (pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae)
    texts = [caption.text() for caption in captions]
    parts = []
    for seed in range(1, setup.seeds + 1):
        file = folder / f"{name.replace(' ', '-')}-{setup.schedule}-{len(texts)}-{seed}.npz"
        if not file.exists():
            images = np.stack(
                [
                    draw(network, texts, SCHEDULES[setup.schedule](steps), seed=seed, guidance=setup.guidance)
                    for steps in setup.ladder
                ],
                1,
            )  # (captions, steps, 64, 64, 3)
            verdicts = [[judge(image, caption) for image in row] for row, caption in zip(images, captions, strict=True)]
            with replacing(file) as stream:
                np.savez(
                    stream,
                    scores=np.array([[verdict.score for verdict in row] for row in verdicts]),
                    perfect=np.array([[verdict.is_perfect for verdict in row] for row in verdicts], float),
                    likeness=np.array([[similarity(image, row[-1]) for image in row] for row in images]),
                )
        parts.append(np.load(file))
    return Curves(**{key: np.stack([part[key] for part in parts], 1) for key in ("scores", "likeness", "perfect")})


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of the luminance, with a Gaussian window of 1.5 px (Wang et al. 2004)."""
    x, y = (image.astype(float) @ np.array([0.299, 0.587, 0.114]) for image in (a, b))

    def smooth(plane: Array) -> Array:
        smoothed: Array = ndimage.gaussian_filter(plane, 1.5, truncate=3.5)
        return smoothed

    mx, my = smooth(x), smooth(y)
    vx, vy, vxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def needed(values: Array, limit: Array | float, ladder: Sequence[int]) -> Array:
    """log2 of the least step count from which on an image stays at or above its limit. values: (..., steps)."""
    stays = np.logical_and.accumulate((values >= limit)[..., ::-1], -1)[..., ::-1]
    first = np.where(stays.any(-1), stays.argmax(-1), len(ladder) - 1)
    steps: Array = np.log2(np.asarray(ladder, float))[first]
    return steps


def icc(values: Array) -> float:
    """Share of the variance that is due to the prompt: one-way random effects, ICC(1). values: (prompts, seeds)."""
    seeds = values.shape[1]
    between = seeds * values.mean(1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    total = between + (seeds - 1) * within
    return float((between - within) / total) if total > 0 else 0.0


def interval(figure: Callable[[Array], float], values: Array) -> tuple[float, float, float]:
    """A figure with its 95 % bootstrap interval over the first axis (prompts)."""
    rng = np.random.default_rng(0)
    draws = [figure(values[rng.integers(0, len(values), len(values))]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return figure(values), float(low), float(high)


def table(found: Mapping[Level, Curves], ladder: Sequence[int]) -> str:
    """Markdown: score by level and step count, the share of the last step count's, the rise, and the ICC."""
    lines = [f"| score | {' | '.join(map(str, ladder))} |", f"|---|{'---|' * len(ladder)}"]
    shares = [f"\n| share of {ladder[-1]} steps | {' | '.join(map(str, ladder))} |", f"|---|{'---|' * len(ladder)}"]
    rises = []
    for level, some in found.items():
        means = some.scores.mean(1)  # (captions, steps)
        cells = [interval(lambda v: float(v.mean()), means[:, k]) for k in range(len(ladder))]
        lines.append(f"| {level} | {' | '.join(f'{m:.3f} [{a:.3f}, {b:.3f}]' for m, a, b in cells)} |")
        last = max(means[:, -1].mean(), 1e-9)
        shares.append(f"| {level} | {' | '.join(f'{x / last:.3f}' for x in means.mean(0))} |")
        lines.append(f"| {level}, perfect | {' | '.join(f'{x:.3f}' for x in some.perfect.mean((0, 1)))} |")
        if 4 in ladder and 12 in ladder:
            rise = means[:, list(ladder).index(12)] - means[:, list(ladder).index(4)]
            mean, low, high = interval(lambda v: float(v.mean()), rise)
            rises.append(f"{level}: 12 steps − 4 steps = {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return "\n".join([*lines, *shares, "", *rises, *_shares_of_prompts(found, ladder)])


def _shares_of_prompts(found: Mapping[Level, Curves], ladder: Sequence[int]) -> Iterator[str]:
    likeness, scores = (
        np.concatenate([getattr(some, key) for some in found.values()]) for key in ("likeness", "scores")
    )
    seeds = scores.shape[1]
    if seeds < 2:
        return
    levels = np.repeat(np.arange(len(found)), [len(some.scores) for some in found.values()])
    for name, steps in (
        (f"similarity ≥ {_NEAR} to {ladder[-1]} steps", needed(likeness, _NEAR, ladder)),
        (f"{_ENOUGH:.0%} of the score at {ladder[-1]} steps", needed(scores, _ENOUGH * scores[..., -1:], ladder)),
    ):
        mean, low, high = interval(icc, steps)
        medians = [f"{level} {2 ** np.median(steps[levels == place]):.1f}" for place, level in enumerate(found)]
        yield f"steps needed for {name}: ICC {mean:.2f} [{low:.2f}, {high:.2f}] over {seeds} seeds"
        yield f"  medians: {', '.join(medians)}"


def draw_figure(found: Mapping[Level, Curves], ladder: Sequence[int], file: Path) -> None:
    """Draw the score against steps with its 95 % interval, one line per level, as PNG."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for (level, some), colour in zip(found.items(), ("#0072B2", "#E69F00", "#009E73"), strict=False):
        means = some.scores.mean(1)
        cells = np.array([interval(lambda v: float(v.mean()), means[:, k]) for k in range(len(ladder))])
        axis.fill_between(ladder, cells[:, 1], cells[:, 2], color=colour, alpha=0.2)
        axis.plot(ladder, cells[:, 0], color=colour, marker="o", label=level)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ladder, [str(steps) for steps in ladder])
    axis.minorticks_off()
    axis.set_xlabel("denoising steps")
    axis.set_ylabel("scene")
    axis.set_title("Held-out captions by openness, 95 % bootstrap interval", loc="left", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(file, dpi=120, metadata={"Software": None})


def held_out_captions(count: int) -> dict[Level, list[Caption]]:
    """Distinct test captions of each level."""
    return {level: draw_distinct(count, level, "test", seed=_SEED) for level in LEVELS}
