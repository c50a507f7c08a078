from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from perjoule.errors import BudgetSpent, DeviceLostError, MeterError, PerjouleError, UsageError
from perjoule.forecast.budget import Budget, Spending
from perjoule.running.trial import Bench, GeneratorCache
from perjoule.running.workers import (
    ATTEMPTS,
    MOST_LOST,
    Crew,
    PackingBench,
    Parcel,
    Worker,
    WorkerLostError,
    execute_on,
    units_of,
)
from perjoule.runs.directory import Run, load_run
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Assignment
from tests.perjoule.forecast.worlds import MODEL, POWER_W, PROMPTS, STEP_S, named, run_of, suite_of

ENVIRONMENT = {"comparability": {"device": ["board"]}, "comparability_key": "k"}
SUITE = suite_of(MODEL, named(MODEL, "w", steps=(2,)), blocks=2, batch_size=2)


class ThreadWorker:
    """A worker in a thread of this process, on virtual time; `harm` may raise before a trial is done."""

    def __init__(self, number: int, harm: Callable[[int, Assignment], None], unmetered: tuple[int, ...] = ()) -> None:
        clock = VirtualClock()
        self._thread = ThreadPoolExecutor(1)
        self._harm = harm
        self.number = number
        self.done: list[str] = []
        cache = GeneratorCache(FakeFactory(FakeGenerator(clock=clock, step_s=STEP_S)), lambda v: v.name)
        meter = SyntheticMeter(POWER_W, clock, failing=lambda window: number in unmetered)
        plan = make_plan(SUITE, PROMPTS)
        self._bench = PackingBench(lambda place: Bench(plan, SUITE.protocol, meter, cache, place))

    def do(self, assignment: Assignment) -> Future[Parcel]:
        return self._thread.submit(self._work, assignment)

    def _work(self, assignment: Assignment) -> Parcel:
        self._harm(self.number, assignment)
        self.done.append(assignment.trial_id)
        return self._bench.do(assignment)


def unharmed(number: int, assignment: Assignment) -> None:
    """Nothing happens."""


class Pool:
    def __init__(
        self,
        harm: Callable[[int, Assignment], None] = unharmed,
        refuses: Callable[[int], BaseException | None] = lambda number: None,
        unmetered: tuple[int, ...] = (),
    ) -> None:
        self.workers: list[ThreadWorker] = []
        self.messages: list[str] = []
        self._harm, self._refuses, self._unmetered = harm, refuses, unmetered

    def open(self, number: int) -> ThreadWorker:
        self.workers.append(ThreadWorker(number, self._harm, self._unmetered))
        return self.workers[-1]

    def reopen(self, number: int) -> Future[ThreadWorker]:
        opening: Future[ThreadWorker] = Future()
        error = self._refuses(number)
        if error is not None:
            opening.set_exception(error)
        else:
            opening.set_result(self.open(number))
        return opening

    def run(self, path: Path, count: int = 2, budget: Budget | None = None) -> Run:
        plan = make_plan(SUITE, PROMPTS)
        writer = (
            RunWriter.resume(path, SUITE, plan, ENVIRONMENT)
            if path.exists()
            else RunWriter.create(path, SUITE, PROMPTS, ENVIRONMENT)
        )
        try:
            execute_on(
                plan,
                workers=[self.open(number) for number in range(count)],
                reopen=self.reopen,
                writer=writer,
                on_progress=lambda progress: None,
                spending=Spending(budget or Budget()),
                message=self.messages.append,
            )
        finally:
            writer.finish()
        return load_run(path)


def superseded(run: Run) -> list[tuple[str, str]]:
    """Attempts at trials that were done again."""
    file = run.path / "superseded.jsonl"
    rows = map(json.loads, file.read_text().splitlines() if file.exists() else ())
    return [(row["trial_id"], row["failure"]) for row in rows]


def files(run: Run) -> dict[str, bytes]:
    names = ["trials.jsonl", "traces.jsonl", "devices.jsonl", "images.parquet", "prompts.jsonl", "suite.toml"]
    pictures = sorted((run.path / "images").glob("*.png"))
    return {str(p.relative_to(run.path)): p.read_bytes() for p in [*(run.path / n for n in names), *pictures]}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_workers_make_the_bytes_of_one(tmp_path: Path, count: int) -> None:
    local = run_of(SUITE, tmp_path / "local")
    pool = Pool()
    assert files(pool.run(tmp_path / "there", count)) == files(local)
    # every window of a number in a block is done by one worker, whatever the cell, and in the order of the plan
    plan = make_plan(SUITE, PROMPTS)
    unit = dict(zip((assignment.trial_id for assignment in plan), units_of(plan), strict=True))
    assert [{unit[trial] % count for trial in worker.done} for worker in pool.workers] == [{n} for n in range(count)]
    order = [assignment.trial_id for assignment in plan]
    for worker in pool.workers:
        assert worker.done == sorted(worker.done, key=order.index)
    assert not superseded(load_run(tmp_path / "there"))


