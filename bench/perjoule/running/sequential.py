"""Measures prompts block by block until the gate has a verdict, see `perjoule.gating.looks`.

    block 1 of both sides ─► scores ─► look 1 ─► continue ─► block 2 … ─► PASS, FAIL, or the planned maximum

If both sides are suites they are measured in one session, window by window: baseline, candidate, candidate, baseline,
…, so that drift affects both equally. Both pipelines are then loaded at once. Otherwise the baseline is a stored run.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from perjoule.errors import DeviceLostError, EvidenceError, Interrupted, MeterError
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
    open_baseline,
    read_plan,
    read_rows,
    write_plan,
)
from perjoule.gating.records import Verdict
from perjoule.gating.render import intervals_of_look, look_in_words
from perjoule.gating.steps import renamed_cells
from perjoule.running import pipeline, reporting
from perjoule.running.device import Device, ready_sides
from perjoule.running.execute import Ledger, Progress
from perjoule.running.planning_looks import GateRequest, look_plan, metric_of, require_same_plan
from perjoule.running.prepared import Prepared
from perjoule.running.reporting import ReportRequest
from perjoule.running.scoring import image_set, open_work, rehearse, score_images
from perjoule.running.stage import Reporter, StageProgress, note_of
from perjoule.running.trial import Bench
from perjoule.runs.derived import derive_tables
from perjoule.runs.directory import Run, is_run, load_run, write_scores
from perjoule.runs.lock import being_written
from perjoule.runs.resume_hint import resume_command
from perjoule.runs.stored import require_same_suite
from perjoule.runs.writer import RunWriter, require_startable
from perjoule.types import Assignment
from perjoule.weights.models import relative_to


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
) -> tuple[Verdict, LookRow]:
    """Measure until the verdict, store each look, and write the report of the candidate.

    If the planned prompts cannot resolve a margin, the outcome of the look is `unresolvable`, and its reason says so.

    Args:
        candidate: Suite of the candidate.
        baseline: A stored run, or a suite that is measured in the same session.
        request: The gate.
        out: Run directory of the candidate; the baseline is stored inside.
        reporter: Reports progress.
        resume: Continue an interrupted gate in `out`; a finished one is only judged again.

    Raises:
        EvidenceError: If the sides are not comparable, before anything is measured.
        UsageError: If an interrupted gate would continue with other margins or looks.
        Interrupted: On Ctrl-C; all finished trials and looks are kept.
        MeterError: If the source of energy is lost.
        DeviceLostError: If the device cannot run any further work in this process.
    """
    with ExitStack() as held:
        continues = resume and is_run(out)
        plan = look_plan(candidate, baseline, request)
        if continues:
            held.enter_context(being_written(out))
            begun = load_run(out)
            require_same_suite(out, begun.suite, candidate.suite)
            require_same_plan(begun, read_plan(out), plan)
            if isinstance(baseline, Run) and has_baseline(out):
                baseline = open_baseline(out, held)
        else:
            require_startable(out)
        rows = read_rows(out, repair=True) if continues else []
        if not rows or rows[-1].outcome == "continue":
            _measure(candidate, baseline, plan, request, out, reporter, held, rows)
            rows = read_rows(out)
        theirs, ours = open_baseline(out, held), load_run(out)
        verdict, row = judge_look(plan, rows[-1].look, theirs, ours)
        _report(candidate, baseline, plan, out, reporter, theirs)
    return verdict, row


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


def in_turn(
    candidate: Sequence[Assignment], baseline: Sequence[Assignment], names: Mapping[str, str]
) -> Iterator[tuple[int, Assignment]]:
    """Yield trials of both sides (0 candidate, 1 baseline) in the order baseline, candidate, candidate, baseline, ….

    Args:
        candidate: Its trials.
        baseline: Trials of the other side; those that have no counterpart come last.
        names: Cell id of the candidate -> cell id of the baseline, for cells whose step count changes.
    """
    theirs = {_window(a, a.cell.cell_id): a for a in baseline}
    for place, assignment in enumerate(candidate):
        pair = [(0, assignment)]
        name = assignment.cell.cell_id
        if (counterpart := theirs.pop(_window(assignment, names.get(name, name)), None)) is not None:
            pair.insert(place % 2, (1, counterpart))
        yield from pair
    yield from ((1, assignment) for assignment in theirs.values())


def _window(assignment: Assignment, cell_id: str) -> tuple[object, ...]:
    """Return what the windows of both sides have in common."""
    return assignment.block, cell_id, tuple(prompt.prompt_id for prompt in assignment.prompts), assignment.seeds


def _do_block(sides: Sequence[_Side], plan: LookPlan, number: int, last: str, reporter: Reporter) -> None:
    """Do the trials of one block that are not on disk yet; `last` is what the look before found."""
    joules: dict[int, float | None] = {}
    first = plan.numbers()
    blocks = [
        [a for a in side.prepared.plan if max(first.get(prompt.prompt_id, 0) for prompt in a.prompts) == number]
        for side in sides
    ]
    names = renamed_cells(sides[-1].prepared.suite, sides[0].prepared.suite, plan.config.change)
    trials = list(in_turn(blocks[0], blocks[1] if len(blocks) > 1 else (), names))
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
    request = ReportRequest(baseline=theirs, gate=replace(plan.config, look=None), address=shlex.quote(str(out)))
    reporting.report(ours, out / "report.html", request)


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
