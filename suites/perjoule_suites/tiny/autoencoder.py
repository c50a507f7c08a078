"""The autoencoder: 64 x 64 pixels to 16 x 16 x 8 latents, an ordinary diffusers `AutoencoderKL`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from perjoule_suites.tiny.dataset import Dataset
from perjoule_suites.tiny.training import Recipe, fit, seed_everything

LATENT_CHANNELS = 8
RECIPE = Recipe(name="autoencoder", steps=6_500, learning_rate=2.5e-3, ema_decay=0.995, weight_decay=1e-3)
_BATCH, _CROP_PX, _KL_WEIGHT = 16, 32, 5e-4


def build() -> AutoencoderKL:
    """The untrained network: 4 x down, no attention, 0.8 M parameters."""
    return AutoencoderKL(
        block_out_channels=(24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(data: Dataset, held_out: Dataset, workdir: Path, recipe: Recipe = RECIPE) -> AutoencoderKL:
    """Train on random crops; then fold the latents' mean and scale into the network."""
    seed_everything(recipe.seed)
    vae = build()

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        images = data.images[np.sort(rng.integers(0, len(data.scenes), _BATCH))]
        top, left = rng.integers(0, images.shape[1] - _CROP_PX + 1, 2)
        crop = images[:, top : top + _CROP_PX, left : left + _CROP_PX]
        real = to_tensor(crop)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(real).latent_dist
            fake = vae.decode(posterior.sample(torch.Generator().manual_seed(step))).sample
        fake = fake.float()
        kl = posterior.kl().mean() / (LATENT_CHANNELS * (_CROP_PX // 4) ** 2)
        pixel = F.l1_loss(fake, real) + F.mse_loss(fake, real)
        return pixel + 0.5 * _gradient_l1(fake, real) + _KL_WEIGHT * kl, {"kl": kl.item()}

    sample = held_out.images[:256]
    fit(recipe, vae, loss_of, workdir, validate=lambda: {"psnr_db": psnr(vae, sample)})
    normalise_latents(vae, to_tensor(data.images[:2_048]))
    return vae


def _gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    d = a - b
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()


@torch.inference_mode()
def psnr(vae: AutoencoderKL, images: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of decode(mode(encode(x))) as 8-bit images, averaged over images."""
    values = []
    for start in range(0, len(images), 64):
        batch = images[start : start + 64]
        fake = vae.decode(vae.encode(to_tensor(batch)).latent_dist.mode()).sample
        fake8 = ((fake.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
        values.append(((fake8 - batch) ** 2).mean(axis=(1, 2, 3)))
    return float(np.mean(10 * np.log10(255**2 / np.concatenate(values))))


@torch.inference_mode()
def normalise_latents(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold per-channel mean and scale into `quant_conv` and `post_quant_conv`: latents become N(0, 1) per channel.

    The images do not change, and `scaling_factor` is 1. Both convolutions are 1 x 1, so the fold is exact.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in images.split(64)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    if into is None or out is None:
        raise TypeError("the autoencoder has no quantisation convolutions to fold the statistics into")
    n = LATENT_CHANNELS
    # the first n outputs of quant_conv are the mean of the posterior, the last n its log variance
    into.weight[:n] /= std[:, None, None, None]
    into.bias[:n] = (into.bias[:n] - mean) / std
    into.bias[n:] -= 2 * std.log()
    out.bias += torch.einsum("oi,i->o", out.weight[:, :, 0, 0], mean)
    out.weight *= std[None, :, None, None]
