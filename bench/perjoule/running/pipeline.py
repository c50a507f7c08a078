"""The composition root: the only place that knows the order of the stages.

run  = check → plan → measure → score → summarise → report
plan = check → plan → (meter a few windows) → forecast
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perjoule import registry
from perjoule.errors import DeviceLostError, Interrupted, PerjouleError, RunError, SuiteError, UsageError
from perjoule.files import exists, free_bytes, write_parquet
from perjoule.forecast import Forecast, forecast
from perjoule.forecast.budget import Budget, Spending
from perjoule.forecast.forecasting import image_bytes_at_most
from perjoule.forecast.measured import Windows, calibration_plan, measured_price, unused
from perjoule.meters import open_meter
from perjoule.prompts import Origin, read_prompt_set
from perjoule.prompts.findings import record_of, sentences
from perjoule.protocols import (
    EnergyMeter,
    ImageGenerator,
    QualityMetric,
    SetMetric,
    judges_images,
    judges_sets,
    reads_prompts,
)
from perjoule.quality import load_metric
from perjoule.running.examining import examine_models, prompt_notes, suite_folder
from perjoule.running.execute import execute
from perjoule.running.failures import Failure, failure_of
from perjoule.running.policies import load_policy
from perjoule.running.reporting import ReportRequest
from perjoule.running.resuming import stored_prompts
from perjoule.running.scoring import REFUSED, forget_partial, image_set, open_work, rehearse, score_images, score_sets
from perjoule.running.stage import Reporter, do_trials, measure
from perjoule.running.trial import GeneratorCache, NotLoadedError
from perjoule.running.workers import execute_on
from perjoule.runs.directory import Run, is_run, load_run, write_scores, write_set_scores
from perjoule.runs.environment import describe, gpu_name
from perjoule.runs.writer import RunWriter, require_same_images, require_vacant
from perjoule.statistics.points import operating_points
from perjoule.suite.reading import cells_of, find_suite, is_imported, load_suite, smoke_of
from perjoule.suite.schedule import make_plan, planned_trials
from perjoule.types import (
    Assignment,
    Cell,
    Examination,
    Prompt,
    PromptFindings,
    Protocol,
    Suite,
    Variant,
)
from perjoule.weights.catalogue import notices, weights_name, with_models
from perjoule.weights.models import relative_to

# windows of a cell that a calibration meters: with two, Student's t makes intervals three times as wide
CALIBRATION_WINDOWS = 3
_NO_BUDGET = Budget()
_DISK_RESERVE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A suite that was checked as far as it can be without running it.

    `notes` are for the person who runs it; `examinations` are by variant.
    """

    suite: Suite
    source: Path
    prompts: tuple[Prompt, ...]
    origin: Origin
    plan: list[Assignment]
    metrics: list[QualityMetric | SetMetric]
    notes: tuple[str, ...] = ()
    examinations: Mapping[str, Examination] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where relative names of models are looked for first."""
        return suite_folder(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where trials can start: an open meter, loaded pipelines, and the record of the system under test."""

    meter: EnergyMeter
    generators: GeneratorCache
    environment: dict[str, Any]

    def executor(self, plan: Sequence[Assignment], protocol: Protocol) -> Callable[..., None]:
        """`execute` with all but the writer, the progress and the account."""
        return partial(execute, plan, protocol=protocol, meter=self.meter, generators=self.generators)


def prepare(
    suite_name: str,
    limit: int | None = None,
    *,
    models: Sequence[str] = (),
    smoke: bool = False,
    side_px: int | None = None,
    resume: Path | None = None,
) -> Prepared:
    """Read suite and prompts, load the metrics, lay out the plan.

    Args:
        suite_name: Built-in name or file.
        limit: Prompts to take.
        models: Repositories to take in place of others, see `catalogue.with_models`.
        smoke: Rehearse, see `suite.smoke_of`.
        side_px: Size of the images of a rehearsal.
        resume: Run directory whose own prompts are taken if it is a run already, see `resuming.stored_prompts`.

    Raises:
        SuiteError: If anything in the suite cannot be used.
        RunError: If the prompts of the run to resume were changed.
        UnknownNameError: If a suite, metric, model or prompt set is not known.
    """
    path = find_suite(suite_name)
    with relative_to(suite_folder(path)):
        return _prepare(path, limit, models=models, smoke=smoke, side_px=side_px, resume=resume)


