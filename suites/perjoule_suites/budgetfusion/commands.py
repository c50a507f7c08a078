"""`perjoule budgetfusion collect|train|evaluate|predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, MeterName, Quiet, StudyOption, judged, print_record, print_text
from perjoule.errors import UnknownNameError, UsageError
from perjoule.suite.timesteps import sampler_of
from perjoule.types.documents import document

if TYPE_CHECKING:
    from perjoule_suites.budgetfusion.records import Collected, Trained

app = typer.Typer(
    name="perjoule budgetfusion",
    help="Predict how many steps each prompt needs.\n\nAfter BudgetFusion (arXiv:2412.05780).\n\n"
    "Example: perjoule budgetfusion predict builtin:steps-tiny 'a large red circle on a white ground'",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _rules(incomplete: str) -> list[str]:
    return ["plateau", "equal-marginal", "energy-budget", "quality-floor"]  # `rules.RULES`, which imports numpy


def _combinations(incomplete: str) -> list[str]:
    return ["max", "median", "mean"]


Combine = Annotated[
    str, typer.Option(help="Plateau rule: max, median or mean of its metrics.", autocompletion=_combinations)
]


@app.command()
def collect(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE", help="Suite with a ladder; name or TOML file.", autocompletion=completing.suites
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/<date>-<suite> by default.")] = None,
    meter: MeterName = "auto",
    limit: Annotated[int | None, typer.Option("--limit", help="Use only the first N prompts.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure and score the curves to learn from.

    Generates all prompts at every step count under every seed.

    Example: perjoule budgetfusion collect budgetfusion-curves --out runs/curves
    """
    from perjoule.commands.console import TerminalReporter
    from perjoule.running import pipeline
    from perjoule.running.prepared import prepare
    from perjoule_suites.budgetfusion.curves import curves_of
    from perjoule_suites.budgetfusion.records import Collected

    prepared = prepare(suite, limit)
    run = pipeline.run(
        prepared,
        out=out or pipeline.default_out(prepared.suite),
        meter_name=meter,
        resume=resume,
        command=["perjoule", *sys.argv[1:]],
        reporter=TerminalReporter(quiet=quiet),
    )
    curves = curves_of(run)
    collected = Collected(
        run=str(run.path),
        prompts=len(curves.prompts),
        seeds=len(curves.seeds),
        grid=curves.grid,
        metrics=curves.metrics,
        images=curves.image_count,
        collected_j=curves.collected_j,
        energy_per_image=curves.cost,
    )
    _print(collected, as_json)


