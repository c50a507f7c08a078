"""The run itself: each planned trial under the meter, on disk before the next one starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from perjoule.errors import BudgetSpent, DeviceLostError
from perjoule.forecast.budget import Budget, Running, Spending
from perjoule.protocols import EnergyMeter
from perjoule.running.trial import Bench, GeneratorCache
from perjoule.runs.writer import RunWriter
from perjoule.types import Assignment, Protocol, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What there is to tell after a trial: totals of the run so far, resumed trials included.

    Attributes:
        trials_done: Trials that are on disk.
        trials_total: Of the plan.
        share_done: Of the work, 0 to 1, images weighed by their steps: what a remaining time can be told from.
        images_done: Images.
        energy_j: Of all windows that have joules; None if none has.
        cell_id: Of the last trial.
        running: J/image of that cell so far; None without joules.
    """

    trials_done: int
    trials_total: int
    share_done: float
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
) -> None:
    """Do all trials of the plan that `writer` does not hold yet.

    A pipeline that raises leaves a failed trial with the reason, and the run goes on; KeyboardInterrupt leaves the run
    as it is after the last finished trial.

    Raises:
        BudgetSpent: If `spending` says that the next window would not fit any more.
        MeterError: If a window has no joules and `spending` limits them.
        DeviceLostError: If nothing works any more on the device; the trial that failed is recorded.
    """
    ledger = Ledger(plan, writer, spending or Spending(Budget()), on_progress)
    bench = Bench(plan, protocol, meter, generators, writer.image_file)
    with closing(writer):
        for assignment in plan:
            if assignment.trial_id in writer.done:
                continue
            if why := ledger.why_stop(assignment):
                raise BudgetSpent(why)
            ledger.book(bench.do(assignment))
            if bench.dead is not None:
                raise DeviceLostError(f"the GPU's context is dead after trial {assignment.trial_id} ({bench.dead})")


class Ledger:
    """Books finished trials: on disk, on the account, on the bar.

    Raises MeterError, here and when booking, if a trial has no joules and `spending` limits them.
    """

    def __init__(
        self,
        plan: Sequence[Assignment],
        writer: RunWriter,
        spending: Spending,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._writer, self._spending, self._on_progress = writer, spending, on_progress
        self._work = work_of(plan)
        self._share_done = sum(self._work.get(trial_id, 0.0) for trial_id in writer.done)
        spending.resume([*writer.superseded, *writer.done.values()])

    def why_stop(self, assignment: Assignment) -> str | None:
        """Why this trial must not be started any more; None if it may."""
        return self._spending.why_stop(assignment.cell.cell_id)

    def book(self, trial: Trial) -> None:
        """Write it, count it, tell of it."""
        self._writer.append(trial)
        self._spending.add(self._writer.done[trial.trial_id])
        self._share_done += self._work[trial.trial_id]
        self._on_progress(
            Progress(
                trials_done=len(self._writer.done),
                trials_total=len(self._work),
                share_done=self._share_done,
                images_done=self._spending.images,
                energy_j=self._spending.energy_j,
                cell_id=trial.cell_id,
                running=self._spending.running(trial.cell_id),
            )
        )


def work_of(plan: Sequence[Assignment]) -> dict[str, float]:
    """Trial id -> share of all work, images times steps; an adaptive cell counts as the mean of the fixed ones."""
    fixed = [a.cell.steps for a in plan if a.cell.steps is not None]
    usual = sum(fixed) / len(fixed) if fixed else 1.0
    work = {a.trial_id: len(a.prompts) * float(a.cell.steps or usual) for a in plan}
    whole = sum(work.values())
    return {trial_id: part / whole for trial_id, part in work.items()}
