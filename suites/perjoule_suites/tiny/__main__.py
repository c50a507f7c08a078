"""Train the tiny models, `python -m perjoule_suites.tiny train --work DIR`, and its students, `few-step` and `pruned`.

Every stage is seeded and writes a checkpoint every minute: the same command continues an interrupted run, and a
finished stage is not repeated.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from perjoule_suites.tiny import (
    autoencoder,
    clip,
    clip_tiny,
    compare,
    dataset,
    denoiser,
    distil,
    evaluate,
    few_step,
    pruned,
    recogniser,
    recogniser_tiny,
)
from perjoule_suites.tiny.scenes import caption

_TRAIN_COUNT, _HELD_OUT_COUNT, _LATENT_COUNT, _TOKENIZER_CAPTIONS = 100_000, 4_000, 50_000, 20_000
_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 25, 50)
_TRAINED, _WEIGHTS = ("sd-tiny", "clip-tiny", "recogniser-tiny"), Path(__file__).parent / "weights"

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Work = Annotated[Path, typer.Option(help="Folder of data, checkpoints and logs.")]
Teacher = Annotated[Path, typer.Option(help="Pipeline folder of the teacher.")]
Out = Annotated[Path, typer.Option(help="Folder of the student's pipeline; replaced.")]
Threads = Annotated[int, typer.Option(help="torch threads; one per idle core.")]


@app.command()
def train(work: Work = Path("tiny-work"), threads: Threads = 2) -> None:
    """Train autoencoder, CLIP, recogniser and denoiser, each unless it exists."""
    torch.set_num_threads(threads)
    training = dataset.load_or_render(work, count=_TRAIN_COUNT, held_out=False, seed=1)
    held_out = dataset.load_or_render(work, count=_HELD_OUT_COUNT, held_out=True, seed=2)

    if not (work / "vae").exists():
        autoencoder.train(training, held_out, work).save_pretrained(work / "vae")
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    _say(f"autoencoder: {autoencoder.psnr(vae, held_out.images[:512]):.1f} dB on 512 held-out scenes")

    if not (work / "tokenizer").exists():
        rng = np.random.default_rng(0)
        texts = [caption(scene, rng) for scene in training.scenes[:_TOKENIZER_CAPTIONS]]
        clip.train_tokenizer(texts).save_pretrained(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    if not (work / "clip").exists():
        clip.train(training, held_out, tokenizer, work).save_pretrained(work / "clip")
    towers = CLIPModel.from_pretrained(work / "clip")
    _say(f"clip: {clip.evaluate(towers, tokenizer, held_out)}")

    if not (work / "recogniser").exists():
        recogniser.train(training, held_out, work).save_pretrained(work / "recogniser")
    judge = recogniser.Recogniser.from_pretrained(work / "recogniser")
    _say(f"recogniser: {recogniser.by_attribute(judge.recognise(held_out.images), held_out.scenes)}")

    if not (work / "sd-tiny").exists():
        latents = denoiser.cached_latents(vae, training, work / "latents.pt", _LATENT_COUNT)
        held_latents = denoiser.cached_latents(vae, held_out, work / "latents-ho.pt", 1_000)
        model = denoiser.train(training, latents, held_out, held_latents, tokenizer, towers, work)
        denoiser.assemble(vae, model, tokenizer).save_pretrained(work / "sd-tiny")
    _say(f"trained: {work / 'sd-tiny'}")


@app.command()
def export(
    work: Work = Path("tiny-work"),
    to: Annotated[Path, typer.Option(help="Folder for the fp16 weights.")] = Path(__file__).parent / "weights",
) -> None:
    """Write the trained family as fp16 safetensors in the layouts of diffusers and transformers."""
    for name in _TRAINED:  # the students in the same folder stay
        shutil.rmtree(to / name, ignore_errors=True)
    pipeline = StableDiffusionPipeline.from_pretrained(work / "sd-tiny", dtype=torch.float16)
    pipeline.save_pretrained(to / "sd-tiny", safe_serialization=True)
    towers = CLIPModel.from_pretrained(work / "clip", dtype=torch.float16)
    towers.save_pretrained(to / "clip-tiny")
    CLIPTokenizer.from_pretrained(work / "tokenizer").save_pretrained(to / "clip-tiny")
    half = [0.5, 0.5, 0.5]
    side = {"height": 64, "width": 64}
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=side, image_mean=half, image_std=half).save_pretrained(
        to / "clip-tiny"
    )
    shutil.copytree(work / "recogniser", to / "recogniser-tiny")
    for file in (file for name in _TRAINED for file in (to / name).rglob("*.json")):
        # remove the path of the weights during training
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")
    size = sum(file.stat().st_size for name in _TRAINED for file in (to / name).rglob("*.safetensors"))
    _say(f"{to}: {size / 1e6:.1f} MB of weights")


@app.command("evaluate")
def evaluate_(
    model: Annotated[Path, typer.Option(help="Pipeline folder.")] = Path(__file__).parent / "weights" / "sd-tiny",
    judge: Annotated[Path, typer.Option(help="Recogniser folder.")] = Path(__file__).parent
    / "weights"
    / "recogniser-tiny",
    out: Annotated[Path, typer.Option(help="Folder for figures and tables.")] = Path("tiny-evaluation"),
    captions: Annotated[int, typer.Option(help="Held-out captions of each kind.")] = 300,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = evaluate.GUIDANCE,
    threads: Threads = 2,
) -> None:
    """Attribute accuracy at 25 steps, quality against steps, and a contact sheet, all on held-out captions."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    recognise = recogniser.Recogniser.from_pretrained(judge)
    table: dict[str, float] = {}
    for things in (1, 2):
        scenes = evaluate.held_out_scenes(captions, things=things)
        table |= evaluate.attribute_table(pipeline, recognise, scenes, guidance=guidance)
    mixed = evaluate.held_out_scenes(min(captions, 200), seed=7)
    curve = evaluate.quality_by_steps(pipeline, recognise, mixed, _LADDER, guidance=guidance)
    sheet = evaluate.held_out_scenes(24, seed=24)
    texts = [caption(scene) for scene in sheet]
    images = evaluate.generate(pipeline, texts, 25, guidance=guidance)
    evaluate.contact_sheet(images, texts, out / "contact-sheet.png")
    evaluate.quality_figure(curve, out / "quality-by-steps.png")
    result = {"captions": captions, "guidance": guidance, "attributes_at_25_steps": table, "quality_by_steps": curve}
    (out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _say(json.dumps(result, indent=2))


@app.command("few-step")
def few_step_(
    work: Work = Path("tiny-work"),
    teacher: Teacher = _WEIGHTS / "sd-tiny",
    out: Out = _WEIGHTS / "sd-tiny-lcm",
    threads: Threads = 1,
) -> None:
    """Train the few-step student on images that the teacher generates from captions."""
    torch.set_num_threads(threads)
    distil.save_student(few_step.train(teacher, work), teacher, out)
    _say(f"trained: {out}")


@app.command("pruned")
def pruned_(
    work: Work = Path("tiny-work"),
    teacher: Teacher = _WEIGHTS / "sd-tiny",
    out: Out = _WEIGHTS / "sd-tiny-pruned",
    threads: Threads = 1,
) -> None:
    """Train the block-pruned student on rendered scenes and on the teacher's outputs."""
    torch.set_num_threads(threads)
    distil.save_student(pruned.train(teacher, work), teacher, out)
    _say(f"trained: {out}")


@app.command("compare")
def compare_(
    weights: Annotated[Path, typer.Option(help="Folder of the pipelines.")] = _WEIGHTS,
    captions: Annotated[int, typer.Option(help="Held-out captions.")] = 240,
    seeds: Annotated[int, typer.Option(help="Images per caption.")] = 2,
    threads: Threads = 1,
) -> None:
    """Print a comparison of teacher and students on held-out captions, and milliseconds per step."""
    torch.set_num_threads(threads)
    judges = compare.Judges(
        recogniser=recogniser.Recogniser.from_pretrained(recogniser_tiny()),
        clip=CLIPModel.from_pretrained(clip_tiny(), dtype=torch.float32).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(clip_tiny()),
    )
    names = dict.fromkeys(s.model for s in compare.SETTINGS if (weights / s.model).is_dir())
    pipelines = {name: distil.load_pipeline(weights / name) for name in names}
    scenes = evaluate.held_out_scenes(captions, seed=31)
    scores = {
        setting: compare.score(pipelines[setting.model], setting.steps, scenes, judges, range(1, seeds + 1))
        for setting in compare.SETTINGS
        if setting.model in pipelines
    }
    _say(compare.table(scores))
    other, decoded = compare.sharpness_limits(pipelines["sd-tiny"].vae, scenes)
    _say(f"\nsharpness of another render of the scene: {other:.3f}; through the autoencoder: {decoded:.3f}")
    for rows in (1, 2):
        cost = compare.step_ms({name: pipeline.unet for name, pipeline in pipelines.items()}, rows)
        _say(f"ms of one denoiser call on {rows} latents: " + ", ".join(f"{k} {v:.1f}" for k, v in cost.items()))


@app.command()
def recipes() -> None:
    """Print the recipes."""
    for recipe in (autoencoder.RECIPE, clip.RECIPE, recogniser.RECIPE, denoiser.RECIPE, few_step.RECIPE, pruned.RECIPE):
        _say(json.dumps(dataclasses.asdict(recipe)))


def _say(text: str) -> None:
    typer.echo(text)


if __name__ == "__main__":
    app()