def test_blocks_of_one_window_are_shared_out() -> None:
    """One window per cell must not put all work on one of several boards; its cells stay on one in each block."""
    suite = suite_of(MODEL, named(MODEL, "w", steps=(2,)), blocks=4, batch_size=2)
    plan = make_plan(suite, PROMPTS[:1])
    assert {assignment.trial_id.rsplit(".", 1)[1] for assignment in plan} == {"0000"}
    assert units_of(plan) == [assignment.block for assignment in plan]
    workers: dict[int, Worker] = {number: ThreadWorker(number, unharmed) for number in range(4)}
    queues = Crew(plan, set(), workers, lambda number: Future(), print).queues
    assert [{assignment.block for assignment in queue} for queue in queues.values()] == [{0}, {1}, {2}, {3}]


def test_the_trial_of_a_lost_worker_is_done_by_another(tmp_path: Path) -> None:
    local = run_of(SUITE, tmp_path / "local")
    trial = local.trials["trial_id"][3]
    where: list[int] = []

    def once(number: int, assignment: Assignment) -> None:
        if assignment.trial_id == trial:
            where.append(number)
            if len(where) == 1:
                raise ConnectionError("the node is gone")

    pool = Pool(once)
    run = pool.run(tmp_path / "there")
    assert files(run) == files(local)
    assert len(pool.workers) == 3
    assert sorted(where) == [0, 1]
    # both attempts are recorded: the first one here, the second one among the trials
    assert superseded(run) == [(trial, "the worker was lost: ConnectionError: the node is gone")]
    (said,) = pool.messages
    assert said.startswith(f"warning: worker {where[0] + 1} of 2 was lost in trial {trial}, the trial is done again")


def test_others_take_over_from_a_worker_that_cannot_be_replaced(tmp_path: Path) -> None:
    local = run_of(SUITE, tmp_path / "local")

    def gone(number: int, assignment: Assignment) -> None:
        if number == 1:
            raise WorkerLostError("the node is gone")

    pool = Pool(gone, refuses=lambda number: WorkerLostError("no answer within 300 s"))
    run = pool.run(tmp_path / "there", count=3)
    assert files(run) == files(local)
    assert len(pool.workers) == 3
    assert pool.messages[1:] == ["warning: worker 2 of 3 cannot be replaced, and 2 go on: no answer within 300 s"]
    assert len(superseded(run)) == 1


