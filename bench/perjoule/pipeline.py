"""The composition root: the only place that knows the order of the stages.

run = check → plan → measure → score → summarise → report
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from perjoule import registry
from perjoule.catalogue import notices, weights_name, with_models
from perjoule.environment import describe
from perjoule.errors import Interrupted, RunError, UsageError
from perjoule.execute import GeneratorCache, Progress, execute
from perjoule.files import free_bytes, write_parquet
from perjoule.meters import open_meter
from perjoule.plan import make_plan
from perjoule.policies import load_policy
from perjoule.prompts import load_prompts
from perjoule.protocols import EnergyMeter, QualityMetric
from perjoule.quality import load_metric
from perjoule.run_directory import Run, load_run, write_scores
from perjoule.run_writer import RunWriter, require_vacant
from perjoule.scoring import score_images
from perjoule.statistics.points import operating_points
from perjoule.suite import cells_of, find_suite, load_suite, smoke_of
from perjoule.types import Assignment, Prompt, Suite, Variant

# a lossless PNG is rarely larger than two thirds of its pixels
_PNG_BYTES_PER_PIXEL = 2.0
_DISK_RESERVE_BYTES = 64 * 2**20


class Reporter(Protocol):
    """Where progress goes: a terminal, a log, or nowhere."""

    def message(self, text: str) -> None:
        """A line for the person."""
        ...

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[StageProgress]:
        """A bar for a stage."""
        ...


class StageProgress(Protocol):
    """One stage's bar."""

    def update(self, done: int, note: str = "") -> None:
        """`done` of the total, with a note beside it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A suite that was checked as far as it can be without running it."""

    suite: Suite
    source: Path
    prompts: tuple[Prompt, ...]
    plan: list[Assignment]
    metrics: list[QualityMetric]


def prepare(
    suite_name: str,
    limit: int | None = None,
    *,
    models: Sequence[str] = (),
    smoke: bool = False,
    side_px: int | None = None,
) -> Prepared:
    """Read suite and prompts, load the metrics, lay out the plan.

    Args:
        suite_name: Built-in name or file.
        limit: Prompts to take.
        models: Repositories to take in place of others, see `catalogue.with_models`.
        smoke: Rehearse, see `suite.smoke_of`.
        side_px: Size of the images of a rehearsal.

    Raises:
        SuiteError: If anything in the suite cannot be used.
        UnknownNameError: If a suite, metric, model or prompt set is not known.
    """
    path = find_suite(suite_name)
    suite = with_models(load_suite(path), models)
    if smoke:
        suite = smoke_of(suite, side_px)
    elif side_px is not None:
        raise UsageError("--size is for rehearsals: add --smoke, or set width_px and height_px in the suite")
    if limit is not None:
        if limit < 1:
            raise UsageError(f"--limit {limit}: at least 1 prompt is needed")
        suite = replace(suite, prompts=replace(suite.prompts, limit=limit))
    if not suite.prompts.source.startswith("builtin:") and (path.parent / suite.prompts.source).is_file():
        # the run directory keeps a copy of the suite, from where a relative path would lead elsewhere
        absolute = str((path.parent / suite.prompts.source).resolve())
        suite = replace(suite, prompts=replace(suite.prompts, source=absolute))
    prompts = load_prompts(suite.prompts, where=f"{path}: prompts.source")
    metrics = [
        load_metric(name, dict(suite.metrics.options.get(name, {})), f"{path}: metrics.options.{name}")
        for name in suite.metrics.names
    ]
    return Prepared(suite=suite, source=path, prompts=prompts, plan=make_plan(suite, prompts), metrics=metrics)


def _with_files(weights: dict[str, Any], model: str, source: dict[str, Any]) -> dict[str, Any]:
    """`weights` and the files of one more source; several variants take different files of one repository."""
    known = weights.get(model, {"files": {}})
    return weights | {model: source | {"files": known["files"] | source["files"]}}


def default_out(suite: Suite) -> Path:
    """`runs/2026-05-17T101500-demo`."""
    return Path("runs") / f"{datetime.now():%Y-%m-%dT%H%M%S}-{suite.name}"


