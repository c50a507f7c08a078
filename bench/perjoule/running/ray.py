"""Trials on a Ray cluster: one worker a GPU, or one a node where there is none.

Ray is an extra (`pip install 'perjoule[ray]'`). `RAY_ADDRESS` names the cluster; without it one is started on this
machine. All workers must be of one kind of device, with the same software and weights. On a node without a GPU there is
one worker only, because the joules of CPU packages would hold the neighbour's work.
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
    """An error of ours as it travels: exceptions with arguments of their own do not survive pickling."""

    message: str
    exit_code: int

    def as_error(self) -> PerjouleError:
        """To be raised here."""
        error = PerjouleError(self.message)
        error.exit_code = self.exit_code
        return error


class RemoteBench:
    """What runs in a worker's process."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def open(self, prepared: Prepared, meter_name: str, command: Sequence[str]) -> dict[str, Any] | Refusal:
        """Load and open everything; the record of the system it runs on."""
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
        """A trial."""
        try:
            return self._bench.do(assignment)
        except PerjouleError as error:
            return Refusal(message=str(error), exit_code=error.exit_code)


class RayWorker:
    """A worker as the driver sees it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def do(self, assignment: Assignment) -> Future[Parcel]:
        """Start a trial; the future raises Ray's error if the actor dies."""
        found: Future[Parcel] = Future()

        def settle(answer: Future[Parcel | Refusal]) -> None:
            error = answer.exception()
            if error is not None:
                found.set_exception(error)
                return
            value = answer.result()
            if isinstance(value, Refusal):
                found.set_exception(value.as_error())
            else:
                found.set_result(value)

        self.actor.do.remote(assignment).future().add_done_callback(settle)
        return found

    def close(self) -> None:
        """End the actor and what it is doing."""
        import ray

        ray.kill(self.actor)


class RayPool:
    """Workers of one kind.

    Attributes:
        count: How many there are to be.
        environment: Of the first one: the system under test.
    """

    def __init__(self, prepared: Prepared, meter_name: str, command: Sequence[str]) -> None:
        self._arguments = (prepared, meter_name, list(command))
        nodes, gpus, cpus = _resources()
        self.count = gpus or nodes
        # all CPUs of a node are shared out, and with them torch's threads
        self._options = {"num_gpus": 1 if gpus else 0, "num_cpus": max(1, cpus // self.count)}
        self._spare: list[RayWorker] = []
        self.environment: dict[str, Any] = {}
        worker, self.environment = self._open()
        self._spare.append(worker)

    def spawn(self) -> RayWorker:
        """A worker that is ready.

        Raises:
            RunError: If its system is another one than the first worker's (names the key and both values).
        """
        if self._spare:
            return self._spare.pop()
        worker, environment = self._open()
        for key, there, here in differing_keys(self.environment, environment):
            worker.close()
            raise RunError(
                f"--executor ray: the workers are not alike: {key} is {there!r} on one and {here!r} on another; "
                "give the run to a part of the cluster that is"
            )
        return worker

    def _open(self) -> tuple[RayWorker, dict[str, Any]]:
        import ray

        actor = ray.remote(RemoteBench).options(**self._options).remote()
        try:
            answer = ray.get(actor.open.remote(*self._arguments))
        except ray.exceptions.RayError as error:
            raise RunError(f"--executor ray: a worker does not start: {str(error).splitlines()[0]}") from error
        if isinstance(answer, Refusal):
            raise answer.as_error()
        return RayWorker(actor), answer


def rehearse_apart(suite: Suite, source: Path, folder: Path) -> None:
    """`scoring.rehearse` in a process of its own, which lets go of the GPU when it ends.

    A metric that was tried here would keep a CUDA context on a board that a worker measures: a foreign process in
    every one of its windows (W260), and some watts of its rest.

    Args:
        suite: Whose metrics they are.
        source: Its file, for messages.
        folder: Where relative names of models are looked for first.

    Raises:
        PerjouleError: As `rehearse` does.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            refusal = pool.submit(_rehearsed, suite, source, folder).result()
        except BrokenProcessPool as error:
            raise UsageError(
                f"{source}: metrics.names: their process ended while it scored an image: {error}"
            ) from None
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
        RunError: If a worker does not start.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--executor ray: Ray is not installed: pip install 'perjoule[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        local = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield RayPool(prepared, meter_name, command)
    finally:
        if ours:
            ray.shutdown()


def _resources() -> tuple[int, int, int]:
    """(nodes, GPUs, CPUs) of the cluster."""
    import ray

    total = ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return nodes, int(total.get("GPU", 0)), int(total.get("CPU", 1))
