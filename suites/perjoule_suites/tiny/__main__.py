"""Train and judge the tiny models: `python -m perjoule_suites.tiny train --out DIR`.

Every part is seeded and writes a checkpoint every minute: the same command continues an interrupted training, and a
finished part is not repeated. `progress` shows how far it is, `validate` checks the score on pictures whose right score
is known, `evaluate` prints scores by openness and step count, `sheet` and `agreement` compare the score with eyes,
`export` writes the weights, `predictors` trains the step predictors for them, and `prompt-sets` writes the captions.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL

from perjoule.errors import PerjouleError
from perjoule.files import read_json_lines
from perjoule.runs.directory import load_run
from perjoule.suite.timesteps import short_first
from perjoule_suites.builtin import prompt_files
from perjoule_suites.tiny import WEIGHTS, autoencoder, evaluation, sd_tiny, training
from perjoule_suites.tiny import export as exporting
from perjoule_suites.tiny import study as prompts_and_models
from perjoule_suites.tiny.sampling import GUIDANCE, draw
from perjoule_suites.tiny.world import prompt_sets, sheets, validation
from perjoule_suites.tiny.world.captions import LEVELS, draw_distinct
from perjoule_suites.tiny.world.scenes import draw_scene, render

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Out = Annotated[Path, typer.Option(help="Folder of checkpoints, logs and trained parts.")]
Model = Annotated[Path, typer.Option(help="Folder of a pipeline.", exists=True, file_okay=False)]
_SHEET_STEPS = (2, 3, 4, 8, 25)
_SHOWN = 8  # captions of each level on the contact sheet
_GO_STEP, _GO_SHARE = 8_000, 0.5
_CURVES = ("budgetfusion-curves", "budgetfusion-curves-dev")
_LEVEL = 16.0  # default price of a predictor, J per unit of I-CLIP, as in the suite `demo`
# step predictor -> variant of the curves, evaluations that it uses
_PREDICTORS = {
    "steps-tiny": ("sd-tiny", 0),
    "steps-tiny-peek2": ("sd-tiny", 2),
}


@app.callback()
def _setup() -> None:
    torch.set_num_threads(1)


@app.command()
def train(
    out: Out,
    only: Annotated[list[str] | None, typer.Option(help=f"Parts to train: {', '.join(training.PARTS)}.")] = None,
    processes: Annotated[int, typer.Option(help="Processes of one thread each; 2 on two idle cores.")] = 1,
) -> None:
    """Train all parts in order, each unless it is finished."""
    unknown = sorted(set(only or ()) - set(training.PARTS))
    if unknown:
        raise typer.BadParameter(f"unknown part {unknown[0]!r}: one of {', '.join(training.PARTS)}")
    training.train_parts(out, tuple(only or training.PARTS), processes=processes)


@app.command()
def export(out: Out, to: Annotated[Path, typer.Option(help="Folder for the fp16 weights.")] = WEIGHTS) -> None:
    """Write the trained family as fp16 weights and print their sizes."""
    sizes = exporting.export(out, to)
    parts = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sizes.items())
    typer.echo(f"{to}: {sum(sizes.values()) / 1e6:.2f} MB of weights: {parts}")


@app.command()
def progress(out: Out) -> None:
    """Print which parts are finished and the latest figures of each training."""
    typer.echo("finished: " + (", ".join(part for part in training.PARTS if (out / part).exists()) or "nothing"))
    for name, steps in training.STEPS.items():
        log = out / f"{name}.jsonl"
        if not log.exists():
            continue
        rows = read_json_lines(log, skip_damaged=True)
        last, hours = rows[-1], rows[-1]["s"] / 3600
        left = hours * (steps - last["step"]) / last["step"]
        typer.echo(f"{name}: step {last['step']:.0f} of {steps}, {hours:.1f} h so far, about {left:.1f} h left")
        most = max(map(len, rows))
        for row in [row for row in rows if len(row) == most][-4:]:
            figures = [f"{key} {value:.3f}" for key, value in row.items() if key not in ("step", "lr", "s")]
            typer.echo(f"  step {row['step']:.0f}: {', '.join(figures)}")
        go = [row["half open: satisfied"] for row in rows if row["step"] == _GO_STEP and "half open: satisfied" in row]
        if go:
            word = "go" if go[-1] >= _GO_SHARE else "no go"
            typer.echo(f"  {word}: half-open captions satisfied {go[-1]:.2f} at step {_GO_STEP}, wanted {_GO_SHARE}")


@app.command()
def validate(
    vae: Annotated[
        Path | None,
        typer.Option(help="Folder of the autoencoder; adds renders through it.", exists=True, file_okay=False),
    ] = None,
    count: Annotated[int, typer.Option(help="Held-out captions.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of captions and scenes.")] = 5,
) -> None:
    """Print the absolute score of renders, damaged renders and wrong captions; exit 1 if one misses its limit."""
    network = AutoencoderKL.from_pretrained(vae).eval() if vae else None
    typer.echo("| pictures | score | satisfied | integrity | perfect | wanted |\n|---|---|---|---|---|---|")
    met = True
    round_trip = partial(autoencoder.round_trip, network) if network else None
    for probe in validation.probes(count, seed, round_trip):
        figures = [
            float(np.mean([getattr(verdict, name) for verdict in probe.verdicts]))
            for name in ("score", "is_satisfied", "integrity", "is_perfect")
        ]
        limit = f"≥ {probe.least}" if probe.least else f"≤ {probe.most}" if probe.most < 1 else "–"
        word = "" if probe.is_met else " **missed**"
        typer.echo(f"| {probe.name} | {' | '.join(f'{x:.3f}' for x in figures)} | {limit}{word} |")
        met &= probe.is_met
    raise typer.Exit(0 if met else 1)


@app.command()
def sheet(
    out: Annotated[Path, typer.Option(help="Folder for sheets and CSV files.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of a pipeline; renders only when left out.", exists=True, file_okay=False),
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures.")] = 120,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = GUIDANCE,
) -> None:
    """Write numbered contact sheets to judge by eye, with an empty CSV file for the judgements."""
    pictures = []
    rng = np.random.default_rng(0)
    for level in LEVELS:
        captions = draw_distinct(-(-count // len(LEVELS)), level, "dev", seed=13)
        if model is None:
            images = np.stack([render(draw_scene(caption, rng)) for caption in captions])
            sources = ["render"] * len(captions)
        else:
            pipeline = exporting.load_pipeline(model)
            network = (pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae)
            images = np.empty((len(captions), 64, 64, 3), np.uint8)
            for place, steps in enumerate(_SHEET_STEPS):
                some = slice(place, None, len(_SHEET_STEPS))
                texts = [caption.text() for caption in captions[some]]
                images[some] = draw(network, texts, short_first(steps), guidance=guidance)
            sources = [f"{_SHEET_STEPS[i % len(_SHEET_STEPS)]} steps" for i in range(len(captions))]
        pictures += [
            sheets.Picture(image=image, caption=caption, source=source)
            for image, caption, source in zip(images, captions, sources, strict=True)
        ]
    sheets.write_sheets(pictures[:count], out)
    typer.echo(f"{out}: {min(count, len(pictures))} pictures; write yes or no into judgements.csv")


@app.command()
def agreement(
    folder: Annotated[Path, typer.Argument(help="Folder that `sheet` wrote.")],
    judgements: Annotated[Path | None, typer.Option(help="CSV file; default FOLDER/judgements.csv.")] = None,
) -> None:
    """Print how far a person's judgements and the checker agree, and where they differ."""
    tables, differing = sheets.agreement(folder, judgements or folder / "judgements.csv")
    for part in tables:
        kappa = "–" if part.kappa is None else f"{part.kappa:.2f}"
        typer.echo(
            f"{part.question}: {part.share:.3f} of {part.pictures} equal, kappa {kappa}; both yes {part.both}, "
            f"only the person {part.only_person}, only the checker {part.only_checker}, both no {part.neither}"
        )
    for row in differing:
        said = f"satisfied={row['satisfied']} valid={row['valid']}"
        typer.echo(f"{row['number']}. {row['caption']} ({row['source']}): person {row['person']}; checker {said}")


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for the figures; what is there is not drawn again.")],
    model: Model = sd_tiny(),  # noqa: B008 — a constant path
    captions: Annotated[int, typer.Option(help="Test captions, in equal shares of the three levels.")] = 300,
    seeds: Annotated[int, typer.Option(help="Images per caption; 8 or more for the share due to the prompt.")] = 2,
    steps: Annotated[str, typer.Option(help="Step counts.")] = ",".join(map(str, evaluation.LADDER)),
    schedule: Annotated[str, typer.Option(help=f"One of {', '.join(evaluation.SCHEDULES)}.")] = "short-first",
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 0 for built-in guidance.")] = GUIDANCE,
) -> None:
    """Print the score by openness and step count, and the share of the needed steps that is due to the prompt.

    Two figures are written as well: the score against steps, and some captions with their images.
    """
    if schedule not in evaluation.SCHEDULES:
        raise typer.BadParameter(f"unknown schedule {schedule!r}: one of {', '.join(evaluation.SCHEDULES)}")
    if not all(step.strip().isdecimal() and int(step) > 0 for step in steps.split(",")):
        raise typer.BadParameter(f"--steps {steps!r}: write step counts with commas, e.g. 2,4,8")
    ladder = sorted({int(step) for step in steps.split(",")})
    setup = evaluation.Setup(ladder=ladder, seeds=seeds, schedule=schedule, guidance=guidance or None)
    pipeline = exporting.load_pipeline(model)
    by_level = evaluation.held_out_captions(-(-captions // len(LEVELS)))
    found = {level: evaluation.curves(pipeline, some, setup, out, level) for level, some in by_level.items()}
    typer.echo(evaluation.table(found, ladder))
    evaluation.draw_figure(found, ladder, out / "quality-by-steps.png")
    shown = [caption.text() for some in by_level.values() for caption in some[:_SHOWN]]
    network = (pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae)
    images = draw(network, shown, evaluation.SCHEDULES[schedule](ladder[-1]), guidance=setup.guidance)
    sheets.contact_sheet(images, shown, out / "contact-sheet.png")


@app.command()
def study(
    run: Annotated[Path, typer.Argument(help="Scored run of `budgetfusion-tiny` or `demo`.", exists=True)],
) -> None:
    """Print which variance is the prompt's, open slots against the learnt predictor, and the choice among all arms."""
    for line in prompts_and_models.lines(load_run(run)):
        typer.echo(line)


@app.command()
def predictors(
    runs: Annotated[Path, typer.Option(help="Folder for the two runs of curves; an interrupted run is continued.")],
    to: Annotated[Path, typer.Option(help="Folder for the predictors.")] = WEIGHTS,
    meter: Annotated[str, typer.Option(help="Meter of the curves' joules, which the rules weigh.")] = "auto",
) -> None:
    """Collect curves with the exported weights and train all step predictors; hours on two cores."""
    for suite in _CURVES:
        more = ["--resume"] if (runs / suite).exists() else []
        _perjoule("budgetfusion", "collect", suite, "--out", str(runs / suite), "--meter", meter, *more)
    curves, calibration = (str(runs / suite) for suite in _CURVES)
    for name, (variant, peek) in _PREDICTORS.items():
        learnt_from = (curves, "--calibration", calibration, "--variant", variant, "--peek", str(peek))
        rule = ("--metric", "iclip", "--level", str(_LEVEL))
        _perjoule("budgetfusion", "train", *learnt_from, *rule, "--out", str(to / name))


@app.command("prompt-sets")
def prompt_sets_(
    to: Annotated[Path, typer.Option(help="Folder for the files.")] = prompt_files()["tiny-test"].parent,  # noqa: B008
) -> None:
    """Write the prompt sets of the tiny models."""
    prompt_sets.write_prompt_sets(to)


def _perjoule(*arguments: str) -> None:
    """Run a verb in a process of its own, as its run directory states it; exit with its status if it fails."""
    if status := subprocess.call([sys.executable, "-m", "perjoule", *arguments]):
        raise typer.Exit(status)


if __name__ == "__main__":
    try:
        app(standalone_mode=True)
    except PerjouleError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
