"""`perjoule route train|evaluate|predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, Quiet, StudyOption, judged, print_record, print_text
from perjoule.errors import UsageError

if TYPE_CHECKING:
    from perjoule.runs.directory import Run
    from perjoule.types import Variant
    from perjoule_suites.router.records import Trained
    from perjoule_suites.router.router import Router
    from perjoule_suites.router.training import RouterFit

app = typer.Typer(
    name="perjoule route",
    help="Choose model and steps for each prompt.\n\n"
    "The router takes the arm (a model at a step count) with the fewest joules that keeps a promise of quality.\n\n"
    "Example: perjoule route predict router 'a large red circle on a white ground'",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Metric = Annotated[
    str | None, typer.Option("--metric", help="Metric that compares models.", autocompletion=completing.metrics)
]
Miss = Annotated[str | None, typer.Option("--miss", help="Promised rate of images below the floor, e.g. 10%.")]
Floor = Annotated[float | None, typer.Option("--floor", help="Quality floor, instead of the router's own.")]
RouterFolder = Annotated[str, typer.Argument(metavar="ROUTER", help="Folder, hub id or builtin:NAME.")]


@app.command()
def train(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Scored run with several arms.", autocompletion=completing.runs)
    ],
    calibration: Annotated[
        Path,
        typer.Option(help="Scored run of the same arms for other prompts.", autocompletion=completing.runs),
    ],
    floor: Annotated[float, typer.Option(help="Quality that an image should reach.")],
    out: Annotated[Path, typer.Option(help="Folder for the router.")],
    miss: Annotated[str, typer.Option(help="Promised rate of images below the floor.")] = "10%",
    metric: Metric = None,
    variant: Annotated[list[str] | None, typer.Option(help="Use only this variant's arms; repeatable.")] = None,
    reader: Annotated[
        str | None,
        typer.Option(help="Variant or model whose text encoder reads prompts; by default that of the best arm."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a router on scored runs.

    Learns from one run, and calibrates its promise on another with other prompts.

    Example: perjoule route train runs/arms --calibration runs/dev --floor 0.8 --out router
    """
    from perjoule.commands.console import TerminalReporter
    from perjoule.runs.directory import load_run
    from perjoule.shares import share
    from perjoule.weights.models import relative_to
    from perjoule_suites import diffusers_generator
    from perjoule_suites.budgetfusion.training import RECIPE
    from perjoule_suites.router import training
    from perjoule_suites.router.arms import read_arms
    from perjoule_suites.router.printing import trained_lines

    rate = float(share(miss, "--miss"))
    learnt = load_run(run)
    scores = read_arms(learnt, metric, variant or ())
    known = read_arms(load_run(calibration), scores.metric, variant or ())
    best = scores.arms[int(scores.quality.mean((0, 1)).argmax())].variant
    source = _reader(learnt, reader, best)
    with relative_to(Path(learnt.environment.get("suite_folder") or ".")):
        generator = diffusers_generator.load(source, where=f"{run / 'suite.toml'}: reader {source.name}")
        with TerminalReporter(quiet=quiet).stage("training", RECIPE.epochs, "epochs") as bar:
            router, fit = training.train(
                scores,
                known,
                generator,
                source,
                floor=floor,
                miss_rate=rate,
                on_epoch=lambda epoch, loss: bar.update(epoch + 1, f"validation loss {loss:.3f}"),
            )
    router.save_pretrained(out)
    trained = _trained(router, fit, out)
    if as_json:
        print_record(trained)
    else:
        print_text("\n".join(trained_lines(trained)))


