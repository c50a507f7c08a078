from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch import distributed, nn
from typer.testing import CliRunner

from perjoule.errors import UsageError
from perjoule_suites.tiny.denoiser import scheduler
from perjoule_suites.tiny.training import Peers, Recipe, fit
from perjoule_suites.tiny.world import autoencoder, clip, denoiser, few_step, pruned, training
from perjoule_suites.tiny.world.__main__ import app
from perjoule_suites.tiny.world.captions import draw_caption
from perjoule_suites.tiny.world.export import export
from perjoule_suites.tiny.world.sampling import (
    GUIDANCE,
    draw,
    latents_of,
    seeds_noise,
    short_first,
    text_states,
    trailing,
)
from perjoule_suites.tiny.world.scenes import draw_scene
from perjoule_suites.tiny.world.score import holds, shown_by

pytestmark = pytest.mark.slow

MODULES = (autoencoder, clip, denoiser, few_step, pruned)
FEW = {"closed": 1, "half open": 1, "open": 1}
SMALL = (
    (autoencoder, "_HELD_OUT", 4),
    (autoencoder, "_STATISTICS", 8),
    (clip, "_HELD_OUT", 8),
    (clip, "_TOKENIZER_CAPTIONS", 300),
    (denoiser, "SCENES", 12),
    (denoiser, "HELD_OUT_SCENES", 4),
    (denoiser, "_DEV_CAPTIONS", FEW),
    (denoiser, "_DEV_STEPS", 2),
    (few_step, "PAIR_COUNT", 3),
    (few_step, "_DEV", FEW),
    (pruned, "_DEV", FEW),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The whole chain of trainings, two steps each, on a handful of scenes."""
    out = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "RECIPE", replace(module.RECIPE, steps=2))
            patch.setattr(module, "_BATCH", 4)
        for module, name, value in SMALL:
            patch.setattr(module, name, value)
        training.train_parts(out)
        yield out


def test_the_chain_trains_every_part_and_repeats_none(family: Path) -> None:
    assert all((family / part).is_dir() for part in training.PARTS)
    before = {file: file.stat().st_mtime_ns for file in family.rglob("*") if file.is_file()}
    training.train_parts(family)
    after = {file: file.stat().st_mtime_ns for file in family.rglob("*") if file.is_file()}
    assert {k: v for k, v in after.items() if k.suffix != ".lock"} == {
        k: v for k, v in before.items() if k.suffix != ".lock"
    }
    assert not list(family.glob("*.unfinished"))


@pytest.mark.parametrize("name", ["sd-tiny", "sd-tiny-lcm", "sd-tiny-pruned"])
def test_the_trained_pipelines_load_and_draw(family: Path, name: str) -> None:
    pipeline = DiffusionPipeline.from_pretrained(family / name, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("three stars", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 64, 64, 3)
    assert np.isfinite(image).all()


def test_own_sampling_is_that_of_diffusers(family: Path) -> None:
    """DDIM along the trailing schedule gives the pipeline's picture."""
    pipeline = DiffusionPipeline.from_pretrained(family / "sd-tiny", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    texts = ["three stars", "a red ring"]
    wanted = pipeline(
        texts, num_inference_steps=5, guidance_scale=GUIDANCE, latents=seeds_noise(texts, 1), output_type="np"
    ).images
    network = (pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae)
    found = draw(network, texts, trailing(5), seed=1)
    assert np.abs(found / 255 - wanted).max() <= 1.01 / 255


def test_progress_shows_what_is_finished(family: Path) -> None:
    shown = CliRunner().invoke(app, ["progress", "--out", str(family)])
    assert shown.exit_code == 0, shown.output
    assert "finished: vae, latents, tokenizer, clip, sd-tiny, sd-tiny-lcm, sd-tiny-pruned" in shown.output
    assert "open: score" in shown.output


def test_the_exported_family_is_fp16_and_names_no_path(family: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["export", "--out", str(family), "--to", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "MB of weights: sd-tiny" in shown.output
    own = [file for file in tmp_path.rglob("*.safetensors") if not file.is_symlink()]
    assert len(own) == 6
    assert sum(file.stat().st_size for file in own) < 18.6e6  # and 1.4 MB for step predictors
    for file in tmp_path.rglob("*.json"):
        assert str(family) not in file.read_text()
    for name in ("sd-tiny", "sd-tiny-lcm", "sd-tiny-pruned"):
        assert DiffusionPipeline.from_pretrained(tmp_path / name).unet.dtype == torch.float32
    with pytest.raises(UsageError, match="not trained yet"):
        export(tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["train", "--out", "x", "--only", "unet"], "unknown part 'unet'"),
        (["evaluate", "--model", ".", "--out", "x", "--schedule", "even"], "unknown schedule 'even'"),
        (["evaluate", "--model", ".", "--out", "x", "--steps", "2,four"], "write step counts"),
        (["evaluate", "--model", "nowhere", "--out", "x"], "does not exist"),
        (["validate", "--vae", "nowhere"], "does not exist"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], reason: str) -> None:
    shown = CliRunner().invoke(app, arguments, terminal_width=200)
    assert shown.exit_code == 2
    assert reason in shown.output


def test_timesteps_cover_the_schedule() -> None:
    drawn = denoiser.draw_timesteps(np.random.default_rng(0), 20_000)
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    share = np.bincount(drawn // 250) / len(drawn)
    assert share.min() > 0.08
    assert share[3] > 0.4


def test_a_folder_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.write_folder(tmp_path / "part", fail)
    assert not (tmp_path / "part").exists()
    training.write_folder(tmp_path / "part", lambda folder: (folder / "whole").write_text("x"))
    assert (tmp_path / "part" / "whole").exists()


def test_schedules_start_at_pure_noise_and_fall() -> None:
    steps = scheduler()
    for count in range(1, 26):
        steps.set_timesteps(count)
        assert trailing(count) == steps.timesteps.tolist()
        short = short_first(count)
        assert len(short) == count
        assert short[0] == 999
        assert short == sorted(set(short), reverse=True)
        assert short[-1] >= 0
    assert short_first(3)[1] == 916


def test_guidance_of_one_is_the_captioned_prediction(family: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(family / "sd-tiny", dtype=torch.float32)
    states = text_states(pipeline.text_encoder, pipeline.tokenizer, ["a star", ""])
    noise = seeds_noise(["a star"], 1)
    guided = latents_of(pipeline.unet, states[:1], noise, [999, 500], empty=states[1:], guidance=1.0)
    alone = latents_of(pipeline.unet, states[:1], noise, [999, 500])
    assert torch.allclose(guided, alone, atol=1e-4)


def test_the_pruned_student_starts_with_the_matching_channels(family: Path) -> None:
    teacher = DiffusionPipeline.from_pretrained(family / "sd-tiny", dtype=torch.float32).unet
    student = pruned.build(teacher)
    weights, whole = student.state_dict(), teacher.state_dict()
    assert sum(p.numel() for p in student.parameters()) < 0.45 * sum(p.numel() for p in teacher.parameters())
    name = "up_blocks.1.resnets.0.conv1.weight"
    # inputs: 64 channels from below, then 96 of the skip; the student has 48 of either
    rows = torch.arange(48) * 2
    below, skip = torch.arange(48) * 64 // 48, 64 + torch.arange(48) * 2
    assert torch.equal(weights[name], whole[name][rows][:, torch.cat([below, skip])])


def test_batches_mark_captions_that_fit_and_contradictions_that_do_not() -> None:
    rng = np.random.default_rng(0)
    batch = clip.draw_batch(rng, 32)
    assert batch.fits.diagonal().all()
    assert 32 < batch.fits.sum() < 32 * 32 / 2
    for seed in range(200):
        rng = np.random.default_rng(seed)
        caption = draw_caption(rng)
        seen = shown_by(draw_scene(caption, rng))
        wrong = clip.contradict(caption, seen, rng)
        assert not holds(seen, wrong)
        assert wrong.split == "train"


RECIPE = Recipe(name="line", steps=8, learning_rate=0.05, warmup_steps=2, ema_decay=0.9)


def train_line(folder: Path, peers: Peers | None) -> torch.Tensor:
    torch.manual_seed(1)
    line = nn.Linear(3, 1)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))[peers.part(8) if peers else slice(None)]
        return (line(x)[:, 0] - x.sum(1)).square().mean(), {}

    fit(RECIPE, line, loss_of, folder, peers=peers)
    return line.weight.detach()


def join(folder: Path, meeting: str, rank: int) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        try:
            return train_line(folder, Peers(rank, 2))
        finally:
            distributed.destroy_process_group()


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    # spawned, as a training spawns them: a fork of a process that has used autograd is not defined
    other = multiprocessing.get_context("spawn").Process(target=join, args=(tmp_path / "b", str(tmp_path / "meet"), 1))
    other.start()
    together = join(tmp_path / "a", str(tmp_path / "meet"), 0)
    other.join(60)
    assert other.exitcode == 0
    assert torch.allclose(together, train_line(tmp_path / "c", None), atol=1e-5)
    assert (tmp_path / "a" / "line.pt").exists()
    assert not (tmp_path / "b" / "line.pt").exists()