def run(
    prepared: Prepared,
    *,
    out: Path,
    meter_name: str,
    resume: bool,
    command: Sequence[str],
    reporter: Reporter,
) -> Run:
    """Measure, score, summarise and report.

    Everything that can be refused is refused before the directory is made.

    Raises:
        Interrupted: On Ctrl-C; all finished trials are kept, and `resume` goes on.
    """
    if not resume:
        require_vacant(out)
    suite = prepared.suite
    for notice in notices(suite):
        reporter.message(f"note: {notice}")
    _set_threads(suite)
    generators = _generators(prepared)
    # every variant and step policy is loaded and every metric's weights are found before anything is written or burnt:
    # what is missing or misspelt must not be found out after an hour
    for metric in prepared.metrics:
        _ = metric.spec
    digests: dict[str, str] = {}
    weights: dict[str, Any] = {}
    for cell in cells_of(suite):
        generator = generators.get(cell.variant)
        digests[weights_name(cell.variant)] = generator.digest
        for model, source in generator.sources.items():
            weights = _with_files(weights, model, source)
        load_policy(cell, generators.where).prepare(generator, [prompt.text for prompt in prepared.prompts])
        del generator  # or it would still be in memory while the next is read
    with open_meter(meter_name) as meter:
        reporter.message(f"meter: {meter.name} ({meter.why})")
        environment = describe(suite, meter, digests, list(command)) | {"weights": weights}
        if resume and out.exists():
            writer = RunWriter.resume(out, suite, environment)
            reporter.message(f"resuming {out}: {len(writer.done)} of {len(prepared.plan)} trials are done")
        else:
            _check_disk(prepared, out)
            writer = RunWriter.create(out, suite, prepared.prompts, environment)
        _measure(prepared, meter, generators, writer, reporter)
    try:
        return finish(load_run(out), prepared.metrics, reporter)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped: all trials are kept in {out}; go on with: perjoule score {out} && perjoule report {out}"
        ) from None


def finish(run: Run, metrics: Sequence[QualityMetric], reporter: Reporter) -> Run:
    """Everything after the last joule: scores, operating points, reports."""
    scored = score(run, metrics, reporter)
    report(scored, run.path / "report.html")
    return scored


def score(run: Run, metrics: Sequence[QualityMetric], reporter: Reporter) -> Run:
    """(Re)score the stored images and bring the operating points up to date."""
    total = len(run.images) * len(metrics)
    with reporter.stage("scoring", total, "scores") as bar:
        done = 0

        def on_progress(name: str, count: int) -> None:
            nonlocal done
            done += count
            bar.update(done, name)

        scores = score_images(run, metrics, on_progress)
    write_scores(run, scores, [metric.spec for metric in metrics])
    fresh = load_run(run.path)
    write_parquet(operating_points(fresh), run.path / "points.parquet")
    return fresh  # it reads its points when they are first asked for, and nobody has yet


def report(run: Run, out: Path) -> list[Path]:
    """Render the run with every registered report writer; returns the files written."""
    files: list[Path] = []
    for point in registry.registered("reports").values():
        files += point.load()(run, out)
    return files


def metrics_for(run: Run, names: Sequence[str]) -> list[QualityMetric]:
    """The named metrics, or the suite's own, with the suite's options."""
    options = run.suite.metrics.options
    return [
        load_metric(name, dict(options.get(name, {})), f"{run.path / 'suite.toml'}: metrics.options.{name}")
        for name in (names or run.suite.metrics.names)
    ]


def estimated_disk_bytes(prepared: Prepared) -> int:
    """An upper guess at the size of the images."""
    pixels = sum(
        len(a.prompts) * (a.cell.variant.width_px or 512) * (a.cell.variant.height_px or 512)
        for a in prepared.plan
        if a.block == 0
    )
    return int(pixels * _PNG_BYTES_PER_PIXEL)


def _measure(
    prepared: Prepared, meter: EnergyMeter, generators: GeneratorCache, writer: RunWriter, reporter: Reporter
) -> None:
    try:
        with reporter.stage("measuring", len(prepared.plan), "trials") as bar:
            bar.update(len(writer.done))

            def on_progress(progress: Progress) -> None:
                joules = "" if progress.energy_j is None else f"{progress.energy_j:,.0f} J, "
                bar.update(progress.trials_done, f"{joules}{progress.images_done} images, {progress.cell_id}")

            execute(
                prepared.plan,
                protocol=prepared.suite.protocol,
                meter=meter,
                generators=generators,
                writer=writer,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped: {len(writer.done)} of {len(prepared.plan)} trials are kept in {writer.path}; "
            f"go on with: perjoule run {writer.path / 'suite.toml'} --out {writer.path} --resume"
        ) from None
    except OSError as error:
        raise RunError(
            f"{writer.path}: cannot be written: {error.strerror or error}; {len(writer.done)} trials are kept, "
            "go on with --resume when there is room"
        ) from error
    writer.finish()


def _generators(prepared: Prepared) -> GeneratorCache:
    factory = registry.load("generators", "diffusers", kind="generator")
    index = {variant.name: number for number, variant in enumerate(prepared.suite.variants)}

    def where(variant: Variant) -> str:
        return f"{prepared.source}: variants[{index[variant.name]}]"

    return GeneratorCache(factory, where, keep_all=prepared.suite.protocol.interleave)


def _check_disk(prepared: Prepared, out: Path) -> None:
    need, free = estimated_disk_bytes(prepared) // 8 + _DISK_RESERVE_BYTES, free_bytes(out)
    if free < need:
        raise RunError(f"{out}: {free / 2**20:.0f} MiB free, about {need / 2**20:.0f} MiB needed: choose another --out")


def _set_threads(suite: Suite) -> None:
    if suite.protocol.threads is not None:
        import torch

        torch.set_num_threads(suite.protocol.threads)