@app.command()
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Scored run of the router's arms, for other prompts.", autocompletion=completing.runs
        ),
    ],
    router: Annotated[str, typer.Option(metavar="ROUTER", help="Folder, hub id or builtin:NAME.")],
    metric: Metric = None,
    at_quality: Annotated[
        float | None, typer.Option(help="Mean quality to compare at; by default five, up to that of the best arm.")
    ] = None,
    floor: Floor = None,
    miss: Miss = None,
    study: StudyOption = None,
    verifier: Annotated[
        str | None,
        typer.Option(
            help="Also replay a cascade, in which this metric looks at the images of a cheap arm.",
            autocompletion=completing.metrics,
        ),
    ] = None,
    verifier_joules: Annotated[
        float | None, typer.Option(min=0.0, help="J/image of the verifier; its work is counted by default.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the savings of a router.

    Savings at equal mean quality against the best mixture of fixed arms, controls, bounds, and the promise. Stored
    images are replayed; none are generated. With --study, equal quality is that of the observers' choices.

    Example: perjoule route evaluate runs/test --router router
    """
    from perjoule.commands.console import TerminalReporter
    from perjoule.runs.directory import load_run
    from perjoule.shares import share
    from perjoule_suites.router.evaluation import PARTS
    from perjoule_suites.router.evaluation import evaluate as evaluate_run
    from perjoule_suites.router.printing import evaluation_lines
    from perjoule_suites.router.router import Router

    if verifier is None and verifier_joules is not None:
        raise UsageError(f"--verifier-joules {verifier_joules:g}: there is no verifier: give --verifier METRIC too")
    loaded, learnt = judged(load_run(run), study, metric), Router.from_pretrained(router)
    with TerminalReporter(quiet=quiet).stage("replaying", 1 if at_quality is not None else len(PARTS), "points") as bar:
        evaluation = evaluate_run(
            loaded,
            learnt,
            name=router,
            metric=metric or (loaded.suite.metrics.primary if study else None),
            at_quality=at_quality,
            floor=floor,
            miss_rate=None if miss is None else float(share(miss, "--miss")),
            verifier=verifier,
            verifier_j=verifier_joules,
            on_point=bar.update,
        )
    if as_json:
        print_record(evaluation)
    else:
        print_text("\n".join(evaluation_lines(evaluation)))


@app.command()
def predict(
    router: RouterFolder,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Prompts.")],
    floor: Floor = None,
    miss: Miss = None,
    as_json: Json = False,
) -> None:
    """Print the arm of prompts.

    With --json, print forecasts of all arms and the diffusers code too.

    Example: perjoule route predict router 'a large red circle on a white ground'
    """
    from perjoule.shares import share
    from perjoule.text import provenance_words
    from perjoule_suites.router.records import PredictedArm, PredictedArms
    from perjoule_suites.router.router import Router

    loaded = Router.from_pretrained(router)
    if floor is not None or miss is not None:
        rate = None if miss is None else float(share(miss, "--miss"))
        level = loaded.config.level if floor is None else floor
        loaded = loaded.with_rule("quality-floor", level, rate, where=router)
    config, choices = loaded.config, loaded.choices(prompts)
    if not as_json:
        for choice, prompt in zip(choices, prompts, strict=True):
            print_text(f"{choice.cell_id}\t{choice.energy_j:.3g} J\t{prompt}")
        print_text(f"J/image on {config.device}, {provenance_words(config.provenance)}")
        return
    forecast = loaded.forecast(loaded.reader.states(prompts))
    print_record(
        PredictedArms(
            metric=config.metric,
            rule=config.rule,
            level=config.level,
            miss_rate=config.miss_rate if config.rule == "quality-floor" else None,
            device=config.device,
            provenance=config.provenance,
            boundary=config.boundary,
            predictions=tuple(
                PredictedArm(
                    prompt=prompt,
                    arm=choice.cell_id,
                    model=choice.variant.model,
                    steps=choice.steps,
                    energy_j=choice.energy_j,
                    quality=choice.quality,
                    safe=choice.safe,
                    qualities={arm.cell_id: float(q) for arm, q in zip(config.arms, row, strict=True)},
                    call=choice.code,
                )
                for prompt, choice, row in zip(prompts, choices, forecast, strict=True)
            ),
        )
    )


def _reader(run: Run, name: str | None, best: Variant) -> Variant:
    """Return the variant whose text encoder reads the prompts."""
    from perjoule.types import Variant

    own = next((variant for variant in run.suite.variants if variant.name == name), None)
    if own is not None or name is None:
        return own or best
    return Variant(name="reader", model=name, guidance=1.0)


def _trained(router: Router, fit: RouterFit, out: Path) -> Trained:
    import numpy as np

    from perjoule_suites.router.records import Promise, Trained

    config, labels = router.config, router.labels
    arms = router.choose(labels.predicted)
    rows = np.arange(len(arms))
    promise = Promise(
        metric=config.metric,
        floor=config.level,
        miss_rate=config.miss_rate,
        calibration_prompts=len(labels.true),
        calibration_misses=float((labels.true < config.level).mean(1)[rows, arms].mean()),
        calibration_j_per_image=float(router.prices[arms].mean()),
    )
    return Trained(
        router=str(out),
        arms={arm.cell_id: arm.energy_j for arm in config.arms},
        fallback=config.arms[router.fallback].cell_id,
        device=config.device,
        provenance=config.provenance,
        boundary=config.boundary,
        prompts=config.prompts,
        seeds=config.seeds,
        collected_j=config.collected_j,
        validation_r_squared=fit.r_squared,
        epoch=fit.epoch,
        promise=promise,
    )
