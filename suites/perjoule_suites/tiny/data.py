"""Captions and latents of fresh renders, encoded once and stored in parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from perjoule.files import replacing
from perjoule_suites.tiny.autoencoder import to_tensor
from perjoule_suites.tiny.world.captions import Caption, Split, draw_caption
from perjoule_suites.tiny.world.scenes import draw_scene, render

_PART, _CLOSED_PERCENT = 1_000, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """latents[i] is the encoded render of a scene of captions[i]. latents: (n, 8, 16, 16) float16."""

    captions: list[Caption]
    latents: NDArray[np.float16]


def training_captions(rng: np.random.Generator, count: int, split: Split = "train") -> list[Caption]:
    """Captions as trainings use them: 15 % closed, the rest with a uniform share of open slots."""
    return [
        draw_caption(rng, split=split, openness=0.0 if rng.integers(100) < _CLOSED_PERCENT else None)
        for _ in range(count)
    ]


def load_or_encode(folder: Path, vae: AutoencoderKL, *, count: int, split: Split, seed: int) -> Latents:
    """Return the latents in `folder`; missing parts are rendered and encoded first."""
    folder.mkdir(parents=True, exist_ok=True)
    captions, latents = list[Caption](), []
    for start in range(0, count, _PART):
        size = min(_PART, count - start)
        rng = np.random.default_rng([seed, start])
        captions += training_captions(rng, size, split)
        file = folder / f"{split}-{seed}-{start:06d}.npy"
        if not file.exists():
            images = np.stack([render(draw_scene(caption, rng)) for caption in captions[start:]])
            with replacing(file) as stream:
                np.save(stream, encode(vae, images))
        latents.append(np.load(file))
    return Latents(captions=captions, latents=np.concatenate(latents))


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(n, 64, 64, 3) uint8 -> (n, 8, 16, 16) float16 latents."""
    parts = [
        vae.encode(to_tensor(images[start : start + 50])).latent_dist.mode().half().numpy()
        for start in range(0, len(images), 50)
    ]
    return np.concatenate(parts)
