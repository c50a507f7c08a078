"""Trials on a Ray cluster: one worker per GPU, or one per node without a GPU.

Ray is an extra (`pip install 'perjoule[ray]'`). `RAY_ADDRESS` names the cluster; without it one is started on this
machine. All workers must have the same kind of device, software and weights. A node without a GPU has only one worker,
because the joules of CPU packages include the work of all processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from perjoule.errors import PerjouleError, RunError, UsageError
from perjoule.running.device import ready
from perjoule.running.prepared import Prepared
from perjoule.running.trial import Bench
from perjoule.running.workers import PackingBench, Parcel
from perjoule.runs.writer import differing_keys
from perjoule.suite.reading import cells_of
from perjoule.types import Assignment, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A serialised perjoule error: exceptions with custom arguments cannot be pickled."""

    message: str
    exit_code: int

    def as_error(self) -> PerjouleError:
        """Return the error, to be raised in this process."""
        error = PerjouleError(self.message)
        error.exit_code = self.exit_code
        return error


class RemoteBench:
    """Actor in a worker's process."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def open(self, prepared: Prepared, meter_name: str, command: Sequence[str]) -> dict[str, Any] | Refusal:
        """Load pipelines and open the meter; return the record of the system."""
        try:
            cells = cells_of(prepared.suite)
            device = self._stack.enter_context(ready(prepared, cells, meter_name, command))
        except PerjouleError as error:
            return Refusal(message=str(error), exit_code=error.exit_code)
        meter, generators = device.meter, device.generators
        self._bench = PackingBench(
            lambda place: Bench(prepared.plan, prepared.suite.protocol, meter, generators, place)
        )
        return device.environment

    def do(self, assignment: Assignment) -> Parcel | Refusal:
        """Do a trial."""
        try:
            return self._bench.do(assignment)
        except PerjouleError as error:
            return Refusal(message=str(error), exit_code=error.exit_code)


class RayWorker:
    """Handle of a worker in the driver."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def do(self, assignment: Assignment) -> Future[Parcel]:
        """Start a trial; the future raises Ray's error if the actor dies."""
        parcel: Future[Parcel] = Future()

        def settle(answer: Future[Parcel | Refusal]) -> None:
            error = answer.exception()
            if error is not None:
                parcel.set_exception(error)
                return
            value = answer.result()
            if isinstance(value, Refusal):
                parcel.set_exception(value.as_error())
            else:
                parcel.set_result(value)

        self.actor.do.remote(assignment).future().add_done_callback(settle)
        return parcel

    def close(self) -> None:
        """Kill the actor and its work."""
        import ray

        ray.kill(self.actor)


class RayPool:
    """Workers with equal devices.

    Attributes:
        count: Number of workers.
        environment: Environment of the first worker: the system under test.
    """

    def __init__(self, prepared: Prepared, meter_name: str, command: Sequence[str]) -> None:
        self._arguments = (prepared, meter_name, list(command))
        nodes, gpus, cpus = _resources()
        self.count = gpus or nodes
        # all CPUs of a node are divided among its workers, and so are torch's threads
        self._options = {"num_gpus": 1 if gpus else 0, "num_cpus": max(1, cpus // self.count)}
        self._spare: list[RayWorker] = []
        self.environment: dict[str, Any] = {}
        worker, self.environment = self._open()
        self._spare.append(worker)

    def spawn(self) -> RayWorker:
        """Start a worker and wait until it is ready.

        Raises:
            RunError: If its system differs from the first worker's (the message names the key and both values).
        """
        if self._spare:
            return self._spare.pop()
        worker, environment = self._open()
        for key, first, other in differing_keys(self.environment, environment):
            worker.close()
            raise RunError(
                f"--executor ray: the workers differ: {key} is {first!r} on one and {other!r} on another; "
                "use a part of the cluster with equal machines"
            )
        return worker

    def _open(self) -> tuple[RayWorker, dict[str, Any]]:
        import ray

        actor = ray.remote(RemoteBench).options(**self._options).remote()
        try:
            answer = ray.get(actor.open.remote(*self._arguments))
        except ray.exceptions.RayError as error:
            raise RunError(f"--executor ray: a worker could not be started: {str(error).splitlines()[0]}") from error
        if isinstance(answer, Refusal):
            raise answer.as_error()
        return RayWorker(actor), answer


def rehearse_apart(suite: Suite, source: Path, folder: Path) -> None:
    """Run `scoring.rehearse` in a separate process, which releases the GPU when it ends.

    In this process a metric would keep a CUDA context on a board that a worker measures: a foreign process in all of
    its windows (W260) that increases its power at rest.

    Args:
        suite: Suite of the metrics.
        source: Its file, for messages.
        folder: Folder in which relative names of models are searched for first.

    Raises:
        PerjouleError: As in `rehearse`.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            refusal = pool.submit(_rehearsed, suite, source, folder).result()
        except BrokenProcessPool as error:
            raise UsageError(f"{source}: metrics.names: the process that scores a test image ended: {error}") from None
    if refusal is not None:
        raise refusal.as_error()


def _rehearsed(suite: Suite, source: Path, folder: Path) -> Refusal | None:
    from perjoule.quality import load_metric
    from perjoule.running.scoring import rehearse
    from perjoule.weights.models import relative_to

    try:
        with relative_to(folder):
            options = suite.metrics.options
            where = f"{source}: metrics.options"
            metrics = [load_metric(name, dict(options.get(name, {})), where) for name in suite.metrics.names]
            rehearse(suite, metrics, f"{source}: metrics.names")
    except PerjouleError as error:
        return Refusal(message=str(error), exit_code=error.exit_code)
    return None


@contextmanager
def ray_pool(prepared: Prepared, meter_name: str, command: Sequence[str]) -> Iterator[RayPool]:
    """Join or start a cluster, and open the first worker.

    Raises:
        UsageError: If Ray is not installed.
        RunError: If a worker could not be started.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--executor ray: Ray is not installed: pip install 'perjoule[ray]'") from None
    started = not ray.is_initialized()
    if started:
        local = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield RayPool(prepared, meter_name, command)
    finally:
        if started:
            ray.shutdown()


def _resources() -> tuple[int, int, int]:
    """Return the numbers of nodes, GPUs and CPUs of the cluster."""
    import ray

    total = ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return nodes, int(total.get("GPU", 0)), int(total.get("CPU", 1))
