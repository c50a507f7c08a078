from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from perjoule.errors import UsageError
from perjoule.suite.reading import find_suite, load_suite
from perjoule.suite.timesteps import short_first, trailing
from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.budgetfusion.commands import app as budgetfusion
from perjoule_suites.builtin import prompt_files
from perjoule_suites.tiny import autoencoder, clip, denoiser, few_step, model_folders, pruned, training
from perjoule_suites.tiny.__main__ import app
from perjoule_suites.tiny.export import export
from perjoule_suites.tiny.sampling import (
    GUIDANCE,
    draw,
    latents_of,
    scheduler,
    seeds_noise,
    text_states,
)
from perjoule_suites.tiny.world.captions import draw_caption
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


def test_own_sampling_is_that_of_a_suite_with_the_schedule(family: Path) -> None:
    """`schedule = "short-first"` in a suite gives the picture of `draw` along `short_first`, but for rounding."""
    variant = Variant(
        name="v", model=str(family / "sd-tiny"), schedule="short-first", steps=(1, 2, 5), guidance=GUIDANCE
    )
    generator = diffusers_generator.load(variant, where="s")
    network = tuple(getattr(generator.pipeline, part) for part in ("unet", "text_encoder", "tokenizer", "vae"))
    texts = ["three stars", "a red ring"]
    for steps in variant.steps:
        drawn = generator.generate(texts, [1, 1], steps).images
        assert np.abs(drawn.astype(int) - draw(network, texts, short_first(steps), seed=1)).max() <= 1


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


def test_one_command_retrains_every_shipped_predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line is one that perjoule accepts, for suites and variants that exist."""
    lines: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda line: lines.append(line[3:]))
    (tmp_path / "runs" / "budgetfusion-curves").mkdir(parents=True)
    done = CliRunner().invoke(app, ["predictors", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    command = get_command(budgetfusion)
    assert isinstance(command, TyperGroup)
    parsed = []
    for _, verb, *arguments in lines:
        parsed.append((verb, command.commands[verb].make_context(verb, arguments).params))
    collected = [params for verb, params in parsed if verb == "collect"]
    assert [params["resume"] for params in collected] == [True, False]
    variants = {v.name for params in collected for v in load_suite(find_suite(params["suite"])).variants}
    trained = [params for verb, params in parsed if verb == "train"]
    assert {params["variant"] for params in trained} <= variants
    assert {params["run"] for params in trained} == {collected[0]["out"]}
    assert {params["calibration"] for params in trained} == {collected[1]["out"]}
    shipped = {name for name in model_folders() if name.startswith("steps-")}
    assert {params["out"].name for params in trained} == shipped
    monkeypatch.setattr(subprocess, "call", lambda line: 2)
    assert CliRunner().invoke(app, ["predictors", "--runs", str(tmp_path)]).exit_code == 2


def test_the_prompt_sets_are_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["prompt-sets", "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for file in tmp_path.iterdir():
        assert file.read_text() == prompt_files()[file.stem].read_text()
    assert {file.stem for file in tmp_path.iterdir()} == {name for name in prompt_files() if name.startswith("tiny-")}


def test_suites_use_the_guidance_of_the_family() -> None:
    """`sampling.GUIDANCE` is the only place that decides; the students' few-step guidance is built in."""
    for name in ("demo", "batching", "budgetfusion-tiny", "budgetfusion-curves", "budgetfusion-curves-dev"):
        for variant in load_suite(find_suite(name)).variants:
            assert variant.guidance == (1.0 if variant.model == "builtin:sd-tiny-lcm" else GUIDANCE), variant.name


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


def test_no_prompt_falls_out_of_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    tokenizer = clip.train_tokenizer([draw_caption(rng).text(rng) for _ in range(200)])
    texts = ["a large red circle", "Ein Leuchtturm, größer!", "灯台", "😀", ""]
    ids = clip.tokenize(tokenizer, texts)
    assert ids.shape == (5, clip.TOKEN_COUNT)
    inner = [row[1 : (row == tokenizer.eos_token_id).nonzero()[0, 0]].tolist() for row in ids]
    assert all(inner[:4])
    assert len({tuple(row) for row in inner}) == 5


def test_the_noise_schedule_ends_in_pure_noise() -> None:
    schedule = scheduler()
    assert schedule.alphas_cumprod[-1] < 1e-6
    schedule.set_timesteps(4)
    assert schedule.timesteps.tolist() == [999, 749, 499, 249]
