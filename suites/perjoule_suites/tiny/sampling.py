"""Draws pictures with the networks themselves: deterministic DDIM along any schedule, many captions at a time.

The noise schedule is the cosine schedule, whose last step is pure noise ("Common Diffusion Noise Schedules and Sample
Steps are Flawed", arXiv:2305.08891). `short_first` is the schedule that the models are shipped with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import CLIPTextModel, CLIPTokenizer

from perjoule.suite.seeding import image_seed
from perjoule_suites.tiny.autoencoder import LATENT_CHANNELS, to_pixels
from perjoule_suites.tiny.clip import tokenize

GUIDANCE = 2.0
LATENT_SHAPE = (LATENT_CHANNELS, 16, 16)


def scheduler() -> DDIMScheduler:
    """The scheduler that the models are trained and shipped with."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


_ALPHAS = scheduler().alphas_cumprod


def seeds_noise(texts: Sequence[str], seed: int) -> torch.Tensor:
    """Return the initial noise, as a suite draws it: from the caption and the seed. -> (n, 8, 16, 16)."""
    generators = [torch.Generator().manual_seed(image_seed(text, seed)) for text in texts]
    return torch.stack([torch.randn(LATENT_SHAPE, generator=generator) for generator in generators])


def signal_and_noise(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales of signal and noise at timesteps. (n,) -> two of (n, 1, 1, 1)."""
    alphas = _ALPHAS[t][:, None, None, None]
    return alphas.sqrt(), (1 - alphas).sqrt()


@torch.no_grad()
def latents_of(
    unet: UNet2DConditionModel,
    states: torch.Tensor,
    noise: torch.Tensor,
    timesteps: Sequence[int],
    *,
    empty: torch.Tensor | None = None,
    guidance: float = GUIDANCE,
) -> torch.Tensor:
    """Denoise. states: (n, 32, 128) of the captions; empty: (1, 32, 128) of the empty caption, None for no guidance."""
    latents = noise
    for index, t in enumerate(timesteps):
        now = torch.full((len(latents),), t)
        if empty is None:
            velocity = _velocity(unet, latents, now, states)
        else:
            both = torch.cat([empty.expand_as(states), states])
            plain, worded = _velocity(unet, latents.repeat(2, 1, 1, 1), now.repeat(2), both).chunk(2)
            velocity = plain + guidance * (worded - plain)
        signal, sigma = signal_and_noise(now)
        clean, direction = signal * latents - sigma * velocity, signal * velocity + sigma * latents
        if index + 1 == len(timesteps):
            return clean
        signal, sigma = signal_and_noise(torch.full((len(latents),), timesteps[index + 1]))
        latents = signal * clean + sigma * direction
    return latents


def _velocity(unet: UNet2DConditionModel, x: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    width = unet.config.time_cond_proj_dim
    velocity: torch.Tensor = unet(x, t, states, timestep_cond=torch.zeros(len(x), width) if width else None).sample
    return velocity


@torch.no_grad()
def text_states(encoder: CLIPTextModel, words: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Text embeddings for the UNet. -> (n, 32, 128)."""
    states: torch.Tensor = encoder(tokenize(words, list(texts))).last_hidden_state
    return states


@torch.no_grad()
def draw(
    parts: tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer, AutoencoderKL],
    texts: Sequence[str],
    timesteps: Sequence[int],
    *,
    seed: int = 1,
    guidance: float | None = GUIDANCE,
    batch: int = 25,
) -> NDArray[np.uint8]:
    """Draw one picture per caption. guidance: None for a student with built-in guidance. -> (n, 64, 64, 3) uint8."""
    unet, encoder, words, vae = parts
    empty = text_states(encoder, words, [""]) if guidance is not None else None
    pictures = []
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        states, noise = text_states(encoder, words, some), seeds_noise(some, seed)
        latents = latents_of(unet, states, noise, timesteps, empty=empty, guidance=guidance or 1.0)
        pictures.append(to_pixels(vae.decode(latents).sample))
    return np.concatenate(pictures)
