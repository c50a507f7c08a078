"""The denoiser: a text-conditional UNet over the latents, and the pipeline it is part of.

v-prediction on the cosine schedule, whose last step is pure noise, with trailing spacing: the setting in which both few
and many steps are in distribution ("Common Diffusion Noise Schedules and Sample Steps are Flawed",
arXiv:2305.08891). The text encoder starts as the CLIP text tower and learns on with the denoiser.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from perjoule_suites.tiny.autoencoder import LATENT_CHANNELS, to_tensor
from perjoule_suites.tiny.clip import tokenize
from perjoule_suites.tiny.dataset import Dataset
from perjoule_suites.tiny.scenes import caption
from perjoule_suites.tiny.training import Recipe, fit, seed_everything

# from scratch; the committed weights took 3,400 steps after a start from an earlier network's (see MODEL_CARD.md)
RECIPE = Recipe(
    name="denoiser",
    steps=8_000,
    learning_rate=1e-3,
    weight_decay=0.01,
    ema_decay=0.999,
    seed=7,
    warmup_steps=300,
)
LATENT_SIDE = 16
_BATCH, _CAPTION_DROPOUT, _TWO_THINGS_SHARE = 32, 0.1, 0.65


class ConditionedDenoiser(nn.Module):
    """UNet and text encoder, trained as one."""

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            # the coarsest level is 4 x 4 on purpose: a convolution finds its position by the zeros beyond the border
            # alone, and with two levels (16, 8) captions moved nothing: place and order stayed at chance
            block_out_channels=(64, 128, 96),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=text_encoder.config.hidden_size,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """(n, 8, 16, 16), (n,), (n, 32) -> predicted velocity, like `noisy`."""
        states = self.text_encoder(token_ids).last_hidden_state
        velocity: torch.Tensor = self.unet(noisy, timestep, states).sample
        return velocity.float()


def scheduler() -> DDIMScheduler:
    """The scheduler that the family is trained and shipped with."""
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


@torch.inference_mode()
def encode_all(vae: AutoencoderKL, images: NDArray[np.uint8]) -> torch.Tensor:
    """(n, 64, 64, 3) uint8 -> (n, 8, 16, 16) float16 latents."""
    parts = []
    for start in range(0, len(images), 100):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(vae.encode(to_tensor(images[start : start + 100])).latent_dist.mode().half())
    return torch.cat(parts)


def cached_latents(vae: AutoencoderKL, data: Dataset, file: Path, count: int) -> torch.Tensor:
    """The latents of the first `count` images, encoded once and kept in `file`."""
    if not file.exists():
        torch.save(encode_all(vae, data.images[:count]), file)
    latents: torch.Tensor = torch.load(file, weights_only=True)
    return latents


def train(
    data: Dataset,
    latents: torch.Tensor,
    held_out: Dataset,
    held_out_latents: torch.Tensor,
    tokenizer: CLIPTokenizer,
    clip: CLIPModel,
    workdir: Path,
    recipe: Recipe = RECIPE,
) -> ConditionedDenoiser:
    """Train UNet and text encoder together. latents: (n, 8, 16, 16) of `data.images[:n]`."""
    seed_everything(recipe.seed)
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    model = ConditionedDenoiser(text_encoder)
    alphas = scheduler().alphas_cumprod

    def v_loss(clean: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        a, s = alphas[t].sqrt()[:, None, None, None], (1 - alphas[t]).sqrt()[:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(a * clean + s * noise, t, ids)
        return F.mse_loss(velocity, a * noise - s * clean)

    # colours and shapes of places are learnt last, so scenes of two things are more frequent than in the data
    two = np.array([len(scene.things) == 2 for scene in data.scenes[: len(latents)]])
    pools = (np.flatnonzero(~two), np.flatnonzero(two))

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        index = np.array([rng.choice(pools[int(rng.random() < _TWO_THINGS_SHARE)]) for _ in range(_BATCH)])
        texts = [caption(data.scenes[int(i)], rng) for i in index]
        ids = tokenize(tokenizer, ["" if rng.random() < _CAPTION_DROPOUT else text for text in texts])
        noise = torch.from_numpy(rng.standard_normal((_BATCH, *latents.shape[1:]), dtype=np.float32))
        loss = v_loss(latents[index].float(), torch.from_numpy(draw_timesteps(rng, _BATCH)), noise, ids)
        return loss, {}

    probe = torch.Generator().manual_seed(0)
    held_latents = held_out_latents[:256].float()
    held_ids = tokenize(tokenizer, [caption(s) for s in held_out.scenes[: len(held_latents)]])
    held_noise, held_t = (
        torch.randn(held_latents.shape, generator=probe),
        torch.linspace(0, 999, len(held_latents)).long(),
    )

    @torch.no_grad()
    def validate() -> dict[str, float]:
        return {"held_out_v_loss": v_loss(held_latents, held_t, held_noise, held_ids).item()}

    fit(recipe, model, loss_of, workdir, validate=validate, validate_every=500)
    return model.eval()


def draw_timesteps(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Nearly half from the noisiest quarter, a third from the middle, the rest uniform. -> (count,) in 0..999.

    A large flat shape is visible in strong noise: down to a tenth of the signal the network can find positions without
    the caption. Layout is learnt only with more noise, which is rare with uniform sampling: with it,
    shapes and colours came out right after 3,000 steps and places were still at chance.
    """
    pick = rng.random(count)
    noisy = 1 - 0.25 * rng.random(count) ** 1.5
    middle = 1 / (1 + np.exp(-rng.standard_normal(count)))
    share = np.where(pick < 0.45, noisy, np.where(pick < 0.8, middle, rng.random(count)))
    return np.minimum((share * 1000).astype(np.int64), 999)


def assemble(vae: AutoencoderKL, model: ConditionedDenoiser, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The ordinary diffusers pipeline around the trained parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
