"""The autoencoder: 64 x 64 pixels to 16 x 16 x 8 latents, an ordinary diffusers `AutoencoderKL`.

It is trained on crops of fresh renders.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from perjoule_suites.tiny.fitting import Recipe, fit, seed_everything
from perjoule_suites.tiny.world.captions import Split, draw_caption
from perjoule_suites.tiny.world.scenes import SIDE_PX, draw_scene, render

# The learning rate of the first trained weights followed a schedule of 10,000 steps until step 3,200, and things at a
# side of their pictures were up to 2 px nearer to the border than `scenes` draws them now.
RECIPE = Recipe(
    name="autoencoder", steps=6_000, learning_rate=2.5e-3, ema_decay=0.999, weight_decay=1e-3, warmup_steps=200, seed=1
)
LATENT_CHANNELS = 8
_HELD_OUT, _STATISTICS = 256, 2_048
_BATCH, _CROP_PX, _KL_WEIGHT, _MSE_WEIGHT, _EDGE_WEIGHT = 16, 32, 2e-4, 4.0, 0.5


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


def renders(rng: np.random.Generator, count: int, split: Split = "train") -> NDArray[np.uint8]:
    """Renders of random captions. -> (count, 64, 64, 3) uint8."""
    return np.stack([render(draw_scene(draw_caption(rng, split=split), rng)) for _ in range(count)])


def train(workdir: Path, recipe: Recipe) -> AutoencoderKL:
    """Train on random crops; then fold the latents' mean and scale into the network."""
    seed_everything(recipe.seed)
    vae = build().to(memory_format=torch.channels_last)
    sample = renders(np.random.default_rng(2), _HELD_OUT, "dev")

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        images = renders(rng, _BATCH)
        top, left = rng.integers(0, SIDE_PX - _CROP_PX + 1, 2)
        real = to_tensor(images[:, top : top + _CROP_PX, left : left + _CROP_PX])
        posterior = vae.encode(real).latent_dist
        fake = vae.decode(posterior.sample(torch.Generator().manual_seed(step))).sample
        kl = posterior.kl().mean() / (LATENT_CHANNELS * (_CROP_PX // 4) ** 2)
        error = fake - real
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        pixels = error.abs().mean() + _MSE_WEIGHT * error.square().mean()
        return pixels + _EDGE_WEIGHT * edges + _KL_WEIGHT * kl, {"kl": kl.item()}

    fit(recipe, vae, loss_of, workdir, validate=lambda: {"psnr_db": psnr(vae, sample)})
    normalise_latents(vae, to_tensor(renders(np.random.default_rng(3), _STATISTICS)))
    return vae


@torch.inference_mode()
def round_trip(vae: AutoencoderKL, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode and decode. (n, 64, 64, 3) uint8 -> the same shape."""
    parts = [
        to_pixels(vae.decode(vae.encode(to_tensor(images[start : start + 64])).latent_dist.mode()).sample)
        for start in range(0, len(images), 64)
    ]
    return np.concatenate(parts)


def to_pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    """(n, 3, h, w) in [-1, 1] -> (n, h, w, 3) uint8."""
    pixels: NDArray[np.uint8] = ((images.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).byte().numpy()
    return pixels


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