@app.command()
def train(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Collected curves to learn from.", autocompletion=completing.runs)
    ],
    calibration: Annotated[
        Path,
        typer.Option(help="Collected curves of other prompts, to calibrate on.", autocompletion=completing.runs),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the predictor.")],
    variant: Annotated[str | None, typer.Option(help="The ladder, if the run has several.")] = None,
    peek: Annotated[int, typer.Option(help="Evaluations to use before the decision: 0, 1 or 2.")] = 0,
    rule: Annotated[
        str, typer.Option(help="plateau, equal-marginal, energy-budget or quality-floor.", autocompletion=_rules)
    ] = "equal-marginal",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric of the rule; by default the first one. Repeatable for the plateau rule, by default all.",
            autocompletion=completing.metrics,
        ),
    ] = None,
    combine: Combine = "max",
    level: Annotated[float, typer.Option(help="The rule's parameter, e.g. J per unit of quality.")] = 100.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a step predictor on collected curves.

    Example: perjoule budgetfusion train runs/curves --calibration runs/curves-dev --out my-predictor
    """
    from perjoule.commands.console import TerminalReporter
    from perjoule.runs.directory import load_run
    from perjoule_suites import diffusers_generator
    from perjoule_suites.budgetfusion import training
    from perjoule_suites.budgetfusion.curves import curves_of
    from perjoule_suites.budgetfusion.records import Trained
    from perjoule_suites.budgetfusion.rules import make_rule

    curves = curves_of(load_run(run), variant)
    known = curves_of(load_run(calibration), variant)
    first, several = _metrics_of_rule(rule, metric or (), curves.metrics)
    make_rule(rule, first, level, metrics=several, combine=combine, where="train")
    generator = diffusers_generator.load(_looking(curves.variant, peek), where=str(run / "suite.toml"))
    with TerminalReporter(quiet=quiet).stage("training", training.RECIPE.epochs, "epochs") as bar:
        predictor, fit = training.train(
            curves,
            known,
            generator,
            peek=peek,
            rule=(rule, first, level),
            on_epoch=lambda epoch, loss: bar.update(epoch + 1, f"validation loss {loss:.3f}"),
        )
    predictor = predictor.with_rule(rule, first, level, metrics=several, combine=combine)
    predictor.save_pretrained(out)
    payback = training.pays_after(predictor)
    trained = Trained(
        predictor=str(out),
        validation_r_squared=fit.r_squared,
        epoch=fit.epoch,
        collected_j=curves.collected_j,
        saved_j_per_image=payback.saved_j_per_image,
        pays_after_images=payback.pays_after_images,
    )
    _print(trained, as_json)


@app.command()
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Scored run with a ladder, and any adaptive arms.", autocompletion=completing.runs
        ),
    ],
    predictor: Annotated[
        list[str] | None, typer.Option(help="Predictor to replay: folder, hub id or builtin:NAME; repeatable.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric held equal; by default the suite's primary. Repeatable.", autocompletion=completing.metrics
        ),
    ] = None,
    at_steps: Annotated[int | None, typer.Option(help="Step count whose quality is held equal.")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Rule to replay; by default the predictor's. Repeatable.", autocompletion=_rules),
    ] = None,
    rule_metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric of the rule; by default the predictor's.", autocompletion=completing.metrics),
    ] = None,
    combine: Annotated[
        list[str] | None,
        typer.Option(help="Plateau rule: max, median or mean of its metrics.", autocompletion=_combinations),
    ] = None,
    level: Annotated[
        list[float] | None, typer.Option(help="Level of the rule; a sweep by default. Repeatable.")
    ] = None,
    miss_rate: Annotated[float, typer.Option(help="Share of images that may miss a quality floor.")] = 0.1,
    ladder: Annotated[
        list[str] | None, typer.Option(help="Ladder to replay on; by default the first. Repeatable.")
    ] = None,
    base_steps: Annotated[
        float | None,
        typer.Option(min=0.0, help="Work of an image at 0 steps, in steps; by default counted or fitted."),
    ] = None,
    study: StudyOption = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures.")] = None,
    as_json: Json = False,
) -> None:
    """Print the savings of predicted steps.

    A ladder of fixed steps is enough: an arm that decides from the prompt draws the ladder's images, so that it can be
    replayed with any predictor and rule. Prints savings at equal quality against the ladder, controls, bounds and
    paired intervals. With --study, equal quality is that of the observers' choices.

    Example: perjoule budgetfusion evaluate runs/ladder --predictor my-predictor --metric iclip --metric scene
    """
    from perjoule.runs.directory import load_run
    from perjoule_suites.budgetfusion.candidates import Candidates, with_candidates
    from perjoule_suites.budgetfusion.evaluation_text import lines
    from perjoule_suites.budgetfusion.replay import arms_of
    from perjoule_suites.budgetfusion.study import evaluate as evaluate_arms
    from perjoule_suites.budgetfusion.study import metrics_of

    loaded = load_run(run)
    unknown = next((name for name in metric or () if name not in loaded.metrics), None)
    loaded = judged(loaded, study, unknown)
    metrics = metrics_of(loaded, metric or ())
    candidates = Candidates(
        predictors=tuple(predictor or ()),
        rules=tuple(rule or ()),
        metrics=tuple(rule_metric or ()),
        combine=tuple(combine or ()),
        levels=tuple(level or ()),
        miss_rate=miss_rate,
        ladders=tuple(ladder or ()),
    )
    arms = with_candidates(arms_of(loaded, base_steps), candidates, metrics)
    evaluation = evaluate_arms(arms, metrics, at_steps)
    if figures is not None:
        from perjoule_suites.budgetfusion.figures import draw_all

        evaluation = replace(evaluation, figures=tuple(draw_all(arms, figures, metrics[0])))
    if as_json:
        print_record(evaluation)
        return
    for line in lines(evaluation):
        print_text(line)


@app.command()
def predict(
    predictor: Annotated[str, typer.Argument(metavar="PREDICTOR", help="Folder, hub id or builtin:NAME.")],
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Prompts.")],
    rule: Annotated[
        str | None, typer.Option(help="Rule, instead of the predictor's config.", autocompletion=_rules)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric of the rule; repeatable for plateau.", autocompletion=completing.metrics),
    ] = None,
    combine: Combine = "",
    level: Annotated[float | None, typer.Option(help="Parameter of the rule.")] = None,
    as_json: Json = False,
) -> None:
    """Print the predicted step count of prompts.

    With --json, print the predicted curves too.

    Example: perjoule budgetfusion predict builtin:steps-tiny 'a small blue ring at the left on a plain grey ground'
    """
    from perjoule_suites.budgetfusion.predictor import StepPredictor
    from perjoule_suites.budgetfusion.records import PredictedEnergy, Prediction, Predictions

    loaded = StepPredictor.from_pretrained(predictor)
    config = loaded.config
    if config.peek:
        raise UsageError(
            f"{predictor} uses the first evaluations and cannot predict from the prompt alone; use it in a suite"
        )
    name = rule or config.rule
    first, several = _metrics_of_rule(name, metric or (), config.metrics, config.metric, config.rule_metrics)
    with_rule = loaded.with_rule(
        name,
        first,
        config.level if level is None else level,
        metrics=several,
        combine=combine or (config.combine if name == "plateau" else "max"),
        where=predictor,
    )
    steps = with_rule.steps_for(prompts)
    if not as_json:
        for n, prompt in zip(steps, prompts, strict=True):
            print_text(f"{n}\t{prompt}")
        return
    forecast = with_rule.curves_for(prompts)
    rows = tuple(
        Prediction(
            prompt=prompt,
            steps=n,
            energy_j=config.base_j + config.step_j * n,
            curves={m: tuple(round(float(v), 6) for v in forecast.of(m)[i]) for m in forecast.metrics},
        )
        for i, (n, prompt) in enumerate(zip(steps, prompts, strict=True))
    )
    energy = PredictedEnergy(provenance=config.provenance, boundary=config.boundary)
    print_record(Predictions(grid=tuple(int(n) for n in forecast.grid), energy=energy, predictions=rows))


def _metrics_of_rule(
    rule: str, given: Sequence[str], known: Sequence[str], default: str = "", defaults: tuple[str, ...] = ()
) -> tuple[str, tuple[str, ...]]:
    """Return the metric of a rule, and those of the plateau rule. Raises UnknownNameError, UsageError."""
    for name in given:
        if name not in known:
            raise UnknownNameError("predicted metric", name, tuple(known), "--metric")
    if rule == "plateau":
        return default or known[0], tuple(given) or defaults
    if len(given) > 1:
        raise UsageError(f"rule {rule} reads one metric, but --metric is given {len(given)} times")
    return (given[0] if given else default or known[0]), ()


def _looking(variant: Any, peek: int) -> Any:
    """Return the variant with a sampler that supports a peek and gives the same images."""
    if not peek or sampler_of(variant)[0] == "DPMSolverMultistepScheduler":
        return variant
    return replace(variant, scheduler="DPMSolverMultistepScheduler", scheduler_args={"solver_order": 1})


def _print(record: Collected | Trained, as_json: bool) -> None:
    if as_json:
        print_record(record)
        return
    for key, value in document(record).items():
        if key != "schema":
            print_text(f"{key.replace('_', ' ')}: {value}")
