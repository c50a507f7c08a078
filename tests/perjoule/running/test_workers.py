from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from perjoule.errors import BudgetSpent, MeterError
from perjoule.forecast.budget import Budget, Spending
from perjoule.running.trial import Bench, GeneratorCache
from perjoule.running.workers import PackingBench, Parcel, execute_on
from perjoule.runs.directory import Run, load_run
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Assignment, Suite
from tests.perjoule.forecast.worlds import MODEL, POWER_W, PROMPTS, STEP_S, named, run_of, suite_of

ENVIRONMENT = {"comparability": {"device": ["board"]}, "comparability_key": "k"}
SUITE = suite_of(MODEL, named(MODEL, "w", steps=(2,)), blocks=2, batch_size=2)


class ThreadWorker:
    """A worker in a thread of this process, on virtual time; `harm` may raise before a trial is done."""

    def __init__(self, suite: Suite, harm: Callable[[Assignment], None]) -> None:
        clock = VirtualClock()
        self._thread = ThreadPoolExecutor(1)
        self._harm = harm
        self.closed = False
        self.done: list[str] = []
        cache = GeneratorCache(FakeFactory(FakeGenerator(clock=clock, step_s=STEP_S)), lambda v: v.name)
        meter = SyntheticMeter(POWER_W, clock)
        plan = make_plan(suite, PROMPTS)
        self._bench = PackingBench(lambda place: Bench(plan, suite.protocol, meter, cache, place))

    def do(self, assignment: Assignment) -> Future[Parcel]:
        return self._thread.submit(self._work, assignment)

    def close(self) -> None:
        self.closed = True
        self._thread.shutdown()
        self._bench.close()

    def _work(self, assignment: Assignment) -> Parcel:
        self._harm(assignment)
        self.done.append(assignment.trial_id)
        return self._bench.do(assignment)


class Pool:
    def __init__(self, harm: Callable[[Assignment], None] = lambda assignment: None) -> None:
        self.workers: list[ThreadWorker] = []
        self._harm = harm

    def spawn(self) -> ThreadWorker:
        self.workers.append(ThreadWorker(SUITE, self._harm))
        return self.workers[-1]

    def run(self, path: Path, count: int = 2, budget: Budget | None = None) -> Run:
        resume = path.exists()
        writer = (
            RunWriter.resume(path, SUITE, make_plan(SUITE, PROMPTS), ENVIRONMENT)
            if resume
            else RunWriter.create(path, SUITE, PROMPTS, ENVIRONMENT)
        )
        plan = make_plan(SUITE, PROMPTS)
        spending = Spending(budget or Budget())
        try:
            execute_on(
                plan, spawn=self.spawn, count=count, writer=writer, on_progress=lambda progress: None, spending=spending
            )
        finally:
            writer.finish()
            assert all(worker.closed for worker in self.workers)
        return load_run(path)


def files(run: Run) -> dict[str, bytes]:
    names = ["trials.jsonl", "traces.jsonl", "devices.jsonl", "images.parquet", "prompts.jsonl", "suite.toml"]
    pictures = sorted((run.path / "images").glob("*.png"))
    return {str(p.relative_to(run.path)): p.read_bytes() for p in [*(run.path / n for n in names), *pictures]}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_workers_make_the_bytes_of_one(tmp_path: Path, count: int) -> None:
    local = run_of(SUITE, tmp_path / "local")
    pool = Pool()
    assert files(pool.run(tmp_path / "there", count)) == files(local)
    # every window of a number is done by one worker, whatever the cell, and in the order of the plan
    numbers = [{int(trial.rsplit(".", 1)[1]) % count for trial in worker.done} for worker in pool.workers]
    assert sorted(numbers, key=min) == [{n} for n in range(count)]
    order = [assignment.trial_id for assignment in make_plan(SUITE, PROMPTS)]
    for worker in pool.workers:
        assert worker.done == sorted(worker.done, key=order.index)


def test_a_lost_worker_is_replaced_and_its_trial_done_again(tmp_path: Path) -> None:
    local = run_of(SUITE, tmp_path / "local")
    unlucky = {local.trials["trial_id"][3]}

    def once(assignment: Assignment) -> None:
        if assignment.trial_id in unlucky:
            unlucky.clear()
            raise ConnectionError("the node is gone")

    pool = Pool(once)
    assert files(pool.run(tmp_path / "there")) == files(local)
    assert len(pool.workers) == 3


def test_a_trial_that_loses_two_workers_is_recorded_as_failed(tmp_path: Path) -> None:
    deadly = make_plan(SUITE, PROMPTS)[3].trial_id

    def always(assignment: Assignment) -> None:
        if assignment.trial_id == deadly:
            raise ConnectionError("the node is gone")

    trials = Pool(always).run(tmp_path / "run").trials
    assert trials.height == len(make_plan(SUITE, PROMPTS))
    failed = trials.filter(pl.col("failure").is_not_null())
    assert failed["trial_id"].to_list() == [deadly]
    assert failed["failure"][0] == "the worker was lost 2 times: ConnectionError: the node is gone"
    assert failed["energy_j"].to_list() == [None]


def test_what_a_worker_raises_on_purpose_ends_the_run(tmp_path: Path) -> None:
    def refuse(assignment: Assignment) -> None:
        raise MeterError("no joules here")

    with pytest.raises(MeterError, match="no joules here"):
        Pool(refuse).run(tmp_path / "run")


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
