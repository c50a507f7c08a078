from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from perjoule_suites.tiny import autoencoder, clip, dataset, denoiser
from perjoule_suites.tiny.scenes import caption, sample_scene
from perjoule_suites.tiny.training import Recipe, fit

pytestmark = pytest.mark.slow

RECIPE = Recipe(name="line", steps=60, learning_rate=0.05, warmup_steps=5, ema_decay=0.9)


class CutOffError(Exception):
    pass


def train_line(folder: Path, cut_at: int | None = None) -> nn.Linear:
    torch.manual_seed(1)
    line = nn.Linear(3, 1)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        if step == cut_at:
            raise CutOffError
        x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))
        return (line(x)[:, 0] - x.sum(1)).square().mean(), {}

    fit(RECIPE, line, loss_of, folder, checkpoint_every_s=0)
    return line


def test_a_training_that_was_cut_off_ends_where_one_that_was_not_does(tmp_path: Path) -> None:
    whole = train_line(tmp_path / "whole")
    with pytest.raises(CutOffError):
        train_line(tmp_path / "cut", cut_at=23)
    resumed = train_line(tmp_path / "cut")
    assert torch.equal(whole.weight, resumed.weight)
    assert (tmp_path / "cut" / "line.jsonl").read_text().count('"step"') >= 1
    # and what it learnt is the sum it was shown
    assert torch.allclose(whole.weight, torch.ones(1, 3), atol=0.1)


def test_folding_the_statistics_changes_latents_and_no_picture() -> None:
    torch.manual_seed(0)
    vae = autoencoder.build().eval()
    images = torch.rand(6, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mode()).sample
        autoencoder.normalise_latents(vae, images)
        latents = vae.encode(images).latent_dist
        after = vae.decode(latents.mode()).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(latents.mode().mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(latents.mode().std((0, 2, 3)), torch.ones(8), atol=1e-4)


def test_rendered_data_are_kept_and_read_again(tmp_path: Path) -> None:
    first = dataset.load_or_render(tmp_path, count=12, held_out=True, seed=3, workers=1)
    again = dataset.load_or_render(tmp_path, count=12, held_out=True, seed=3, workers=1)
    assert first.scenes == again.scenes
    assert np.array_equal(first.images, again.images)
    assert all(scene.held_out for scene in first.scenes)


def test_no_prompt_falls_out_of_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    tokenizer = clip.train_tokenizer([caption(sample_scene(rng), rng) for _ in range(200)])
    texts = ["a large red circle", "Ein Leuchtturm, größer!", "灯台", "😀", ""]
    ids = clip.tokenize(tokenizer, texts)
    assert ids.shape == (5, clip.TOKEN_COUNT)
    inner = [row[1 : (row == tokenizer.eos_token_id).nonzero()[0, 0]].tolist() for row in ids]
    assert all(inner[:4])
    assert len({tuple(row) for row in inner}) == 5


def test_the_noise_schedule_ends_in_pure_noise() -> None:
    schedule = denoiser.scheduler()
    assert schedule.alphas_cumprod[-1] < 1e-6
    schedule.set_timesteps(4)
    assert schedule.timesteps.tolist() == [999, 749, 499, 249]


def test_timesteps_cover_the_schedule_and_dwell_on_the_noisy_end() -> None:
    drawn = denoiser.draw_timesteps(np.random.default_rng(0), 20_000)
    assert drawn.min() >= 0
    assert drawn.max() == 999
    assert (drawn >= 750).mean() > 0.45
    assert (np.bincount(drawn // 100, minlength=10) > 200).all()