def test_workers_without_work_take_over_from_one_that_takes_long_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with its last trial, although the second worker never comes back."""
    monkeypatch.setattr("perjoule.running.workers.TAKEOVER_S", 0.05)
    local = run_of(SUITE, tmp_path / "local")
    begun: list[str] = []

    def dies_at_once(number: int, assignment: Assignment) -> None:
        begun.append(assignment.trial_id)
        if number == 1:
            raise WorkerLostError("the node is gone")

    pool = Pool(dies_at_once)
    pool.reopen = lambda number: Future()  # type: ignore[method-assign]
    run = pool.run(tmp_path / "there")
    assert run.trials["trial_id"].to_list() == local.trials["trial_id"].to_list()
    assert run.trials["failure"].null_count() == len(run.trials)
    assert len(superseded(run)) == 1
    # whole units, the last ones first
    unit = dict(zip((a.trial_id for a in make_plan(SUITE, PROMPTS)), units_of(make_plan(SUITE, PROMPTS)), strict=True))
    (first,) = (worker for worker in pool.workers if worker.number == 0)
    taken = [unit[trial] for trial in first.done if unit[trial] % 2]
    changes = [unit for place, unit in enumerate(taken) if place == 0 or unit != taken[place - 1]]
    assert len(changes) <= len(set(taken)) + 1


def test_nobody_takes_over_from_a_worker_that_is_replaced_soon(tmp_path: Path) -> None:
    lost: list[str] = []

    def dies_once(number: int, assignment: Assignment) -> None:
        if number == 1 and not lost:
            lost.append(assignment.trial_id)
            raise WorkerLostError("the node is gone")

    pool = Pool(dies_once)
    pool.run(tmp_path / "there")
    unit = dict(zip((a.trial_id for a in make_plan(SUITE, PROMPTS)), units_of(make_plan(SUITE, PROMPTS)), strict=True))
    first = [trial for worker in pool.workers if worker.number == 0 for trial in worker.done]
    assert {trial for trial in first if unit[trial] % 2} <= set(lost)


def test_a_place_that_loses_worker_after_worker_is_given_up(tmp_path: Path) -> None:
    local = run_of(SUITE, tmp_path / "local")

    def dying(number: int, assignment: Assignment) -> None:
        if number == 1:
            raise MeterError("the GPU is lost")  # concerns only this board

    pool = Pool(dying)
    assert files(pool.run(tmp_path / "there")) == files(local)
    assert [worker.number for worker in pool.workers] == [0, 1, *[1] * (MOST_LOST - 1)]
    assert pool.messages[-1] == "warning: worker 2 of 2 cannot be replaced, and 1 go on: the GPU is lost"


def test_a_trial_that_loses_too_many_workers_is_recorded_as_failed(tmp_path: Path) -> None:
    deadly = make_plan(SUITE, PROMPTS)[3].trial_id

    def always(number: int, assignment: Assignment) -> None:
        if assignment.trial_id == deadly:
            raise ConnectionError("the node is gone")

    run = Pool(always).run(tmp_path / "run")
    assert run.trials.height == len(make_plan(SUITE, PROMPTS))
    failed = run.trials.filter(pl.col("failure").is_not_null())
    assert failed["trial_id"].to_list() == [deadly]
    assert failed["failure"][0] == "the worker was lost: ConnectionError: the node is gone"
    assert failed["energy_j"].to_list() == [None]
    assert [trial for trial, _ in superseded(run)] == [deadly] * (ATTEMPTS - 1)


def test_a_run_without_any_worker_left_ends_and_can_be_resumed(tmp_path: Path) -> None:
    local = run_of(SUITE, tmp_path / "local")
    begun: list[str] = []

    def soon(number: int, assignment: Assignment) -> None:
        begun.append(assignment.trial_id)
        if len(begun) > 3:
            raise WorkerLostError("the cluster is gone")

    with pytest.raises(DeviceLostError, match="all workers were lost, the last one because of no answer"):
        Pool(soon, refuses=lambda number: WorkerLostError("no answer")).run(tmp_path / "there")
    part = load_run(tmp_path / "there")
    assert (part.trials.height, part.trials["failure"].null_count()) == (3, 3)
    assert len(superseded(part)) == 2  # the trials of both workers, or one trial twice
    assert files(Pool().run(tmp_path / "there")) == files(local)


@pytest.mark.parametrize("error", [UsageError("no such model"), DeviceLostError("the cluster was lost")])
def test_what_concerns_all_workers_ends_the_run(tmp_path: Path, error: PerjouleError) -> None:
    def refuse(number: int, assignment: Assignment) -> None:
        raise error

    pool = Pool(refuse)
    with pytest.raises(type(error), match=str(error)):
        pool.run(tmp_path / "run")
    assert len(pool.workers) == 2


def test_a_lost_cluster_ends_a_run_that_replaces_a_worker(tmp_path: Path) -> None:
    def gone(number: int, assignment: Assignment) -> None:
        raise WorkerLostError("the node is gone")

    with pytest.raises(DeviceLostError, match="the cluster was lost"):
        Pool(gone, refuses=lambda number: DeviceLostError("the cluster was lost")).run(tmp_path / "run")


def test_a_board_without_joules_is_noticed_among_others(tmp_path: Path) -> None:
    """Its windows are in succession on this board only."""

    def late(number: int, assignment: Assignment) -> None:
        while number == 1 and len(pool.workers[0].done) < 4:  # begun, so three are recorded
            time.sleep(0.001)

    pool = Pool(late, unmetered=(1,))
    with pytest.raises(MeterError, match=r"failed in 5 windows in succession, last in .* \(W220"):
        pool.run(tmp_path / "run")
    metered = load_run(tmp_path / "run").trials.filter(pl.col("energy_j").is_not_null())
    assert metered.height >= 3  # those of the other board


def test_a_worker_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are killed never get to clean up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    worker = ThreadWorker(0, unharmed)
    assert len(worker.do(make_plan(SUITE, PROMPTS)[0]).result().images) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_budget_stops_all_workers_and_resuming_makes_it_whole(tmp_path: Path) -> None:
    local = run_of(SUITE, tmp_path / "local")
    total = float(local.trials["energy_j"].sum())
    with pytest.raises(BudgetSpent, match="--max-joules"):
        Pool().run(tmp_path / "there", budget=Budget(max_joules=total / 2))
    part = load_run(tmp_path / "there").trials
    dearest = max(local.trials["energy_j"].to_list())
    assert 0 < float(part["energy_j"].sum()) <= total / 2 + dearest  # a window that the other worker was in
    order = local.trials["trial_id"].to_list()
    assert part["trial_id"].to_list() == sorted(part["trial_id"], key=order.index)
    assert files(Pool().run(tmp_path / "there")) == files(local)