def _prepare(
    path: Path, limit: int | None, *, models: Sequence[str], smoke: bool, side_px: int | None, resume: Path | None
) -> Prepared:
    suite = with_models(load_suite(path), models)
    if is_imported(suite):
        raise SuiteError(
            f"{path}: prompts.source = {suite.prompts.source!r}: `perjoule import` wrote this suite, which says what a "
            "table states and not how to draw the images; it cannot be run"
        )
    if smoke:
        suite = smoke_of(suite, side_px)
    elif side_px is not None:
        raise UsageError("--size is for rehearsals: add --smoke, or set width_px and height_px in the suite")
    if limit is not None:
        if limit < 1:
            raise UsageError(f"--limit {limit}: at least 1 prompt is needed")
        suite = replace(suite, prompts=replace(suite.prompts, limit=limit))
    notes: tuple[str, ...] = ()
    if resume is not None and is_run(resume):
        stored = stored_prompts(load_run(resume), suite.prompts, path.parent)
        suite = replace(suite, prompts=stored.source)
        prompts, origin, notes = stored.prompts, stored.origin, (stored.note,) if stored.note else ()
    else:
        suite, prompts, origin = with_prompts(suite, path)
    metrics = [
        load_metric(name, dict(suite.metrics.options.get(name, {})), f"{path}: metrics.options.{name}")
        for name in suite.metrics.names
    ]
    if judges_sets(metrics[suite.metrics.names.index(suite.metrics.primary)]):
        raise SuiteError(
            f"{path}: metrics.primary = {suite.metrics.primary!r}: it judges sets, gives no score to an image and is "
            "advisory: choose another primary metric"
        )
    plan = make_plan(suite, prompts)
    return Prepared(
        suite=suite,
        source=path,
        prompts=prompts,
        origin=origin,
        plan=plan,
        metrics=metrics,
        notes=notes,
        examinations=examine_models(suite, [prompt.text for prompt in prompts], path),
    )


def with_prompts(suite: Suite, path: Path) -> tuple[Suite, tuple[Prompt, ...], Origin]:
    """Read the prompts of a suite: (the suite with an absolute path to its prompt file, prompts, origin).

    Raises:
        SuiteError: If there are no such prompts.
    """
    prompt_file = path.parent / suite.prompts.source
    if not suite.prompts.source.startswith("builtin:") and exists(prompt_file) and prompt_file.is_file():
        # the run directory keeps a copy of the suite, from where a relative path would lead elsewhere
        absolute = str(prompt_file.resolve())
        suite = replace(suite, prompts=replace(suite.prompts, source=absolute))
    prompts, origin = read_prompt_set(suite.prompts, where=f"{path}: prompts.source")
    return suite, prompts, origin


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
    budget: Budget = _NO_BUDGET,
    executor: str = "local",
    retry_failed: bool = False,
) -> Run:
    """Measure, score, summarise and report.

    Everything that can be refused is refused before the directory is made.

    Args:
        prepared: What to run.
        out: Run directory.
        meter_name: As for `open_meter`.
        resume: Go on if the directory holds a part of this run.
        command: For the record.
        reporter: Where progress goes.
        budget: The most to burn.
        executor: `local`, or `ray`: on every GPU of a Ray cluster.
        retry_failed: When resuming, do trials that failed or have no joules again.

    Raises:
        Interrupted: On Ctrl-C, and as BudgetSpent where the budget ends; all finished trials are kept, and `resume`
            goes on.
        MeterError: If joules are limited and a window has none.
        DeviceLostError: If nothing works any more on the device in this process.
    """
    spending = Spending(budget)  # from here on, since loading takes minutes as well
    if not resume:
        require_vacant(out)
    suite = prepared.suite
    if budget != _NO_BUDGET and (problem := foresee(prepared).too_small(budget)):
        reporter.message(f"warning: {problem}")
    for notice in (*prepared.notes, *notices(suite)):
        reporter.message(f"note: {notice}")
    # what a metric lacks must not be found out after an hour of measuring
    if executor == "ray":
        from perjoule.running.ray import rehearse_apart

        rehearse_apart(suite, prepared.source, prepared.folder)
    else:
        with relative_to(prepared.folder):
            rehearse(suite, prepared.metrics, f"{prepared.source}: metrics.names")
    with _devices(executor, prepared, meter_name, command) as (environment, do):
        _introduce(environment, reporter)
        for cell_id, reason in environment.get("not_loaded", {}).items():
            reporter.message(f"warning: {cell_id} cannot be loaded, its trials will fail: {reason.splitlines()[0]}")
        for sentence in sentences(environment.get("prompt_findings", ())):
            reporter.message(f"warning: {sentence}")
        if resume and out.exists():
            require_same_images(out, prepared.plan)
            writer = RunWriter.resume(out, suite, environment, retry_failed=retry_failed)
            reporter.message(f"resuming {out}: {len(writer.done)} of {len(prepared.plan)} trials are done")
        else:
            _check_disk(prepared, out)
            writer = RunWriter.create(out, suite, prepared.prompts, environment)
        measure(prepared.plan, partial(do, writer=writer), writer, reporter, spending)
    try:
        return finish(load_run(out), prepared.metrics, reporter)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped: all trials are kept in {out}; go on with: perjoule score {out} && perjoule report {out}"
        ) from None


