"""The measuring stage: a bar to follow it on, and a clean stop whatever stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol as Interface

from perjoule.errors import BudgetSpent, DeviceLostError, Interrupted, MeterError, RunError
from perjoule.forecast.budget import Spending
from perjoule.running.execute import Progress, work_of
from perjoule.runs.writer import RunWriter
from perjoule.types import Assignment


class Reporter(Interface):
    """Where progress goes: a terminal, a log, or nowhere."""

    def message(self, text: str) -> None:
        """A line for the person."""
        ...

    def stage(self, name: str, total: int, unit: str, resumed: float = 0.0) -> AbstractContextManager[StageProgress]:
        """A bar for a stage, of which the share `resumed` was done before."""
        ...


class StageProgress(Interface):
    """One stage's bar."""

    def update(self, done: int, note: str = "", share: float | None = None) -> None:
        """`done` of the total, with a note beside it; `share` of the work, where counts say little about time."""
        ...


class Executor(Interface):
    """Does the trials of a plan that are not done yet: `execute` here, `execute_on` on workers, with the rest bound."""

    def __call__(self, *, on_progress: Callable[[Progress], None], spending: Spending) -> None:
        """Raises what stops it."""
        ...


def measure(
    plan: Sequence[Assignment], do: Executor, writer: RunWriter, reporter: Reporter, spending: Spending
) -> None:
    """Do the plan. However it ends, the derived tables fit what is there, so that a part can be scored as well.

    Raises:
        Interrupted: On Ctrl-C, and as BudgetSpent where the budget ends.
        MeterError: If joules are limited and a window has none.
        DeviceLostError: If nothing works any more on the device in this process.
        RunError: If the run cannot be written.
    """
    try:
        do_trials("measuring", plan, do, writer, reporter, spending)
    except KeyboardInterrupt:
        writer.finish()
        raise Interrupted(f"stopped: {_kept(plan, writer)}; {_how_to_go_on(writer)}") from None
    except BudgetSpent as spent:
        writer.finish()
        raise BudgetSpent(f"{spent}; {_kept(plan, writer)}; {_how_to_go_on(writer, ' and a larger budget')}") from None
    except DeviceLostError as lost:
        writer.finish()
        raise DeviceLostError(f"{lost}: {_kept(plan, writer)}; in a new process {_how_to_go_on(writer)}") from None
    except MeterError as error:
        raise MeterError(f"{error}; {_kept(plan, writer)}, go on with --resume") from error
    except OSError as error:
        raise RunError(
            f"{writer.path}: cannot be written: {error.strerror or error}; {len(writer.done)} trials are kept, "
            "go on with --resume when there is room"
        ) from error
    writer.finish()


def do_trials(
    stage: str,
    plan: Sequence[Assignment],
    do: Executor,
    writer: RunWriter,
    reporter: Reporter,
    spending: Spending,
) -> None:
    """Do the plan with a bar on which a person can follow it."""
    work = work_of(plan)
    resumed = sum(work.get(trial_id, 0.0) for trial_id in writer.done)
    with reporter.stage(stage, len(plan), "trials", resumed) as bar:
        bar.update(len(writer.done), share=resumed)
        do(
            on_progress=lambda progress: bar.update(progress.trials_done, _note(progress), progress.share_done),
            spending=spending,
        )


def _note(progress: Progress) -> str:
    """As in `1,234 J, 56 images, sd15-025: 78.9 ± 0.4 J/image`."""
    joules = "" if progress.energy_j is None else f"{progress.energy_j:,.0f} J, "
    found = progress.running
    now = ""
    if found is not None:
        half = "" if found.half is None else f" ± {found.half:.2g}"
        now = f": {found.value:.4g}{half} J/image"
    return f"{joules}{progress.images_done} images, {progress.cell_id}{now}"


def _kept(plan: Sequence[Assignment], writer: RunWriter) -> str:
    return f"{len(writer.done)} of {len(plan)} trials are kept in {writer.path}"


def _how_to_go_on(writer: RunWriter, more: str = "") -> str:
    path = writer.path
    return (
        f"go on with: perjoule run {path / 'suite.toml'} --out {path} --resume{more}; "
        f"or look at what is there: perjoule score {path} && perjoule report {path}"
    )
