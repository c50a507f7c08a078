"""Does trials on several devices at once, recorded in one run directory.

    driver   Ledger, RunWriter, budget         ──assignment──►   worker   pipelines, meter, Bench   (one per device)
                                               ◄────Parcel────            trial and PNG files

Windows are assigned by their number, so that the same worker does the n-th window of every cell: differences between
boards then affect all cells equally, and paired differences stay within a board. Each worker keeps the order of the
plan. A lost worker is replaced and its trial done again; a trial that loses two workers is recorded as failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol as Interface

from perjoule.errors import BudgetSpent, PerjouleError
from perjoule.files import write_bytes
from perjoule.forecast.budget import Spending
from perjoule.running.execute import Ledger, Progress
from perjoule.running.failures import Failure
from perjoule.running.trial import Bench, failed_trial
from perjoule.runs.writer import RunWriter
from perjoule.types import Assignment, Trial

# lost workers after which a trial counts as failed
ATTEMPTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Result of a worker: the trial, and its images as PNG files by image id."""

    trial: Trial
    images: dict[str, bytes]


class Worker(Interface):
    """A remote device that does one trial at a time."""

    def do(self, assignment: Assignment) -> Future[Parcel]:
        """Start a trial. The future raises if the worker is lost."""
        ...

    def close(self) -> None:
        """Release the device and stop its work."""
        ...


class PackingBench:
    """Does trials in a worker, and packs their results from its own folder.

    Args:
        bench: Creates the bench from a function that returns the path of an image.
    """

    def __init__(self, bench: Callable[[Callable[[str], Path]], Bench]) -> None:
        self._temporary = TemporaryDirectory(prefix="perjoule-")
        self._folder = Path(self._temporary.name)
        self._bench = bench(lambda image_id: self._folder / f"{image_id}.png")

    def do(self, assignment: Assignment) -> Parcel:
        """Do a trial. Raises RuntimeError if the device is dead: the worker is then lost, and another takes over."""
        trial = self._bench.do(assignment)
        if self._bench.dead is not None:
            raise RuntimeError(f"the GPU's context is dead ({self._bench.dead})")
        files = sorted(self._folder.glob("*.png"))
        images = {file.stem: file.read_bytes() for file in files}
        for file in files:
            file.unlink()
        return Parcel(trial=trial, images=images)

    def close(self) -> None:
        """Delete the folder."""
        self._temporary.cleanup()


def execute_on(
    plan: Sequence[Assignment],
    *,
    spawn: Callable[[], Worker],
    count: int,
    writer: RunWriter,
    on_progress: Callable[[Progress], None],
    spending: Spending,
) -> None:
    """Do all trials of the plan that `writer` does not contain yet, on `count` workers.

    At the end the files of the run are sorted in the order of the plan.

    Args:
        plan: All trials.
        spawn: Starts a worker, at the beginning and to replace a lost one.
        count: Number of workers.
        writer: Writer of the run.
        on_progress: Called after every trial.
        spending: The budget; running windows do not count yet.

    Raises:
        BudgetSpent: If the next window would exceed the budget; each worker finishes its window.
        PerjouleError: If a worker raised it.
    """
    ledger = Ledger(plan, writer, spending, on_progress)
    queues: list[deque[Assignment]] = [deque() for _ in range(count)]
    for assignment in plan:
        if assignment.trial_id not in writer.done:
            queues[_window(assignment) % count].append(assignment)
    workers: dict[int, Worker] = {}
    running: dict[Future[Parcel], tuple[int, Assignment, int]] = {}
    reason: str | None = None

    def start(number: int, assignment: Assignment, attempt: int = 1) -> None:
        if number not in workers:
            workers[number] = spawn()
        running[workers[number].do(assignment)] = (number, assignment, attempt)

    try:
        for number, queue in enumerate(queues):
            reason = reason or (ledger.why_stop(queue[0]) if queue else None)
            if queue and not reason:
                start(number, queue.popleft())
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, assignment, attempt = running.pop(future)
                error = future.exception()
                if isinstance(error, PerjouleError):
                    raise error
                if error is not None:
                    workers.pop(number).close()
                    if attempt < ATTEMPTS:
                        start(number, assignment, attempt + 1)
                        continue
                    words = f"the worker was lost {attempt} times: {type(error).__name__}: {error}"
                    ledger.book(failed_trial(assignment, Failure(reason=words)))
                else:
                    _book(future.result(), writer, ledger)
                reason = reason or (ledger.why_stop(queues[number][0]) if queues[number] else None)
                if queues[number] and not reason:
                    start(number, queues[number].popleft())
        if reason:
            raise BudgetSpent(reason)
    finally:
        for worker in workers.values():
            worker.close()
        writer.close()
        writer.sort([assignment.trial_id for assignment in plan])


def _book(parcel: Parcel, writer: RunWriter, ledger: Ledger) -> None:
    """Store images before the trial, so that a stored trial has its images."""
    for image_id, png in parcel.images.items():
        write_bytes(writer.image_file(image_id), png)
    ledger.book(parcel.trial)


def _window(assignment: Assignment) -> int:
    """Return the number of a window inside its cell and block."""
    return int(assignment.trial_id.rsplit(".", 1)[1])