def _introduce(environment: dict[str, Any], reporter: Reporter) -> None:
    """Say which meter was taken, and what holds for all of its readings."""
    meter = environment["meter"]
    reporter.message(f"meter: {meter['name']} ({meter['why']})")
    for note in meter.get("notes", ()):
        reporter.message(f"warning: {note}")


def foresee(prepared: Prepared, earlier: Run | None = None) -> Forecast:
    """What the plan will take.

    Args:
        prepared: The plan.
        earlier: A run whose windows tell the prices, and whose scores the scatter; published figures fill in. What of
            it cannot be used is among the notes.
    """
    if earlier is None:
        return _foresee(prepared, None)
    windows = None if earlier.is_imported else Windows.of(earlier)
    return _foresee(prepared, windows, earlier, notes=unused(earlier))


def _foresee(
    prepared: Prepared, windows: Windows | None, scatter: Run | None = None, notes: Sequence[str] = ()
) -> Forecast:
    device, protocol = gpu_name(), prepared.suite.protocol
    cells = cells_of(prepared.suite) if windows else []
    prices = {cell.cell_id: measured_price(cell, windows, protocol, device) for cell in cells if windows}
    said = [*notes, *prompt_notes(prepared.examinations, prepared.prompts)]
    return forecast(prepared.suite, prepared.plan, measured=prices, device=device, scatter=scatter, notes=said)


def calibrate(prepared: Prepared, meter_name: str, reporter: Reporter) -> Forecast:
    """What the plan will take, by a few windows of each ladder and of every adaptive cell, metered now.

    Raises:
        Interrupted: On Ctrl-C; nothing is kept.
    """
    chosen = {cell.cell_id for cell in calibration_plan(cells_of(prepared.suite))}
    windows: dict[str, list[Assignment]] = {cell_id: [] for cell_id in chosen}
    for assignment in sorted(prepared.plan, key=lambda a: a.trial_id):
        if assignment.cell.cell_id in chosen and len(windows[assignment.cell.cell_id]) < CALIBRATION_WINDOWS:
            windows[assignment.cell.cell_id].append(assignment)
    few = {assignment.trial_id for part in windows.values() for assignment in part}
    short = [assignment for assignment in prepared.plan if assignment.trial_id in few]
    cells = [cell for cell in cells_of(prepared.suite) if cell.cell_id in chosen]
    with TemporaryDirectory(prefix="perjoule-") as folder, ready(prepared, cells, meter_name, ()) as device:
        _introduce(device.environment, reporter)
        path = Path(folder) / "calibration"
        writer = RunWriter.create(path, prepared.suite, prepared.prompts, device.environment)
        try:
            do = partial(device.executor(short, prepared.suite.protocol), writer=writer)
            do_trials("calibrating", short, do, writer, reporter, Spending(_NO_BUDGET))
        except KeyboardInterrupt:
            raise Interrupted("stopped: nothing of the calibration is kept") from None
        writer.finish()
        run = load_run(writer.path)
        spent = sum(run.trials["energy_j"].drop_nulls())
        kinds = ", ".join(sorted(run.trials["provenance"].drop_nulls().unique()))
        said = f"the calibration took {spent:,.4g} J ({kinds}) in {len(few)} windows"
        return _foresee(prepared, Windows.of(run, "calibration"), notes=[said])


