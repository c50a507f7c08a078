"""The denoiser: a UNet of three levels that reads the caption at 16 x 16 and at 8 x 8.

Counting things and keeping them apart is decided at 16 x 16, so the caption is read there too. The coarsest level,
4 x 4, lets the network find places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from perjoule.suite.timesteps import short_first
from perjoule_suites.tiny.clip import tokenize
from perjoule_suites.tiny.data import Latents
from perjoule_suites.tiny.fitting import Peers, Recipe, fit, seed_everything
from perjoule_suites.tiny.sampling import LATENT_SHAPE, draw, scheduler, signal_and_noise
from perjoule_suites.tiny.world.captions import Caption, Level, draw_distinct
from perjoule_suites.tiny.world.score import judge

RECIPE = Recipe(
    name="denoiser",
    steps=17_000,
    learning_rate=1e-3,
    weight_decay=0.01,
    ema_decay=0.9995,
    seed=7,
    warmup_steps=500,
    restarts=(12_000,),
)
SCENES, HELD_OUT_SCENES = 100_000, 500
_BATCH, _CAPTION_DROPOUT_PERCENT = 32, 10
# of a batch, in addition to the pairs among the other scenes: without more of them, attributes went to the wrong thing
_MORE_PAIRS_FROM, _MORE_PAIRS = RECIPE.restarts[0], 0.5
_DEV_CAPTIONS: dict[Level, int] = {"closed": 40, "half open": 80, "open": 40}
_DEV_EVERY, _DEV_STEPS = 1_000, 12


class ConditionedDenoiser(nn.Module):
    """UNet and text encoder, trained as one."""

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = UNet2DConditionModel(
            sample_size=LATENT_SHAPE[1],
            in_channels=LATENT_SHAPE[0],
            out_channels=LATENT_SHAPE[0],
            block_out_channels=(64, 96, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=text_encoder.config.hidden_size,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """(n, 8, 16, 16), (n,), (n, 32) -> predicted velocity, like `noisy`."""
        states = self.text_encoder(token_ids).last_hidden_state
        velocity: torch.Tensor = self.unet(noisy, timestep, states).sample
        return velocity


def build(towers: CLIPModel) -> ConditionedDenoiser:
    """The untrained UNet with the text tower of CLIP."""
    text_encoder = CLIPTextModel(towers.config.text_config)
    text_encoder.load_state_dict(towers.text_model.state_dict())
    return ConditionedDenoiser(text_encoder).to(memory_format=torch.channels_last)


def train(
    data: Latents,
    held_out: Latents,
    parts: tuple[CLIPTokenizer, CLIPModel, AutoencoderKL],
    workdir: Path,
    recipe: Recipe,
    peers: Peers | None = None,
) -> ConditionedDenoiser:
    """Train UNet and text encoder together; the log also has scores of development captions by openness."""
    words, towers, vae = parts
    seed_everything(recipe.seed)
    model = build(towers)

    pairs = np.flatnonzero([caption.kind == "pair" for caption in data.captions])

    def v_loss(clean: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        signal, sigma = signal_and_noise(t)
        return F.mse_loss(model(signal * clean + sigma * noise, t, ids), signal * noise - sigma * clean)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        index = rng.integers(0, len(data.captions), _BATCH)
        if step >= _MORE_PAIRS_FROM:
            index = np.where(rng.random(_BATCH) < _MORE_PAIRS, rng.choice(pairs, _BATCH), index)
        texts = ["" if rng.integers(100) < _CAPTION_DROPOUT_PERCENT else data.captions[int(i)].text(rng) for i in index]
        noise = torch.from_numpy(rng.standard_normal((_BATCH, *data.latents.shape[1:]), dtype=np.float32))
        clean, t = torch.from_numpy(data.latents[index]).float(), torch.from_numpy(draw_timesteps(rng, _BATCH))
        mine = peers.part(_BATCH) if peers else slice(None)
        return v_loss(clean[mine], t[mine], noise[mine], tokenize(words, texts[mine])), {}

    held = torch.from_numpy(held_out.latents).float()
    held_ids = tokenize(words, [caption.text() for caption in held_out.captions])
    held_noise = torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    held_t = torch.linspace(0, 999, len(held)).long()
    captions = dev_captions(_DEV_CAPTIONS)

    @torch.no_grad()
    def validate() -> dict[str, float]:
        model.eval()
        figures = {"held_out_v_loss": v_loss(held, held_t, held_noise, held_ids).item()}
        network = (model.unet, model.text_encoder, words, vae)
        for level, some in captions.items():
            images = draw(network, [caption.text() for caption in some], short_first(_DEV_STEPS))
            figures |= {f"{level}: {name}": value for name, value in means(images, some).items()}
        model.train()
        return figures

    fit(recipe, model, loss_of, workdir, validate=validate, validate_every=_DEV_EVERY, peers=peers)
    return model.eval()


def draw_timesteps(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Draw timesteps, mostly where layout and count are decided. -> (count,) in 0..999.

    Three in ten come from the noisiest quarter and four in ten from around 570; the rest is uniform. At strong noise
    the caption is all there is to find places by, and in the middle the things separate.
    """
    pick = rng.random(count)
    noisy = 1 - 0.25 * rng.random(count) ** 1.2
    middle = 1 / (1 + np.exp(-0.3 - rng.standard_normal(count)))
    share = np.where(pick < 0.3, noisy, np.where(pick < 0.7, middle, rng.random(count)))
    return np.minimum((share * 1000).astype(np.int64), 999)


def dev_captions(counts: Mapping[Level, int]) -> dict[Level, list[Caption]]:
    """Distinct development captions of each level."""
    return {level: draw_distinct(count, level, "dev", seed=8) for level, count in counts.items()}


def means(images: NDArray[np.uint8], captions: Sequence[Caption]) -> dict[str, float]:
    """Mean score, and shares of satisfied and of perfect pictures."""
    verdicts = [judge(image, caption) for image, caption in zip(images, captions, strict=True)]
    return {
        "score": float(np.mean([verdict.score for verdict in verdicts])),
        "satisfied": float(np.mean([verdict.is_satisfied for verdict in verdicts])),
        "perfect": float(np.mean([verdict.is_perfect for verdict in verdicts])),
    }


def assemble(vae: AutoencoderKL, model: ConditionedDenoiser, words: CLIPTokenizer) -> StableDiffusionPipeline:
    """The ordinary diffusers pipeline around the trained parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=words,
        unet=model.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
