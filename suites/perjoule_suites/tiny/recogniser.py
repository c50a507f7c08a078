"""The recogniser, which reports the contents of an image to check independently how well it follows its caption.

Trained on renders only and never used to train a generator, it finds in a 64 x 64 image the number of things, their
arrangement, each thing's colour, shape, texture and size, and the ground. The share of the caption's attributes that it
finds is the absolute quality score `scene`, comparable across models, step counts and students.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from perjoule_suites.tiny.autoencoder import to_tensor
from perjoule_suites.tiny.dataset import Dataset
from perjoule_suites.tiny.scenes import (
    ARRANGEMENTS,
    COLOURS,
    GROUND_PATTERNS,
    GROUNDS,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
)
from perjoule_suites.tiny.training import Recipe, fit, seed_everything

RECIPE = Recipe(name="recogniser", steps=3_000, learning_rate=2e-3, weight_decay=0.02, ema_decay=0.995, seed=5)
_BATCH = 64

# One head per question: its possible answers, in order.
HEADS: dict[str, tuple[str, ...]] = {
    "arrangement": ARRANGEMENTS,
    "position": POSITIONS,
    "size": SIZES,
    "ground": tuple(GROUNDS),
    "ground_pattern": GROUND_PATTERNS,
    "colour_1": tuple(COLOURS),
    "shape_1": SHAPES,
    "texture_1": TEXTURES,
    "colour_2": tuple(COLOURS),
    "shape_2": SHAPES,
    "texture_2": TEXTURES,
}


def asked(scene: Scene) -> dict[str, str]:
    """Return the answers in a scene's caption, only for questions that apply to it."""
    answers = {
        "arrangement": scene.arrangement,
        "ground": scene.ground,
        "ground_pattern": scene.ground_pattern,
    }
    if scene.arrangement == "single":
        answers |= {"position": scene.position, "size": scene.things[0].size}
    for number, thing in enumerate(scene.things, 1):
        answers |= {
            f"colour_{number}": thing.colour,
            f"shape_{number}": thing.shape,
            f"texture_{number}": thing.texture,
        }
    return answers


class Recogniser(nn.Module):
    """A small convolutional network with one linear head per question."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        channels = 3
        for index, out in enumerate(widths):
            layers += [
                nn.Conv2d(channels, out, 5 if index == 0 else 3, stride=2, padding=2 if index == 0 else 1),
                nn.GroupNorm(8, out),
                nn.SiLU(),
            ]
            if index:
                layers += [nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU()]
            channels = out
        self.body = nn.Sequential(*layers)
        self.neck = nn.Linear(channels * 16, 128)
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in HEADS.items()})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(n, 3, 64, 64) in [-1, 1] -> logits by question."""
        features = F.silu(self.neck(self.body(images).flatten(1)))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def recognise(self, images: NDArray[np.uint8]) -> list[dict[str, str]]:
        """(n, 64, 64, 3) uint8 -> the most likely answer to every question, for each image."""
        answers: list[dict[str, str]] = []
        for start in range(0, len(images), 128):
            logits = self(to_tensor(images[start : start + 128]))
            best = {name: values.argmax(1).tolist() for name, values in logits.items()}
            count = len(images[start : start + 128])
            answers += [{name: HEADS[name][best[name][i]] for name in HEADS} for i in range(count)]
        return answers

    def save_pretrained(self, folder: Path) -> None:
        """Write fp16 safetensors and a config that names the questions and answers."""
        folder.mkdir(parents=True, exist_ok=True)
        half = {k: v.half().contiguous() for k, v in self.state_dict().items()}
        save_file(half, folder / "model.safetensors")
        config = {"heads": {k: list(v) for k, v in HEADS.items()}, "width": self.body[0].out_channels}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: Path) -> Recogniser:
        """Load from a folder that `save_pretrained` wrote."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = cls(config["width"])
        model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return model.eval()


def accuracy(recognised: Sequence[dict[str, str]], scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """Return the share of each scene's attributes that were found: (n,)."""
    shares = []
    for answers, scene in zip(recognised, scenes, strict=True):
        wanted = asked(scene)
        shares.append(sum(answers[k] == v for k, v in wanted.items()) / len(wanted))
    return np.asarray(shares)


def by_attribute(recognised: Sequence[dict[str, str]], scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of scenes whose attribute was found, by question, one thing and two things apart."""
    hits: dict[str, list[bool]] = {}
    for answers, scene in zip(recognised, scenes, strict=True):
        things = "one" if scene.arrangement == "single" else "two"
        right = {k: answers[k] == v for k, v in asked(scene).items()}
        for name, hit in right.items():
            hits.setdefault(f"{things}.{name}", []).append(hit)
        if things == "two":
            for name in ("colour", "shape", "texture"):
                hits.setdefault(f"two.both_{name}s", []).append(right[f"{name}_1"] and right[f"{name}_2"])
        hits.setdefault(f"{things}.everything", []).append(all(right.values()))
    return {name: float(np.mean(values)) for name, values in sorted(hits.items())}


def train(data: Dataset, held_out: Dataset, workdir: Path, recipe: Recipe = RECIPE) -> Recogniser:
    """Train on renders, roughened so that small flaws of a generated image do not confuse the judge."""
    seed_everything(recipe.seed)
    model = Recogniser()
    targets = {name: np.full(len(data.scenes), -100) for name in HEADS}
    for row, scene in enumerate(data.scenes):
        for name, value in asked(scene).items():
            targets[name][row] = HEADS[name].index(value)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        index = np.sort(rng.integers(0, len(data.scenes), _BATCH))
        images = _roughen(to_tensor(data.images[index]), rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        loss = torch.stack(
            [F.cross_entropy(logits[k].float(), torch.from_numpy(targets[k][index])) for k in HEADS]
        ).nansum()
        return loss, {}

    def validate() -> dict[str, float]:
        scenes, images = held_out.scenes[:1_000], held_out.images[:1_000]
        figures = by_attribute(model.recognise(images), scenes)
        return {k: v for k, v in figures.items() if "everything" in k or "shape" in k}

    fit(recipe, model, loss_of, workdir, validate=validate)
    return model.eval()


def _roughen(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur, noise, and a slight change of brightness and tint, each on some of the images."""
    n = len(images)
    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    amount = torch.from_numpy(rng.uniform(0, 0.9, n) * (rng.random(n) < 0.4)).float()[:, None, None, None]
    images = images + (soft - images) * amount
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    sigma = torch.from_numpy(rng.uniform(0, 0.12, n) * (rng.random(n) < 0.5)).float()[:, None, None, None]
    tint = torch.from_numpy(rng.normal(0, 0.04, (n, 3, 1, 1))).float()
    return (images + noise * sigma + tint).clamp(-1, 1)