def finish(run: Run, metrics: Sequence[QualityMetric | SetMetric], reporter: Reporter) -> Run:
    """Everything after the last joule: scores, operating points, reports."""
    scored = score(run, metrics, reporter)
    report(scored, run.path / "report.html")
    return scored


def score(run: Run, metrics: Sequence[QualityMetric | SetMetric], reporter: Reporter) -> Run:
    """(Re)score the stored images and bring the operating points up to date.

    A scoring that was stopped goes on where it was; one that was finished starts anew.
    """
    if run.is_imported:
        raise RunError(
            f"{run.path} was imported and holds no pictures: add columns quality:<metric> to the table and import it "
            "again"
        )
    planned = planned_trials(run.suite, len(run.prompt_set))
    if len(run.trials) < planned:
        reporter.message(f"{run.path} is a part: {len(run.trials)} of {planned} planned trials")
    of_sets = [metric for metric in metrics if judges_sets(metric)]
    images = image_set(run)
    work = open_work(run, images, [metric for metric in metrics if judges_images(metric)])
    kept = sum(len(one.kept) for one in work)
    if kept:
        reporter.message(f"scoring goes on: {kept} scores are there from the one that was stopped")
    total = sum(len(one.left) for one in work) + len(images.image_ids) * len(of_sets)
    with reporter.stage("scoring", total, "scores") as bar:
        done = 0

        def on_progress(name: str, count: int) -> None:
            nonlocal done
            done += count
            bar.update(done, name)

        scores = score_images(run, images, work, on_progress)
        sets = score_sets(run, images, of_sets, on_progress)
    refused = {s.image_id: s.reason_unscored for s in scores if (s.reason_unscored or "").startswith(REFUSED)}
    if refused:
        reporter.message(f"warning: {len(refused)} pictures are not scored, the first: {next(iter(refused.values()))}")
    write_scores(run, scores, [one.spec for one in work])
    if of_sets:
        write_set_scores(run, sets, [metric.spec for metric in of_sets])
    forget_partial(run)
    for note in sorted({f"{found.metric}: {note}" for found in sets for note in found.notes}):
        reporter.message(f"ADVISORY {note}")
    fresh = load_run(run.path)
    write_parquet(operating_points(fresh), run.path / "points.parquet")
    return fresh  # it reads its points when they are first asked for, and nobody has yet


def report(run: Run, out: Path, request: ReportRequest | None = None) -> list[Path]:
    """Render the run with every registered report writer; returns the files written."""
    files: list[Path] = []
    for point in registry.registered("reports").values():
        files += point.load()(run, out, request or ReportRequest())
    return files


def index(folder: Path, out: Path) -> list[Path]:
    """Render the page of a folder of runs with every registered index writer; returns the files written."""
    files: list[Path] = []
    for point in registry.registered("indexes").values():
        files += point.load()(folder, out)
    return files


def metrics_for(run: Run, names: Sequence[str]) -> list[QualityMetric | SetMetric]:
    """The named metrics, or the suite's own, with the suite's options."""
    options = run.suite.metrics.options
    with relative_to(suite_folder(run.path / "suite.toml")):
        return [
            load_metric(name, dict(options.get(name, {})), f"{run.path / 'suite.toml'}: metrics.options.{name}")
            for name in (names or run.suite.metrics.names)
        ]


@contextmanager
def ready(prepared: Prepared, cells: Sequence[Cell], meter_name: str, command: Sequence[str]) -> Iterator[Device]:
    """A device on which trials can start: pipelines loaded, the meter open, the system described.

    Every pipeline and step policy of the cells is loaded once, so that what is missing or misspelt is found now. What
    raises anything else fails its own trials, with the reason, and the other cells go on.

    Raises:
        UsageError: If a pipeline or a policy is not available or its settings do not fit, or none can be loaded.
        DeviceLostError: If nothing works any more on the device.
        MeterError: If energy cannot be measured.
    """
    with torch_threads(prepared.suite.protocol.threads), _loaded(prepared, cells, meter_name, command) as device:
        yield device


