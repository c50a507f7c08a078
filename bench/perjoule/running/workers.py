"""Does trials on several devices at once, recorded in one run directory.

    driver   Ledger, RunWriter, budget         ──assignment──►   worker   pipelines, meter, Bench   (one per device)
                                               ◄────Parcel────            trial and PNG files

Windows are assigned by their number, so that one worker does the n-th window of every cell in a block: differences
between boards then affect all cells equally, and paired differences stay within a board. The next block moves on by one
worker. Each worker keeps the order of the plan.

If a worker is lost, its trial is done again by another one if there is one, and the first attempt is recorded in
`superseded.jsonl`. The lost worker is replaced at its place. Workers that have nothing left to do take over its windows
after half a minute, whole units from the end; all others do if it cannot be replaced. A trial that loses three workers
is recorded as failed.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from typing import Protocol as Interface

from perjoule.errors import BudgetSpent, DeviceLostError, EvidenceError, PerjouleError
from perjoule.files import write_bytes
from perjoule.forecast.budget import Spending
from perjoule.running.execute import Ledger, Progress
from perjoule.running.failures import Failure
from perjoule.running.trial import Bench, failed_trial
from perjoule.runs.writer import RunWriter
from perjoule.text import without_uuids
from perjoule.types import Assignment, Trial

# lost workers after which a trial counts as failed; a cluster may take two machines away that did nothing wrong
ATTEMPTS = 3
# workers that a place may lose without a finished trial in between
MOST_LOST = ATTEMPTS + 1
# until those who are ready take over from a worker that is being replaced, which may load models for minutes
TAKEOVER_S = 30.0


class WorkerLostError(Exception):
    """A worker does not answer any more; the message says why."""


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


class PackingBench:
    """Does trials in a worker, and packs their results.

    Images are in a folder only while a trial is packed, so that a worker that is killed leaves none behind.

    Args:
        bench: Creates the bench from a function that returns the path of an image.
    """

    def __init__(self, bench: Callable[[Callable[[str], Path]], Bench]) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._bench = bench(self._image_file)

    def do(self, assignment: Assignment) -> Parcel:
        """Do a trial. Raises RuntimeError if the device is dead: the worker is then lost, and another takes over."""
        try:
            trial = self._bench.do(assignment)
            if self._bench.dead is not None:
                raise RuntimeError(f"the GPU's context is dead ({self._bench.dead})")
            files = sorted(Path(self._folder.name).glob("*.png")) if self._folder is not None else []
            return Parcel(trial=trial, images={file.stem: file.read_bytes() for file in files})
        finally:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _image_file(self, image_id: str) -> Path:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="perjoule-")
        return Path(self._folder.name) / f"{image_id}.png"


def execute_on(
    plan: Sequence[Assignment],
    *,
    workers: Sequence[Worker],
    reopen: Callable[[int], Future[Any]],
    writer: RunWriter,
    on_progress: Callable[[Progress], None],
    spending: Spending,
    message: Callable[[str], None],
) -> None:
    """Do all trials of the plan that `writer` does not contain yet, on all workers.

    At the end the files of the run are sorted in the order of the plan.

    Args:
        plan: All trials.
        workers: Workers that are ready.
        reopen: Starts a worker instead of a lost one, by its number; the future raises if that fails.
        writer: Writer of the run.
        on_progress: Called after every trial.
        spending: The budget; running windows do not count yet.
        message: Prints a line for the user.

    Raises:
        BudgetSpent: If the next window would exceed the budget; each worker finishes its window.
        DeviceLostError: If all workers are lost.
        PerjouleError: If a worker raised it, except for evidence that it cannot give any more.
    """
    ledger = Ledger(plan, writer, spending, on_progress)
    crew = Crew(plan, writer.done, dict(enumerate(workers)), reopen, message)
    reason: str | None = None
    # trials that lost two workers; if there is none left to replace these, the cluster failed, and not the trials
    suspects: dict[int, Trial] = {}
    try:
        while True:
            for number in [*suspects]:
                if number not in crew.opening.values():
                    ledger.book(suspects.pop(number), number)
            if not reason:
                crew.take_over()
            for number in crew.idle():
                reason = reason or ledger.why_stop(crew.queues[number][0])
                if not reason:
                    crew.start(number)
            if not crew.doing and (reason or not crew.opening or not (suspects or crew.has_work())):
                break
            pending: list[Future[Any]] = [*crew.doing, *crew.opening]
            for future in wait(pending, timeout=crew.patience_s(), return_when=FIRST_COMPLETED).done:
                if future in crew.opening:
                    crew.opened(future)
                    continue
                number, assignment = crew.doing.pop(future)
                error = future.exception()
                if error is None:
                    crew.lost.pop(number, None)
                    _book(future.result(), writer, ledger, number)
                elif _ends_the_run(error):
                    raise error
                else:
                    failed = failed_trial(assignment, Failure(reason=f"the worker was lost: {_words(error)}"))
                    if crew.may_repeat(assignment):
                        writer.supersede(failed)
                    else:
                        suspects[number] = failed
                    crew.lose(number, assignment, _words(error))
        if reason:
            raise BudgetSpent(reason)
    finally:
        for failed in suspects.values():
            writer.supersede(failed)
        writer.close()
        writer.sort([assignment.trial_id for assignment in plan])


class Crew:
    """The workers of a run, and who does what.

    Attributes:
        queues: Trials that are left, in the order of the plan, by number of the worker.
        doing: Running trials, with the number of their worker.
        opening: Numbers of workers that are being replaced.
        lost: Workers in succession that each number has lost.
    """

    def __init__(
        self,
        plan: Sequence[Assignment],
        done: set[str],
        workers: dict[int, Worker],
        reopen: Callable[[int], Future[Worker]],
        message: Callable[[str], None],
    ) -> None:
        self._workers, self._reopen, self._message = workers, reopen, message
        self._count = len(workers)
        self._units = dict(zip((a.trial_id for a in plan), units_of(plan), strict=True))
        self._rank = {assignment.trial_id: rank for rank, assignment in enumerate(plan)}
        self._attempts: Counter[str] = Counter()
        self.queues: dict[int, deque[Assignment]] = {number: deque() for number in workers}
        self.doing: dict[Future[Parcel], tuple[int, Assignment]] = {}
        self.opening: dict[Future[Worker], int] = {}
        self._since: dict[int, float] = {}  # when replacing a worker began
        self.lost: Counter[int] = Counter()
        self._share([assignment for assignment in plan if assignment.trial_id not in done])

    def idle(self) -> list[int]:
        """Return the numbers of workers that are ready and have something left to do."""
        busy = {number for number, _ in self.doing.values()}
        return [number for number in self._workers if number not in busy and self.queues[number]]

    def has_work(self) -> bool:
        """Return whether a trial is left that nobody has started."""
        return any(self.queues.values())

    def patience_s(self) -> float | None:
        """Return the seconds until a worker without work may take over from one that is being replaced, if any may."""
        waiting = [self._since[number] for number in self.opening.values() if self.queues[number]]
        return max(0.0, min(waiting) + TAKEOVER_S - time.monotonic()) if waiting and self._free() else None

    def take_over(self) -> None:
        """Give each worker without work the last unit of a worker that has been missing for a while."""
        due = time.monotonic() - TAKEOVER_S
        for number in self._free():
            lent = next((n for n in self.opening.values() if self.queues[n] and self._since[n] <= due), None)
            if lent is None:
                return
            unit = self._units[self.queues[lent][-1].trial_id]
            mine = [a for a in self.queues[lent] if self._units[a.trial_id] == unit]
            self.queues[lent] = deque(a for a in self.queues[lent] if self._units[a.trial_id] != unit)
            self.queues[number].extend(mine)

    def _free(self) -> list[int]:
        busy = {number for number, _ in self.doing.values()}
        return [number for number in self._workers if number not in busy and not self.queues[number]]

    def start(self, number: int) -> None:
        """Start the next trial of a worker."""
        assignment = self.queues[number].popleft()
        self.doing[self._workers[number].do(assignment)] = number, assignment

    def may_repeat(self, assignment: Assignment) -> bool:
        """Return whether a trial is done again if it loses a worker now."""
        return self._attempts[assignment.trial_id] + 1 < ATTEMPTS

    def lose(self, number: int, assignment: Assignment, why: str) -> None:
        """Replace a worker that was lost in a trial; give the trial to another one, unless it lost one before."""
        del self._workers[number]
        again = self.may_repeat(assignment)
        then = "the trial is done again" if again else "the trial has failed"
        self._message(
            f"warning: worker {number + 1} of {self._count} was lost in trial {assignment.trial_id}, {then}: {why}"
        )
        if again:
            self._attempts[assignment.trial_id] += 1
            self.queues[next(iter(self._workers), number)].appendleft(assignment)
        self.lost[number] += 1
        if self.lost[number] < MOST_LOST:
            self._since[number] = time.monotonic()
            self.opening[self._reopen(number)] = number
        else:
            self._give_up(number, why)

    def opened(self, opening: Future[Worker]) -> None:
        """Take in a worker that was replaced, or give up its place."""
        number = self.opening.pop(opening)
        error = opening.exception()
        if isinstance(error, DeviceLostError):  # of all workers
            raise error
        if error is None:
            self._workers[number] = opening.result()
        else:
            self._give_up(number, _words(error))

    def _give_up(self, number: int, why: str) -> None:
        left = self.queues.pop(number)
        if not self.queues:
            raise DeviceLostError(f"all workers were lost, the last one because of {why}")
        self._message(
            f"warning: worker {number + 1} of {self._count} cannot be replaced, and {len(self.queues)} go on: {why}"
        )
        self._share(left)

    def _share(self, assignments: Sequence[Assignment]) -> None:
        """Share out trials: those of a unit stay together."""
        numbers = list(self.queues)
        for assignment in assignments:
            self.queues[numbers[self._units[assignment.trial_id] % len(numbers)]].append(assignment)
        for number, queue in self.queues.items():
            self.queues[number] = deque(sorted(queue, key=lambda a: self._rank[a.trial_id]))


def units_of(plan: Sequence[Assignment]) -> list[int]:
    """Return the unit of each trial: the windows of one number in one block, which one worker does for all cells."""
    windows = [int(assignment.trial_id.rsplit(".", 1)[1]) for assignment in plan]
    count = max(windows, default=0) + 1
    return [assignment.block * count + window for assignment, window in zip(plan, windows, strict=True)]


def _ends_the_run(error: BaseException) -> bool:
    """Return True for errors that the next worker would raise as well; one without evidence may be replaced."""
    if isinstance(error, DeviceLostError):
        return True
    return isinstance(error, PerjouleError) and error.exit_code != EvidenceError.exit_code


def _words(error: BaseException) -> str:
    name = "" if isinstance(error, PerjouleError | WorkerLostError) else f"{type(error).__name__}: "
    return without_uuids(f"{name}{error}")


def _book(parcel: Parcel, writer: RunWriter, ledger: Ledger, number: int) -> None:
    """Store images before the trial, so that a stored trial has its images."""
    for image_id, png in parcel.images.items():
        write_bytes(writer.image_file(image_id), png)
    ledger.book(parcel.trial, number)
