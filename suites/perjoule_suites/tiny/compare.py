"""Teacher and students on the same held-out captions and noise: quality with paired intervals, and time per step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPTokenizer

from perjoule.quality.distractors import choose
from perjoule.types import Prompt
from perjoule_suites.tiny.autoencoder import to_tensor
from perjoule_suites.tiny.clip import tokenize
from perjoule_suites.tiny.evaluate import generate
from perjoule_suites.tiny.recogniser import Recogniser, accuracy
from perjoule_suites.tiny.scenes import Scene, caption, render

METRICS = ("scene", "r_precision", "clip_text", "sharpness")
_RESAMPLES, _TIMED_CALLS = 10_000, 60

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting. model: key of the pipelines; steps: denoising steps."""

    model: str
    steps: int

    def __str__(self) -> str:
        return f"{self.model}, {self.steps} step{'s' if self.steps > 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """The models that score the images."""

    recogniser: Recogniser
    clip: CLIPModel
    tokenizer: CLIPTokenizer


def _ladder(model: str, *steps: int) -> tuple[Setting, ...]:
    return tuple(Setting(model=model, steps=n) for n in steps)


SETTINGS = (
    *_ladder("sd-tiny", 1, 2, 4, 12, 25),
    *_ladder("sd-tiny-lcm", 1, 2, 4, 8),
    *_ladder("sd-tiny-pruned", 4, 12, 25),
)
# (student, setting that it is compared with)
QUESTIONS = (
    *((Setting(model="sd-tiny-lcm", steps=n), Setting(model="sd-tiny", steps=n)) for n in (1, 2, 4)),
    (Setting(model="sd-tiny-lcm", steps=4), Setting(model="sd-tiny", steps=12)),
    *((Setting(model="sd-tiny-pruned", steps=n), Setting(model="sd-tiny", steps=n)) for n in (4, 12, 25)),
)


def score(
    pipeline: StableDiffusionPipeline, steps: int, scenes: Sequence[Scene], judges: Judges, seeds: Sequence[int]
) -> Scores:
    """Return each metric for each scene, averaged over seeds. -> name: (n,)."""
    texts = [caption(scene) for scene in scenes]
    by_seed = [judge(generate(pipeline, texts, steps, seed=seed), scenes, judges) for seed in seeds]
    return {name: np.mean([scores[name] for scores in by_seed], axis=0) for name in METRICS}


@torch.inference_mode()
def judge(images: NDArray[np.uint8], scenes: Sequence[Scene], judges: Judges) -> Scores:
    """Score one image per scene, with the other captions as distractors. images: (n, 64, 64, 3) uint8 -> name: (n,)."""
    texts = [caption(scene) for scene in scenes]
    ids = tokenize(judges.tokenizer, texts)
    words = F.normalize(judges.clip.get_text_features(ids).pooler_output)
    vectors = F.normalize(judges.clip.get_image_features(to_tensor(images)).pooler_output)
    cosines = (vectors @ words.T).double().numpy()
    place = {text: i for i, text in enumerate(texts)}
    rivals = [[place[t] for t in choose(Prompt(prompt_id=text, text=text), texts, ())] for text in texts]
    own = cosines.diagonal()
    return {
        "scene": accuracy(judges.recogniser.recognise(images), scenes),
        "r_precision": np.array([float(own[i] > cosines[i, others].max()) for i, others in enumerate(rivals)]),
        "clip_text": own.copy(),
        "sharpness": sharpness(images, scenes),
    }


def sharpness(images: NDArray[np.uint8], scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """Return the variance of the Laplacian relative to a render of the scene; less than 1 is blurred."""
    rng = np.random.default_rng(0)
    renders = np.stack([render(scene, rng) for scene in scenes])
    ratio = (_edges(images) + 1e-9) / (_edges(renders) + 1e-9)
    return np.minimum(ratio, 1 / ratio)


@torch.inference_mode()
def sharpness_limits(vae: AutoencoderKL, scenes: Sequence[Scene]) -> tuple[float, float]:
    """Mean sharpness of other renders of the scenes, and of these renders through the autoencoder."""
    rng = np.random.default_rng(1)
    renders = np.stack([render(scene, rng) for scene in scenes])
    decoded = vae.decode(vae.encode(to_tensor(renders)).latent_dist.mode()).sample
    pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    return float(sharpness(renders, scenes).mean()), float(sharpness(pixels, scenes).mean())


def _edges(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    grey = images.astype(np.float64).mean(-1)
    middle = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    variance: NDArray[np.float64] = (around - 4 * middle).var(axis=(1, 2))
    return variance


@torch.inference_mode()
def step_ms(unets: Mapping[str, UNet2DConditionModel], rows: int = 2) -> dict[str, float]:
    """Median milliseconds of one call on `rows` latents; the networks take turns, so that a disturbance affects all."""
    times: dict[str, list[float]] = {name: [] for name in unets}
    latents, states = torch.randn(rows, 8, 16, 16), torch.randn(rows, 32, 128)
    for _ in range(_TIMED_CALLS):
        for name, unet in unets.items():
            width = unet.config.time_cond_proj_dim
            guidance = torch.zeros(rows, width) if width else None
            began = time.perf_counter()
            unet(latents, torch.tensor(500), states, timestep_cond=guidance)
            times[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(values[2:]) for name, values in times.items()}


def interval(values: NDArray[np.float64]) -> str:
    """Mean and its 95 % bootstrap interval over captions; of paired differences, a paired interval."""
    draws = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def table(scores: Mapping[Setting, Scores], questions: Sequence[tuple[Setting, Setting]] = QUESTIONS) -> str:
    """Return two Markdown tables: every setting, and every student minus the setting that it is compared with."""
    head = f"| {{}} | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}"
    lines = [head.format("setting")]
    for setting, metric_scores in scores.items():
        lines.append(f"| {setting} | {' | '.join(interval(metric_scores[name]) for name in METRICS)} |")
    lines += ["", head.format("difference")]
    for student, other in questions:
        if student in scores and other in scores:
            gaps = [interval(scores[student][name] - scores[other][name]) for name in METRICS]
            lines.append(f"| {student} − {other} | {' | '.join(gaps)} |")
    return "\n".join(lines)
