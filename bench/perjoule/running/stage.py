"""The measuring stage, with a progress bar and a clean stop for every cause."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol as Interface

from perjoule.display import quantity
from perjoule.errors import BudgetSpent, DeviceLostError, FileError, Interrupted, MeterError
from perjoule.forecast.budget import Spending
from perjoule.running.execute import Progress, work_of
from perjoule.runs.resume_hint import resume_command
from perjoule.runs.writer import RunWriter
from perjoule.types import Assignment


class Reporter(Interface):
    """Target of progress messages: a terminal, a log, or nothing."""

    def message(self, text: str) -> None:
        """Print a line for the user."""
        ...

    def stage(self, name: str, total: int, unit: str, resumed: float = 0.0) -> AbstractContextManager[StageProgress]:
        """Return the progress bar of a stage, of which the share `resumed` was done before."""
        ...


class StageProgress(Interface):
    """Progress bar of a stage."""

    def update(self, done: int, note: str = "", share: float | None = None) -> None:
        """Show `done` of the total, with a note; `share` is the share of the work, if counts do not represent time."""
        ...

    def expect(self, total: int, share: float) -> None:
        """Replace the total: no more than `share` of the work, 0 to 1, will be done."""
        ...


class Executor(Interface):
    """Does the remaining trials of a plan: `execute` in this process or `execute_on` on workers."""

    def __call__(self, *, on_progress: Callable[[Progress], None], spending: Spending) -> None:
        """Do the trials. Exceptions stop the stage."""
        ...


def measure(
    plan: Sequence[Assignment],
    executor: Executor,
    writer: RunWriter,
    reporter: Reporter,
    spending: Spending,
    command: Sequence[str] = (),
) -> None:
    """Do the plan. Whatever way it ends, the derived tables match the trials, so that an incomplete run can be scored.

    `command` is the command line of the run; errors say how to continue it.

    Raises:
        Interrupted: On Ctrl-C, and as BudgetSpent at the end of the budget.
        MeterError: If joules are limited and a window has none.
        DeviceLostError: If the device cannot run any further work in this process.
        FileError: If the run cannot be written.
    """
    again = resume_command(writer.path, command)
    try:
        do_trials("measuring", plan, executor, writer, reporter, spending)
    except KeyboardInterrupt:
        writer.finish()
        raise Interrupted(f"stopped: {_kept(plan, writer)}", remedy=_how_to_go_on(writer, again)) from None
    except BudgetSpent as spent:
        writer.finish()
        again = f"{resume_command(writer.path, command, budget=False)} and a larger budget"
        raise BudgetSpent(f"{spent}; {_kept(plan, writer)}", remedy=_how_to_go_on(writer, again)) from None
    except DeviceLostError as lost:
        writer.finish()
        remedy = f"in a new process {_how_to_go_on(writer, again)}"
        raise DeviceLostError(f"{lost}: {_kept(plan, writer)}", remedy=remedy) from None
    except MeterError as error:
        writer.finish()
        raise MeterError(f"{error}; {_kept(plan, writer)}", remedy=f"continue with: {again}") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise FileError(
            f"{writer.path}: cannot be written: {error.strerror or error}; {len(writer.done)} trials are kept",
            remedy=f"{'free some space' if full else 'remove the cause'} and continue with: {again}",
        ) from error
    writer.finish()


def do_trials(
    stage: str,
    plan: Sequence[Assignment],
    executor: Executor,
    writer: RunWriter,
    reporter: Reporter,
    spending: Spending,
) -> None:
    """Do the plan with a progress bar."""
    work = work_of(plan)
    resumed = sum(work.get(trial_id, 0.0) for trial_id in writer.done)
    with reporter.stage(stage, len(plan), "trials", resumed) as bar:
        bar.update(len(writer.done), share=resumed)

        def show(progress: Progress) -> None:
            bar.expect(progress.trials_total, progress.share_total)
            bar.update(progress.trials_done, note_of(progress), progress.share_done)

        executor(on_progress=show, spending=spending)


def note_of(progress: Progress) -> str:
    """Return a progress note, e.g. `1.23 kJ, 56 images, sd15-025: 78.9 ± 0.4 J/image`."""
    joules = "" if progress.energy_j is None else f"{quantity(progress.energy_j, 'J')}, "
    running = progress.running
    now = ""
    if running is not None:
        # joules that were counted do not vary
        half = f" ± {running.half:.2g}" if running.half else ""
        now = f": {running.value:.4g}{half} J/image"
    return f"{joules}{progress.images_done} images, {progress.cell_id}{now}"


def _kept(plan: Sequence[Assignment], writer: RunWriter) -> str:
    return f"{len(writer.done)} of {len(plan)} trials are kept in {writer.path}"


def _how_to_go_on(writer: RunWriter, again: str) -> str:
    path = shlex.quote(str(writer.path))
    evaluated = f"perjoule score {path} && perjoule report {path}"
    return f"continue with: {again}; or evaluate the finished trials: {evaluated}"
