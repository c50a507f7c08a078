"""Measures prompts block by block until the gate has a verdict, see `perjoule.gating.looks`.

    block 1 of both sides ─► scores ─► look 1 ─► continue ─► block 2 … ─► PASS, FAIL, or the planned maximum

If both sides are suites they are measured in one session, window by window: baseline, candidate, candidate, baseline,
…, so that drift affects both equally. Both pipelines are then loaded at once. Otherwise the baseline is a stored run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from perjoule.errors import DeviceLostError, EvidenceError, Interrupted, MeterError, UsageError
from perjoule.forecast.budget import Budget, Spending
from perjoule.gating import baselines
from perjoule.gating.evidence import differing_settings
from perjoule.gating.looks import (
    BASELINE,
    LookPlan,
    LookRow,
    append_row,
    has_baseline,
    judge_look,
    measuring_order,
    open_baseline,
    prompts_at_looks,
    read_plan,
    read_rows,
    write_plan,
)
from perjoule.gating.margins import require_fixed
from perjoule.gating.records import GateConfig, Verdict
from perjoule.gating.render import intervals_of_look, look_in_words
from perjoule.protocols import QualityMetric, judges_images
from perjoule.running import pipeline, reporting
from perjoule.running.device import Device, ready_sides
from perjoule.running.execute import Ledger, Progress
from perjoule.running.prepared import Prepared
from perjoule.running.reporting import ReportRequest
from perjoule.running.scoring import image_set, open_work, rehearse, score_images
from perjoule.running.stage import Reporter, StageProgress, note_of
from perjoule.running.trial import Bench
from perjoule.runs.columns import FINISHED
from perjoule.runs.derived import derive_tables
from perjoule.runs.directory import Run, is_run, is_starting, load_run, write_scores
from perjoule.runs.lock import being_written
from perjoule.runs.resume_hint import resume_command
from perjoule.runs.stored import require_same_suite
from perjoule.runs.writer import RunWriter, require_vacant
from perjoule.statistics.designs import Design
from perjoule.suite.reading import cells_of, images_per_window
from perjoule.types import Assignment
from perjoule.weights.models import relative_to


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """What a sequential gate is asked for.

    Attributes:
        baseline: The baseline as it was named.
        config: Margins, error and mode.
        metric: Quality axis; the baseline suite's primary metric by default.
        design: How the error is divided over the looks.
        meter_name: Name as for `open_meter`.
        command: Command line, stored in the run and in messages.
    """

    baseline: str
    config: GateConfig
    metric: str | None
    design: Design
    meter_name: str
    command: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Side:
    """A suite that is being measured."""

    prepared: Prepared
    path: Path
    writer: RunWriter
    bench: Bench
    ledger: Ledger


def gate_until_verdict(
    candidate: Prepared, baseline: Run | Prepared, request: GateRequest, out: Path, reporter: Reporter, *, resume: bool
) -> Verdict:
    """Measure until the verdict, store each look, and write the report of the candidate.

    Args:
        candidate: Suite of the candidate.
        baseline: A stored run, or a suite that is measured in the same session.
        request: The gate.
        out: Run directory of the candidate; the baseline is stored inside.
        reporter: Reports progress.
        resume: Continue an interrupted gate in `out`; a finished one is only judged again.

    Raises:
        EvidenceError: If the sides are not comparable, before anything is measured.
        UsageError: If the planned prompts cannot resolve a margin.
        Interrupted: On Ctrl-C; all finished trials and looks are kept.
        MeterError: If the source of energy is lost.
        DeviceLostError: If the device cannot run any further work in this process.
    """
    with ExitStack() as held:
        continues = resume and is_run(out)
        plan = _plan(candidate, baseline, request)
        if continues:
            held.enter_context(being_written(out))
            begun = load_run(out)
            require_same_suite(out, begun.suite, candidate.suite)
            _require_same_plan(begun, read_plan(out), plan)
            if isinstance(baseline, Run) and has_baseline(out):
                baseline = open_baseline(out, held)
        elif not is_starting(out):
            require_vacant(out)
        rows = read_rows(out, repair=True) if continues else []
        if not rows or rows[-1].outcome == "continue":
            _measure(candidate, baseline, plan, request, out, reporter, held, rows)
            rows = read_rows(out)
        theirs, ours = open_baseline(out, held), load_run(out)
        verdict, row = judge_look(plan, rows[-1].look, theirs, ours)
        _report(candidate, baseline, plan, out, reporter, theirs)
    if row.outcome == "unresolvable":
        raise UsageError(row.reason)
    return verdict


def _plan(candidate: Prepared, baseline: Run | Prepared, request: GateRequest) -> LookPlan:
    """Return the looks. Raises UsageError or EvidenceError if the baseline does not fit the suite."""
    metric = request.metric or baseline.suite.metrics.primary
    metric_of(candidate, metric, request.config)
    cells = {cell.cell_id for cell in cells_of(candidate.suite)}
    ids = [prompt.prompt_id for prompt in candidate.prompts]
    if isinstance(baseline, Prepared):
        metric_of(baseline, metric, request.config)
        lacking = {cell.cell_id for cell in cells_of(baseline.suite)} - cells
        common = set(ids)
        if ids != [prompt.prompt_id for prompt in baseline.prompts]:
            raise EvidenceError(
                f"the suites have different prompts ({len(baseline.prompts)} and {len(ids)}): use the same prompt set "
                "on both sides"
            )
    else:
        lacking = set(baseline.windows["cell_id"]) - cells
        common = _measured_everywhere(baseline)
    if lacking:
        raise EvidenceError(
            f"the baseline {request.baseline} has cells that {candidate.source} does not plan: "
            f"{', '.join(sorted(lacking)[:5])}: use the suite that the baseline was measured with"
        )
    size = images_per_window(candidate.suite)
    order = measuring_order(ids, size, candidate.suite.protocol.order_seed)
    windows = (order[start : start + size] for start in range(0, len(order), size))
    kept = tuple(prompt for window in windows if common.issuperset(window) for prompt in window)
    if not kept:
        raise EvidenceError(
            f"the baseline {request.baseline} has no window of prompts in common with {candidate.source}: use the "
            "prompts that the baseline was measured with"
        )
    return LookPlan(
        config=request.config,
        metric=metric,
        design=request.design,
        prompt_ids=kept,
        prompts=prompts_at_looks(len(kept), size),
        baseline=request.baseline,
        interleaved=isinstance(baseline, Prepared),
    )


def metric_of(prepared: Prepared, name: str, config: GateConfig) -> QualityMetric:
    """Return the loaded metric of the quality axis; raises UsageError if the suite lacks it or it has no margin."""
    metric = next((one for one in prepared.metrics if one.spec.name == name), None)
    if metric is None or not judges_images(metric):
        known = ", ".join(one.spec.name for one in prepared.metrics if judges_images(one))
        raise UsageError(f"gate: {prepared.source} has no metric {name!r}: choose one of {known}, or add it")
    stated = prepared.suite.metrics.margins.get(name)
    if config.joules_per_quality is not None or config.margin_quality is not None:
        return metric
    require_fixed(name, stated, sequential=True)
    if metric.spec.margin is None and stated is None:
        raise UsageError(f"gate: metric {name!r} declares no margin: give --margin-quality")
    return metric


def _measured_everywhere(run: Run) -> set[str]:
    """Return the prompts that a run has finished windows of in every cell."""
    pairs = run.trials.filter(FINISHED).select("cell_id", "prompt_ids").explode("prompt_ids").unique()
    counts = pairs["prompt_ids"].value_counts()
    cells = pairs["cell_id"].n_unique()
    return {prompt for prompt, count in counts.iter_rows() if count == cells}


def _require_same_plan(begun: Run, stored: LookPlan | None, plan: LookPlan) -> None:
    out = begun.path
    if stored is None:
        if begun.trials.is_empty():  # it was cut off before its first trial
            return
        raise UsageError(f"{out} is not the run of a sequential gate: choose another --out")
    for key in ("metric", "design", "prompt_ids", "prompts", "interleaved"):
        old, new = getattr(stored, key), getattr(plan, key)
        if old != new:
            shown = "" if key.startswith("prompt") else f": {old} and {new}"
            raise UsageError(f"{out} cannot be resumed: {key} differs from the beginning{shown}: use the same command")
    if stored.config != plan.config:
        raise UsageError(
            f"{out} cannot be resumed: margins, error or mode differ from the beginning ({stored.config} and "
            f"{plan.config}): use the same command, because a gate must not change while it looks"
        )


def _measure(
    candidate: Prepared,
    baseline: Run | Prepared,
    plan: LookPlan,
    request: GateRequest,
    out: Path,
    reporter: Reporter,
    held: ExitStack,
    rows: Sequence[LookRow],
) -> None:
    """Measure, score and judge block by block, from the first look that is not stored."""
    suites = [candidate, *((baseline,) if isinstance(baseline, Prepared) else ())]
    for note in candidate.notes:
        reporter.message(f"note: {note}")
    for side in suites:
        with relative_to(side.folder):
            rehearse(side.suite, [metric_of(side, plan.metric, plan.config)], f"{side.source}: metrics.names")
    with ready_sides(suites, request.meter_name, request.command) as devices:
        _introduce(devices, suites, baseline, plan, reporter)
        if not is_run(out):
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(being_written(out))
        paths = [out, out / BASELINE]
        sides = [_opened(side, device, path) for side, device, path in zip(suites, devices, paths, strict=False)]
        if read_plan(out) is None:
            write_plan(plan, out)
        if isinstance(baseline, Run) and not has_baseline(out):
            baselines.save(baseline, BASELINE, root=out / BASELINE)
        try:
            last = f"; {intervals_of_look(rows[-1], plan)}" if rows else ""
            for number in range(len(rows) + 1, len(plan.prompts) + 1):
                _do_block(sides, plan, number, last, reporter)
                row = _look(sides, plan, number, out)
                last = f"; {intervals_of_look(row, plan)}"
                for side in reversed(sides):  # the candidate's looks count, and are therefore stored last
                    append_row(side.path, row)
                reporter.message(look_in_words(row, plan))
                if row.outcome != "continue":
                    break
        except KeyboardInterrupt:
            raise Interrupted(f"stopped: {_kept(sides, request)}") from None
        except (DeviceLostError, MeterError) as error:
            raise type(error)(f"{error}; {_kept(sides, request)}") from error
        finally:
            for opened in sides:
                opened.writer.finish()


def _introduce(
    devices: Sequence[Device], suites: Sequence[Prepared], baseline: Run | Prepared, plan: LookPlan, reporter: Reporter
) -> None:
    """Report meter and looks; raises EvidenceError if the sides are not comparable."""
    meter = devices[0].environment["meter"]
    reporter.message(f"meter: {meter['name']}" + (f" ({meter['why']})" if meter["why"] else ""))
    theirs = baseline.environment if isinstance(baseline, Run) else devices[1].environment
    differences = differing_settings(
        (baseline.suite, suites[0].suite), (theirs, devices[0].environment), plan.metric, plan.config.change
    )
    if differences:
        listed = "; ".join(f"{d.key}: {d.baseline!r} and {d.candidate!r}" for d in differences[:5])
        raise EvidenceError(
            f"gate: nothing was measured, because baseline and candidate are not comparable: {listed}; use the "
            "baseline's settings, or declare the change under test with --change KEY"
        )
    where = "both sides in this session" if plan.interleaved else f"against {plan.baseline}"
    looks = ", ".join(map(str, plan.prompts))
    reporter.message(f"sequential gate ({plan.design}), {where}: looks after {looks} prompts")


def _opened(prepared: Prepared, device: Device, path: Path) -> _Side:
    if is_run(path):
        writer = RunWriter.resume(path, prepared.suite, prepared.plan, device.environment)
    else:
        writer = RunWriter.create(path, prepared.suite, prepared.prompts, device.environment)
    bench = Bench(
        prepared.plan, prepared.suite.protocol, device.meter, device.generators, writer.image_file,
        on_hang=writer.append,
    )  # fmt: skip
    ledger = Ledger(prepared.plan, writer, Spending(Budget()), lambda progress: None)
    return _Side(prepared=prepared, path=path, writer=writer, bench=bench, ledger=ledger)


def in_turn(candidate: Sequence[Assignment], baseline: Sequence[Assignment]) -> Iterator[tuple[int, Assignment]]:
    """Yield trials of both sides (0 candidate, 1 baseline) in the order baseline, candidate, candidate, baseline, ….

    Trials of the two sides belong together if they have the same id.
    """
    theirs = {assignment.trial_id: assignment for assignment in baseline}
    for place, assignment in enumerate(candidate):
        pair = [(0, assignment)]
        if assignment.trial_id in theirs:
            pair.insert(place % 2, (1, theirs[assignment.trial_id]))
        yield from pair


def _do_block(sides: Sequence[_Side], plan: LookPlan, number: int, last: str, reporter: Reporter) -> None:
    """Do the trials of one block that are not on disk yet; `last` is what the look before found."""
    joules: dict[int, float | None] = {}
    first = plan.numbers()
    blocks = [
        [a for a in side.prepared.plan if max(first.get(prompt.prompt_id, 0) for prompt in a.prompts) == number]
        for side in sides
    ]
    trials = list(in_turn(blocks[0], blocks[1] if len(blocks) > 1 else ()))
    done = sum(a.trial_id in sides[side].writer.done for side, a in trials)
    with reporter.stage(f"look {number} of {len(plan.prompts)}", len(trials), "trials", done / len(trials)) as bar:
        for index, assignment in trials:
            side = sides[index]
            if assignment.trial_id in side.writer.done:
                continue
            with relative_to(side.prepared.folder):
                trial = side.bench.do(assignment)
            done += 1
            side.ledger.on_progress = partial(_advance, bar, done, index, joules, last)
            side.ledger.book(trial)
            if side.bench.dead is not None:
                raise DeviceLostError(
                    f"the GPU's context is dead after trial {assignment.trial_id} ({side.bench.dead})"
                )


def _advance(
    bar: StageProgress, done: int, side: int, joules: dict[int, float | None], last: str, progress: Progress
) -> None:
    """Show the joules of both sides, the current cell, and the intervals of the last look."""
    joules[side] = progress.energy_j
    known = [value for value in joules.values() if value is not None]
    total = replace(progress, energy_j=sum(known) if known else None)
    bar.update(done, note_of(total) + last)


def _look(sides: Sequence[_Side], plan: LookPlan, number: int, out: Path) -> LookRow:
    """Score what is new on all sides, and judge."""
    for side in sides:
        derive_tables(load_run(side.path))
        run = load_run(side.path)
        images = image_set(run)
        # the journal of scores is kept, so that the next look scores only new images
        with relative_to(side.prepared.folder):
            work = open_work(run, images, [metric_of(side.prepared, plan.metric, plan.config)])
            scores = score_images(run, images, work, lambda name, count: None)
        write_scores(run, scores, [remaining.spec for remaining in work])
    with ExitStack() as stack:
        _, row = judge_look(plan, number, open_baseline(out, stack), load_run(out))
    return row


def _report(
    candidate: Prepared, baseline: Run | Prepared, plan: LookPlan, out: Path, reporter: Reporter, theirs: Run
) -> None:
    """Score all metrics, and write the report of the candidate with the verdict."""
    if isinstance(baseline, Prepared):
        theirs = _scored(baseline, out / BASELINE, reporter)
    ours = _scored(candidate, out, reporter)
    reporting.report(ours, out / "report.html", ReportRequest(baseline=theirs, gate=replace(plan.config, look=None)))


def _scored(side: Prepared, path: Path, reporter: Reporter) -> Run:
    """Score what a finished gate has not scored: other batches would move the scores on which its looks are based."""
    run = load_run(path)
    if pipeline.is_scored(run, side.metrics):
        return run
    with relative_to(side.folder):
        return pipeline.score(run, side.metrics, reporter)


def _kept(sides: Sequence[_Side], request: GateRequest) -> str:
    kept = " and ".join(f"{len(side.writer.done)} trials are kept in {side.path}" for side in sides)
    return f"{kept}; continue with: {resume_command(sides[0].path, request.command)}"