@contextmanager
def _loaded(prepared: Prepared, cells: Sequence[Cell], meter_name: str, command: Sequence[str]) -> Iterator[Device]:
    generators = generators_of(prepared.suite, prepared.source)
    digests: dict[str, str] = {}
    weights: dict[str, Any] = {}
    not_loaded: dict[str, str] = {}
    findings: dict[str, PromptFindings] = {}
    texts = [prompt.text for prompt in prepared.prompts]
    for cell in cells:
        try:
            with relative_to(prepared.folder):
                digest, sources, read = _load_once(cell, generators, texts)
        except NotLoadedError as error:
            not_loaded[cell.cell_id] = _survivable(error.failure).reason
            continue
        except PerjouleError:
            raise
        except Exception as error:  # of the step policy
            not_loaded[cell.cell_id] = _survivable(failure_of(error)).reason
            continue
        findings[cell.variant.name] = read
        digests[weights_name(cell.variant)] = digest
        for model, source in sources.items():
            weights = _with_files(weights, model, source)
    if len(not_loaded) == len(cells):
        reasons = "\n".join(f"{prepared.source}: {cell_id}: {reason}" for cell_id, reason in not_loaded.items())
        raise UsageError(f"no cell of {prepared.suite.name} can be loaded:\n{reasons}")
    with open_meter(meter_name) as meter, relative_to(prepared.folder):
        environment = describe(prepared.suite, meter, digests, list(command))
        environment |= {"weights": weights, "prompts": asdict(prepared.origin), "not_loaded": not_loaded}
        environment |= {"prompt_findings": record_of(findings, prepared.prompts)}
        environment |= {"suite_folder": str(prepared.folder)}
        yield Device(meter=meter, generators=generators, environment=environment)


def _load_once(
    cell: Cell, generators: GeneratorCache, texts: Sequence[str]
) -> tuple[str, dict[str, dict[str, Any]], PromptFindings]:
    """Load a cell's pipeline and prepare its policy, in a scope of its own so that neither outlives it."""
    generator = generators.get(cell.variant)
    load_policy(cell, generators.where).prepare(generator, texts)
    read = generator.read_prompts(texts) if reads_prompts(generator) else PromptFindings()
    return generator.digest, generator.sources, read


def _survivable(failure: Failure) -> Failure:
    if failure.kills_context:
        raise DeviceLostError(f"the GPU's context is dead: {failure.reason}; nothing was measured, start a new process")
    return failure


@contextmanager
def _devices(
    executor: str, prepared: Prepared, meter_name: str, command: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Callable[..., None]]]:
    """The system under test, and what does the trials there."""
    if executor == "ray":
        from perjoule.running.ray import ray_pool

        with ray_pool(replace(prepared, metrics=[]), meter_name, command) as pool:
            yield pool.environment, partial(execute_on, prepared.plan, spawn=pool.spawn, count=pool.count)
    else:
        with ready(prepared, cells_of(prepared.suite), meter_name, command) as device:
            yield device.environment, device.executor(prepared.plan, prepared.suite.protocol)


def generators_of(suite: Suite, source: Path) -> GeneratorCache:
    """The pipelines of a suite, loaded when they are asked for; `source` names its file in messages."""
    load = registry.load("generators", "diffusers", kind="generator")
    index = {variant.name: number for number, variant in enumerate(suite.variants)}
    folder = suite_folder(source)

    def factory(variant: Variant, *, where: str) -> ImageGenerator:
        with relative_to(folder):
            generator: ImageGenerator = load(variant, where=where)
            return generator

    def where(variant: Variant) -> str:
        return f"{source}: variants[{index[variant.name]}]"

    return GeneratorCache(factory, where, keep_all=suite.protocol.interleave)


def _check_disk(prepared: Prepared, out: Path) -> None:
    need, free = image_bytes_at_most(prepared.plan) // 8 + _DISK_RESERVE_BYTES, free_bytes(out)
    if free < need:
        raise RunError(f"{out}: {free / 2**20:.0f} MiB free, about {need / 2**20:.0f} MiB needed: choose another --out")


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads, and put the old number back: it is the process's, not the run's."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
