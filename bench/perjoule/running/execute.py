"""Executes a plan: each trial is measured and stored before the next one starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from perjoule.errors import BudgetSpent, DeviceLostError, MeterError
from perjoule.forecast.budget import Budget, Running, Spending
from perjoule.protocols import EnergyMeter
from perjoule.running.trial import Bench, GeneratorCache
from perjoule.runs.writer import RunWriter, trial_row
from perjoule.types import Assignment, Protocol, Trial
from perjoule.warnings import has_code

# windows in succession without joules, after which the run stops: the rest of the plan would have none either
MOST_UNMETERED = 5
# the source did not answer or stood still; other reasons, e.g. a suspended process, concern a single window
_SOURCE_LOST = ("W207", "W211", "W220", "W299")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Trials that are done next, and those that will follow as far as it is known; others of the plan are left out."""

    trials: Sequence[Assignment]
    later: Sequence[Assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress after a trial: totals of the run so far, including resumed trials.

    Attributes:
        trials_done: Trials that are on disk.
        trials_total: Trials that are done or still to be done.
        share_done: Share of the work, 0 to 1, with images weighted by their steps, to estimate the remaining time.
        share_total: Share of the work of these trials: 1, or less if rounds leave trials out.
        images_done: Number of images.
        energy_j: Energy of all windows that have joules; None if none has.
        cell_id: Cell of the last trial.
        running: J/image of that cell so far; None without joules.
    """

    trials_done: int
    trials_total: int
    share_done: float
    share_total: float
    images_done: int
    energy_j: float | None
    cell_id: str
    running: Running | None


def execute(
    plan: Sequence[Assignment],
    *,
    protocol: Protocol,
    meter: EnergyMeter,
    generators: GeneratorCache,
    writer: RunWriter,
    on_progress: Callable[[Progress], None],
    spending: Spending | None = None,
    rounds: Iterable[Round] | None = None,
) -> None:
    """Do all trials of the plan that `writer` does not contain yet.

    With `rounds` these trials of the plan are done instead, one round after the other; after a round the next one may
    take its time, e.g. to score images, so variants are warmed up again.

    If a pipeline raises, the trial is stored as failed with the reason, and the run continues; KeyboardInterrupt leaves
    the run as it was after the last finished trial.

    Raises:
        BudgetSpent: If the next window would exceed the budget of `spending`.
        MeterError: If a window has no joules and `spending` limits them, or the source of energy is lost.
        DeviceLostError: If the device cannot run any further work; the failed trial is recorded.
    """
    ledger = Ledger(plan, writer, spending or Spending(Budget()), on_progress)
    bench = Bench(plan, protocol, meter, generators, writer.image_file, on_hang=writer.append)
    with closing(writer):
        for part in (Round(trials=plan, later=()),) if rounds is None else rounds:
            ledger.expect([*part.trials, *part.later])
            bench.cool()
            for assignment in part.trials:
                if assignment.trial_id in writer.done:
                    continue
                if why := ledger.why_stop(assignment):
                    raise BudgetSpent(why)
                ledger.book(bench.do(assignment))
                if bench.dead is not None:
                    raise DeviceLostError(f"the GPU's context is dead after trial {assignment.trial_id} ({bench.dead})")


class Ledger:
    """Records finished trials on disk, in the budget and in the progress bar.

    Creating it or recording a trial raises MeterError if a trial has no joules and `spending` limits them. Recording
    raises it too if the source of energy of a worker failed in `MOST_UNMETERED` windows in succession. `on_progress` is
    called after every trial.
    """

    def __init__(
        self,
        plan: Sequence[Assignment],
        writer: RunWriter,
        spending: Spending,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._writer, self._spending, self.on_progress = writer, spending, on_progress
        self._work = work_of(plan)
        self._share_done = sum(self._work.get(trial_id, 0.0) for trial_id in writer.done)
        self.expect(plan)
        self._unmetered: Counter[int] = Counter()
        spending.resume(writer.spent)

    def expect(self, coming: Sequence[Assignment]) -> None:
        """Count only these trials of the plan, and those that are done, as the total."""
        expected = {assignment.trial_id for assignment in coming} | (self._work.keys() & self._writer.done)
        self._total, self._share_total = len(expected), sum(self._work[trial_id] for trial_id in expected)

    def why_stop(self, assignment: Assignment) -> str | None:
        """Return the reason why this trial must not be started; None if it may."""
        return self._spending.why_stop(assignment.cell.cell_id)

    def book(self, trial: Trial, worker: int = 0) -> None:
        """Store the trial, update totals, report progress."""
        row = self._writer.append(trial)
        for attempt in trial.attempts:
            self._spending.add(trial_row(attempt))
        self._spending.add(row)
        self._share_done += self._work[trial.trial_id]
        self.on_progress(
            Progress(
                trials_done=len(self._writer.done),
                trials_total=self._total,
                share_done=self._share_done,
                share_total=self._share_total,
                images_done=self._spending.images,
                energy_j=self._spending.energy_j,
                cell_id=trial.cell_id,
                running=self._spending.running(trial.cell_id),
            )
        )
        lost = [text for text in row["warnings"] if any(has_code(text, code) for code in _SOURCE_LOST)]
        self._unmetered[worker] = 0 if row["energy_j"] is not None else self._unmetered[worker] + bool(lost)
        if self._unmetered[worker] >= MOST_UNMETERED:
            raise MeterError(
                f"the source of energy failed in {MOST_UNMETERED} windows in succession, last in {trial.trial_id} "
                f"({next(iter(lost), 'no reason')}): see `perjoule doctor`; --retry-failed repeats these windows"
            )


def work_of(plan: Sequence[Assignment]) -> dict[str, float]:
    """Return the share of all work (images times steps) by trial id; adaptive cells count as the mean of fixed ones."""
    fixed = [a.cell.steps for a in plan if a.cell.steps is not None]
    usual = sum(fixed) / len(fixed) if fixed else 1.0
    work = {a.trial_id: len(a.prompts) * float(a.cell.steps or usual) for a in plan}
    total = sum(work.values())
    return {trial_id: part / total for trial_id, part in work.items()}
