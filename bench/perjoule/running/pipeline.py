"""Composition root: the only module that knows the order of the stages.

run  = check → plan → measure → score → summarise → report
plan = check → plan → (measure a few windows) → forecast
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perjoule import registry
from perjoule.display import quantity
from perjoule.errors import Interrupted, RunError, UsageError
from perjoule.files import free_bytes, write_parquet
from perjoule.forecast import Forecast, forecast
from perjoule.forecast.budget import Budget, Spending
from perjoule.forecast.counted import counted_cells, prices
from perjoule.forecast.forecasting import image_bytes_at_most
from perjoule.forecast.measured import Windows, calibration_plan, measured_price, unused
from perjoule.meters.work import NOT_SEEN
from perjoule.opening import require_no_links
from perjoule.prompts.findings import sentences
from perjoule.protocols import (
    QualityMetric,
    SetMetric,
    counts_calls,
    judges_images,
    judges_sets,
)
from perjoule.quality import load_metric, uses_reference
from perjoule.running import race, ray, reporting
from perjoule.running.device import ready
from perjoule.running.examining import prompt_notes, suite_folder
from perjoule.running.prepared import Prepared
from perjoule.running.scoring import (
    PARTIAL,
    REFUSED,
    forget_partial,
    image_set,
    open_work,
    rehearse,
    score_images,
    score_sets,
)
from perjoule.running.stage import Reporter, do_trials, measure
from perjoule.running.workers import execute_on
from perjoule.runs.derived import with_tables
from perjoule.runs.directory import LOOKS, Run, is_run, load_run, write_scores, write_set_scores
from perjoule.runs.environment import gpu_name
from perjoule.runs.lock import being_written
from perjoule.runs.migrations import require_current
from perjoule.runs.race_record import write_race
from perjoule.runs.stored import require_same_suite
from perjoule.runs.writer import RunWriter, require_startable
from perjoule.statistics.points import operating_points
from perjoule.statistics.price import price_of
from perjoule.suite.reading import cells_of
from perjoule.types import (
    Assignment,
    Suite,
    Variant,
    Work,
)
from perjoule.weights.catalogue import notices
from perjoule.weights.models import relative_to
from perjoule.work.profile import WorkProfile

# windows per cell in a calibration: with two, Student's t makes intervals three times as wide
CALIBRATION_WINDOWS = 3
_NO_BUDGET = Budget()
_DISK_RESERVE_BYTES = 64 * 2**20


def default_out(suite: Suite) -> Path:
    """Return the default run directory, e.g. `runs/2026-05-17T101500-demo`; raises UsageError if `runs` is a link."""
    folder = Path("runs")
    try:
        require_no_links(folder)
    except RunError as error:
        raise UsageError(f"{error}, or name the run directory with --out") from None
    return folder / f"{datetime.now():%Y-%m-%dT%H%M%S}-{suite.name}"


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
    address: str | None = None,
    retry_failed: bool = False,
    racing: bool = False,
) -> Run:
    """Measure, score, summarise and report.

    All inputs are checked before the directory is created.

    Args:
        prepared: The suite to run.
        out: Run directory.
        meter_name: Name as for `open_meter`.
        resume: Continue if the directory contains a part of this run.
        command: Command line, stored in the run.
        reporter: Reports progress.
        budget: Maximum energy and time.
        executor: `local`, or `ray` for all GPUs of a Ray cluster.
        address: Address of that cluster, see `ray.checked_address`.
        retry_failed: When resuming, do trials that failed or have no joules again.
        racing: Give no further prompts to cells that are surely dominated; a race that is resumed stays one.

    Raises:
        Interrupted: On Ctrl-C, and as BudgetSpent at the end of the budget; all finished trials are kept, and `resume`
            continues.
        MeterError: If joules are limited and a window has none.
        DeviceLostError: If the device cannot run any further work in this process.
    """
    spending = Spending(budget)  # starts now, because loading takes minutes too
    suite = prepared.suite
    with ExitStack() as held:
        continues = resume and is_run(out)
        if continues:
            held.enter_context(being_written(out))
            # before models are loaded
            begun = load_run(out)
            require_same_suite(out, begun.suite, suite)
            contest = race.continued_race(begun, prepared, racing)
        else:
            contest = race.race_of(prepared) if racing else None
            require_startable(out)
        if contest is not None and executor == "ray":
            raise UsageError("--race: rounds are measured one after the other on one device: leave --executor ray out")
        if budget != _NO_BUDGET and (problem := foresee(prepared).too_small(budget)):
            reporter.message(f"warning: {problem}")
        for notice in (*prepared.notes, *notices(suite)):
            reporter.message(f"note: {notice}")
        # missing parts of a metric must not be found after an hour of measuring
        if executor == "ray":
            address = ray.checked_address(address)
            ray.rehearse_apart(suite, prepared.source, prepared.folder)
        else:
            with relative_to(prepared.folder):
                rehearse(suite, prepared.metrics, f"{prepared.source}: metrics.names")
        with _devices(executor, prepared, meter_name, command, address, reporter) as (environment, execute_plan):
            _introduce(environment, reporter)
            for cell_id, reason in environment.get("not_loaded", {}).items():
                reporter.message(f"warning: {cell_id} cannot be loaded, its trials will fail: {reason.splitlines()[0]}")
            for sentence in sentences(environment.get("prompt_findings", ())):
                reporter.message(f"warning: {sentence}")
            if continues:
                writer = RunWriter.resume(out, suite, prepared.plan, environment, retry_failed=retry_failed)
                for note in writer.notes:
                    reporter.message(f"note: {note}")
                reporter.message(f"resuming {out}: {len(writer.done)} of {len(prepared.plan)} trials are done")
            else:
                _check_disk(prepared, out)
                out.mkdir(parents=True, exist_ok=True)
                held.enter_context(being_written(out))
                writer = RunWriter.create(out, suite, prepared.prompts, environment)
            execute_all = partial(execute_plan, writer=writer)
            if contest is not None:
                write_race(out, contest)
                if retry_failed:
                    forget_partial(load_run(out))  # a repeated trial may be the reference of stored scores
                execute_all = partial(execute_all, rounds=race.rounds(prepared, contest, out, reporter))
            measure(prepared.plan, execute_all, writer, reporter, spending, command)
        try:
            measured = load_run(out)
            if (price := price_of(measured)) is not None:
                reporter.message(price.words)
            return finish(measured, prepared.metrics, reporter)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped: all trials are kept in {out}",
                remedy=f"continue with: perjoule score {out} && perjoule report {out}",
            ) from None


def _introduce(environment: dict[str, Any], reporter: Reporter) -> None:
    """Report the chosen meter and the warnings of all its readings."""
    meter = environment["meter"]
    reporter.message(f"meter: {meter['name']}" + (f" ({meter['why']})" if meter["why"] else ""))
    for note in meter.get("notes", ()):
        reporter.message(f"warning: {note}")


def foresee(prepared: Prepared, earlier: Run | None = None, profile: WorkProfile | None = None) -> Forecast:
    """Forecast energy, time and detectable effects of a plan.

    Args:
        prepared: The plan.
        earlier: A run whose windows give the energies, and whose scores give the variation; published figures fill
            gaps. The notes of the forecast list its unusable parts.
        profile: Profile of counted work that gives the energies; nothing is drawn.
    """
    if profile is not None:
        return _foresee_counted(prepared, profile)
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
    notes = [*notes, *prepared.notes, *prompt_notes(prepared.examinations, prepared.prompts)]
    return forecast(
        prepared.suite,
        prepared.plan,
        measured=prices,
        device=device,
        scatter=scatter,
        notes=notes,
        selection=prepared.origin.selection,
        sides_px=prepared.sides_px,
    )


def _foresee_counted(prepared: Prepared, profile: WorkProfile) -> Forecast:
    factory = registry.load("generators", "diffusers", kind="generator")

    def call_work(variant: Variant, images: int, steps: int) -> Work | str:
        if not counts_calls(factory):
            return "the generator cannot count work"
        number = [one.name for one in prepared.suite.variants].index(variant.name)
        with relative_to(prepared.folder):
            return factory.call_work(variant, images, steps, where=f"{prepared.source}: variants[{number}]")

    counted = counted_cells(prepared.plan, call_work, profile)
    return forecast(
        prepared.suite,
        prepared.plan,
        measured=prices(counted),
        device=gpu_name(),
        flops={cell_id: cell.flops_per_image for cell_id, cell in counted.items()},
        notes=[
            f"counted work {NOT_SEEN}",
            *prepared.notes,
            *prompt_notes(prepared.examinations, prepared.prompts),
        ],
        selection=prepared.origin.selection,
        sides_px=prepared.sides_px,
    )


def calibrate(prepared: Prepared, meter_name: str, reporter: Reporter) -> Forecast:
    """Forecast a plan from a few windows of each ladder and of every adaptive cell, measured now.

    Raises:
        Interrupted: On Ctrl-C; the calibration is discarded.
    """
    chosen = {cell.cell_id for cell in calibration_plan(cells_of(prepared.suite))}
    windows: dict[str, list[Assignment]] = {cell_id: [] for cell_id in chosen}
    for assignment in sorted(prepared.plan, key=lambda a: a.trial_id):
        if assignment.cell.cell_id in chosen and len(windows[assignment.cell.cell_id]) < CALIBRATION_WINDOWS:
            windows[assignment.cell.cell_id].append(assignment)
    chosen_ids = {assignment.trial_id for part in windows.values() for assignment in part}
    plan = [assignment for assignment in prepared.plan if assignment.trial_id in chosen_ids]
    cells = [cell for cell in cells_of(prepared.suite) if cell.cell_id in chosen]
    with TemporaryDirectory(prefix="perjoule-") as folder, ready(prepared, cells, meter_name, ()) as device:
        _introduce(device.environment, reporter)
        path = Path(folder) / "calibration"
        writer = RunWriter.create(path, prepared.suite, prepared.prompts, device.environment)
        try:
            execute_plan = partial(device.executor(plan, prepared.suite.protocol), writer=writer)
            do_trials("calibrating", plan, execute_plan, writer, reporter, Spending(_NO_BUDGET))
        except KeyboardInterrupt:
            raise Interrupted("stopped: the calibration was discarded") from None
        writer.finish()
        run = load_run(writer.path)
        spent = sum(run.trials["energy_j"].drop_nulls())
        kinds = ", ".join(sorted(run.trials["provenance"].drop_nulls().unique()))
        note = f"the calibration took {quantity(spent, 'J')} ({kinds}) in {len(plan)} windows"
        return _foresee(prepared, Windows.of(run, "calibration"), notes=[note])


def finish(run: Run, metrics: Sequence[QualityMetric | SetMetric], reporter: Reporter) -> Run:
    """Run the stages after measuring: scores, operating points, reports."""
    scored = score(run, metrics, reporter)
    reporting.report(scored, run.path / "report.html", reporting.ReportRequest(address=shlex.quote(str(run.path))))
    return scored


def score(run: Run, metrics: Sequence[QualityMetric | SetMetric], reporter: Reporter) -> Run:
    """Score the stored images (again) and update the operating points.

    An interrupted scoring continues; a finished one starts again.
    """
    if run.is_imported:
        raise RunError(
            f"{run.path} was imported and contains no images: add columns quality:<metric> to the table and import it "
            "again"
        )
    require_current(run.schema, run.path)
    run = with_tables(run)
    planned = run.planned_trials or 0
    if len(run.trials) < planned:
        reporter.message(f"{run.path} is incomplete: {len(run.trials)} of {planned} trials")
    if any(uses_reference(metric) for metric in metrics):
        for facts in run.system.unlike_references or ():
            reporter.message(f"warning: {facts}: full-reference scores of this variant compare unlike images")
    set_metrics = [metric for metric in metrics if judges_sets(metric)]
    images = image_set(run)
    work = open_work(run, images, [metric for metric in metrics if judges_images(metric)])
    stored = sum(len(remaining.stored) for remaining in work)
    # the looks of a race and of a sequential gate leave scores
    if stored and run.race is None and not (run.path / LOOKS).is_file():
        reporter.message(f"scoring continues: {stored} scores exist from an interrupted scoring")
    total = sum(len(remaining.positions) for remaining in work) + len(images.image_ids) * len(set_metrics)
    with reporter.stage("scoring", total, "scores") as bar:
        done = 0

        def on_progress(name: str, count: int) -> None:
            nonlocal done
            done += count
            bar.update(done, name)

        scores = score_images(run, images, work, on_progress)
        set_scores = score_sets(run, images, set_metrics, on_progress)
    refused = {s.image_id: s.reason_unscored for s in scores if (s.reason_unscored or "").startswith(REFUSED)}
    if refused:
        reporter.message(f"warning: {len(refused)} images are not scored, the first: {next(iter(refused.values()))}")
    write_scores(run, scores, [remaining.spec for remaining in work])
    if set_metrics:
        write_set_scores(run, set_scores, [metric.spec for metric in set_metrics])
    forget_partial(run)
    for note in sorted({f"{score.metric}: {note}" for score in set_scores for note in score.notes}):
        reporter.message(f"ADVISORY {note}")
    fresh = load_run(run.path)
    write_parquet(operating_points(fresh), run.path / "points.parquet")
    return fresh  # its points are read on first use, which has not happened yet


def is_scored(run: Run, metrics: Sequence[QualityMetric | SetMetric]) -> bool:
    """Return whether a scoring of these metrics has finished, after which nothing was measured."""
    known = {*run.metrics, *(score.metric for score in run.set_scores)}
    files = not (run.path / PARTIAL).exists() and (run.path / "points.parquet").is_file()
    return files and all(metric.spec.name in known for metric in metrics)


def metrics_for(run: Run, names: Sequence[str]) -> list[QualityMetric | SetMetric]:
    """Load the named metrics, or those of the suite, with the suite's options."""
    options = run.suite.metrics.options
    with relative_to(suite_folder(run.path / "suite.toml")):
        return [
            load_metric(name, dict(options.get(name, {})), f"{run.path / 'suite.toml'}: metrics.options.{name}")
            for name in (names or run.suite.metrics.names)
        ]


@contextmanager
def _devices(
    executor: str,
    prepared: Prepared,
    meter_name: str,
    command: Sequence[str],
    address: str | None,
    reporter: Reporter,
) -> Iterator[tuple[dict[str, Any], Callable[..., None]]]:
    """Return the system under test, and the function that does trials there."""
    if executor == "ray":
        with ray.ray_pool(prepared, meter_name, command, address, reporter.message) as pool:
            yield (
                pool.environment,
                partial(execute_on, prepared.plan, workers=pool.workers, reopen=pool.reopen, message=reporter.message),
            )
    else:
        with ready(prepared, cells_of(prepared.suite), meter_name, command) as device:
            yield device.environment, device.executor(prepared.plan, prepared.suite.protocol)


def _check_disk(prepared: Prepared, out: Path) -> None:
    need, free = image_bytes_at_most(prepared.plan, prepared.sides_px) // 8 + _DISK_RESERVE_BYTES, free_bytes(out)
    if free < need:
        raise RunError(f"{out}: {free / 2**20:.0f} MiB free, about {need / 2**20:.0f} MiB needed: choose another --out")
