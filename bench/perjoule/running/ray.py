"""Trials on a Ray cluster: one worker per GPU, or one per node without a GPU.

Ray is an extra (`pip install 'perjoule[ray]'`). All workers must have the same kind of device, software and weights,
and each must measure a device of its own. A node without a GPU has only one worker, because the joules of CPU packages
include the work of all processes.

    driver (this module)   plan, run directory, budget        ray_cluster   a process that talks to Ray
    ray_worker             pipelines, meter, one trial at a time, in a process of Ray on any node
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from perjoule.errors import DeviceLostError, PerjouleError, RunError, UsageError, install_command
from perjoule.running.deadline import GRACE_S
from perjoule.running.prepared import Prepared
from perjoule.running.ray_cluster import LEAVING_S, Problem, Reserved, serve
from perjoule.running.ray_worker import Opened, Refusal
from perjoule.running.workers import Parcel, WorkerLostError, units_of
from perjoule.runs.writer import differing_keys
from perjoule.types import Assignment, Suite
from perjoule.weights.downloads import is_offline

PROBE_S = 5.0  # until a port must accept a connection
JOIN_S = 22.0  # until a cluster must answer, once Ray is imported; Ray itself gives up after 21 s
START_S = 300.0  # until a cluster of this machine must have started
IMPORT_S = 60.0
FREE_S = 20.0  # until a place in use must be free
OPEN_S = 3600.0  # until a worker must have loaded its models, downloads included
LOAD_S = 1800.0  # until a worker must have loaded the models that it has loaded once before
REOPEN_S = 300.0  # until the worker that replaces a lost one must be ready; its models are on disk already
SILENCE_S = 60.0  # without a sign of the cluster

_OPTION = "--executor ray"


class Link(Protocol):
    """Calls methods of `ray_cluster.Cluster`."""

    def call(self, method: str, *arguments: Any, limit_s: float | None = None) -> Future[Any]:
        """Start a call. The future raises WorkerLostError for a problem in Ray, or if the limit is reached."""
        ...


class ClusterLink:
    """Connection to the process that talks to a cluster.

    Args:
        address: `HOST:PORT`, or `auto` for the cluster that this machine belongs to; None to start one here.
    """

    def __init__(self, address: str | None) -> None:
        context = get_context("spawn")
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, address), daemon=True)
        self._lock = threading.Lock()
        self._calls: dict[int, Future[Any]] = {0: Future()}
        self._count = 0
        self._lost: str | None = None
        self._awake, self._joined = threading.Event(), False
        self._process.start()
        theirs.close()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def join(self, limit_s: float) -> None:
        """Wait until the cluster is joined, at most `limit_s` after Ray was imported.

        Raises:
            WorkerLostError: If it cannot be joined, with Ray's reason.
        """
        self._awake.wait(IMPORT_S)
        result_of(self._calls[0], limit_s)

    def call(self, method: str, *arguments: Any, limit_s: float | None = None) -> Future[Any]:
        """Start a call of a method of `ray_cluster.Cluster`."""
        answer: Future[Any] = Future()
        with self._lock:
            self._count += 1
            self._calls[self._count] = answer
            try:
                self._link.send((self._count, method, arguments))
            except OSError:
                self._lost = self._lost or "its process has ended"
        if self._lost is not None:
            self._fail(self._lost)
        if limit_s is not None:
            timer = threading.Timer(limit_s, _expire, (answer, limit_s))
            timer.daemon = True
            timer.start()
            answer.add_done_callback(lambda _: timer.cancel())
        return answer

    def close(self) -> None:
        """Leave the cluster, which ends the workers."""
        with self._lock, contextlib.suppress(OSError):
            self._link.send(None)
        self._process.join(LEAVING_S + 5)
        self._process.kill()
        self._listener.join(5)
        self._process.join(5)

    def _listen(self) -> None:
        reason = "its process has ended"
        with contextlib.suppress(EOFError, OSError):
            while True:
                if not self._link.poll(SILENCE_S if self._joined else None):
                    reason = f"no answer for {SILENCE_S:g} s"
                    break
                message = self._link.recv()
                self._awake.set()
                if message is not None:
                    number, value = message
                    self._joined = True
                    with self._lock:
                        answer = self._calls.pop(number) if number else self._calls[0]
                    settle(answer, value)
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        self._awake.set()
        with self._lock:
            self._lost = reason
            pending = list(self._calls.values())
        for answer in pending:
            with contextlib.suppress(InvalidStateError):
                answer.set_exception(DeviceLostError(f"{_OPTION}: the cluster was lost: {reason}"))


class RayWorker:
    """Handle of a worker in the driver."""

    def __init__(self, link: Link, place: int, limit_s: float | None) -> None:
        self._link, self._place, self._limit_s = link, place, limit_s

    def do(self, assignment: Assignment) -> Future[Parcel]:
        """Start a trial."""
        return self._link.call("do", self._place, assignment, limit_s=self._limit_s)


class RayPool:
    """Workers with equal devices.

    Args:
        link: The cluster.
        prepared: The run.
        meter_name: Name as for `open_meter`.
        command: Command line, stored in the run.
        message: Prints a line for the user.

    Attributes:
        workers: Workers that are ready.
        environment: Environment of the first worker, with the meters of all: the system under test.

    Raises:
        RunError: If there is nothing to run on, or the workers differ (the message names the key and both values).
    """

    def __init__(
        self, link: Link, prepared: Prepared, meter_name: str, command: Sequence[str], message: Callable[[str], None]
    ) -> None:
        self._link, self._limit_s = link, _trial_limit_s(prepared)
        places = _reserved(link, len(set(units_of(prepared.plan))), message)
        # a node may lack the run directory whose suite is resumed, but must have the models in the suite's folder
        there = replace(prepared, metrics=[], source=prepared.folder.resolve() / prepared.source.name)
        result_of(link.call("prepare", there, meter_name, list(command), is_offline()), START_S)
        opened: dict[int, Opened] = {}
        openings = [link.call("open", place, limit_s=OPEN_S) for place in range(places)]
        for place, opening in enumerate(openings):
            try:
                opened[place] = opening.result()
            except WorkerLostError as error:
                reason = f"worker {place + 1} of {places} could not be started: {error}"
                message(f"warning: {reason}")
        if not opened:
            raise RunError(f"{_OPTION}: {reason}")
        self._places = list(opened)
        self._first, *others = opened.values()
        for known, other in enumerate(others, 1):
            _require_same_kind(self._first, other)
            for one in list(opened.values())[:known]:
                _require_apart(one, other)
        meters = [one.environment["meter"]["name"] for one in opened.values()]
        self.environment = self._first.environment | {"workers": meters}
        self.workers = [RayWorker(link, place, self._limit_s) for place in self._places]

    def reopen(self, number: int) -> Future[RayWorker]:
        """Start a worker instead of a lost one, at the same place; the future raises as the pool itself."""
        place, ready = self._places[number], Future[RayWorker]()

        def take(opening: Future[Opened]) -> None:
            try:
                _require_same_kind(self._first, opening.result())
                ready.set_result(RayWorker(self._link, place, self._limit_s))
            except Exception as error:
                ready.set_exception(error)

        self._link.call("open", place, limit_s=REOPEN_S).add_done_callback(take)
        return ready


@contextmanager
def ray_pool(
    prepared: Prepared,
    meter_name: str,
    command: Sequence[str],
    address: str | None,
    message: Callable[[str], None],
) -> Iterator[RayPool]:
    """Join or start a cluster, and open all workers.

    Args:
        prepared: The run.
        meter_name: Name as for `open_meter`.
        command: Command line, stored in the run.
        address: From `checked_address`.
        message: Prints a line for the user.

    Raises:
        UsageError: If Ray is not installed, or the cluster does not answer.
        RunError: If there is nothing to run on, or the workers differ.
    """
    if find_spec("ray") is None:
        raise UsageError(f"{_OPTION}: Ray is not installed: {install_command('ray')}")
    if meter_name.startswith("nvml:"):
        raise UsageError(
            f"{_OPTION}: --meter {meter_name} names a board of one machine: --meter nvml measures the board that Ray "
            "gives each worker"
        )
    link = ClusterLink(address)
    try:
        try:
            link.join(START_S if address is None else JOIN_S)
        except (WorkerLostError, DeviceLostError) as error:
            raise UsageError(_not_joined(address, str(error))) from None
        yield RayPool(link, prepared, meter_name, command, message)
    except WorkerLostError as error:  # in a call that concerns all workers
        raise RunError(f"{_OPTION}: {error}") from None
    finally:
        link.close()


def checked_address(address: str | None) -> str | None:
    """Return where the cluster is: `HOST:PORT`, `auto`, or None to start one on this machine.

    Args:
        address: From the command line; without one `RAY_ADDRESS` counts, as in Ray. `local` starts a cluster.

    Raises:
        UsageError: If it is no address, or nothing accepts a connection there.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address in ("local", "auto"):
        return None if address == "local" else address
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address}: Ray Client is not supported: start the run on a node of the cluster, with --address "
            "auto or HOST:PORT (6379 is Ray's usual port)"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"--address {address}: write HOST:PORT, e.g. 10.0.0.1:6379, or auto, or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
    except OSError as error:
        raise UsageError(_not_joined(address, error.strerror or str(error) or type(error).__name__)) from None
    return address


def _not_joined(address: str | None, reason: str) -> str:
    if address is None:
        return f"{_OPTION}: no cluster could be started on this machine: {reason}"
    remedies = ["start one with `ray start --head`", "correct the address"]
    if address == "auto":
        remedies.append("forget a cluster that is gone with `ray stop`")
    if "RAY_AUTH_MODE" not in os.environ:
        remedies.append("set RAY_AUTH_MODE=token if the cluster has a token")
    return f"--address {address}: no Ray cluster answers there: {reason}: {', or '.join(remedies)}"


def _reserved(link: Link, most: int, message: Callable[[str], None]) -> int:
    """Reserve places for at most `most` workers, and return how many there are."""
    reserved: Reserved = result_of(link.call("reserve", most, FREE_S), FREE_S + JOIN_S)
    wanted, kind = min(most, reserved.total), reserved.kind
    if not wanted:
        raise RunError(f"{_OPTION}: the cluster has nothing to run on, no GPU and no CPU: see `ray status`")
    if not reserved.places:
        raise RunError(
            f"{_OPTION}: all {reserved.total} {kind}s of the cluster are in use: wait for its other work to end, see "
            "`ray status`"
        )
    if reserved.places < wanted:
        message(f"warning: {reserved.places} of {reserved.total} {kind}s are free, and the run uses only these")
    elif wanted < reserved.total:
        message(
            f"note: {wanted} of {reserved.total} {kind}s are used, because a cell has {most} windows, and the n-th "
            "windows of all cells are done by the same worker"
        )
    return reserved.places


def _require_same_kind(first: Opened, other: Opened) -> None:
    """Raise RunError if two workers have different systems, whose joules must not be pooled."""
    versions = [("perjoule", *(one.environment.get("perjoule") for one in (first, other)))]
    differences = differing_keys(first.environment, other.environment)
    for key, one, another in (*differences, *(version for version in versions if version[1] != version[2])):
        raise RunError(
            f"{_OPTION}: the workers differ: {key} is {one!r} on one and {another!r} on another: run each kind in a "
            "run of its own, e.g. in a cluster of only these machines, or with CUDA_VISIBLE_DEVICES at `ray start`"
        )


def _require_apart(one: Opened, other: Opened) -> None:
    """Raise RunError if two workers measure the same device: the joules of each contain the work of the other."""
    names = [opened.environment["meter"]["name"] for opened in (one, other)]
    counts_work = names[0].startswith("work")
    if names[0] == names[1] and one.machine == other.machine and not counts_work:
        raise RunError(
            f"{_OPTION}: two workers would measure the same device, {names[0]}, and the joules of each would contain "
            "the work of the other: start one Ray node per machine, or measure boards, with --meter nvml"
        )


def _trial_limit_s(prepared: Prepared) -> float | None:
    """Return when a trial counts as lost, because its worker does not even end it after `protocol.timeout_s`."""
    protocol = prepared.suite.protocol
    if protocol.timeout_s is None:
        return None
    return LOAD_S + protocol.idle_s + protocol.cooldown_s + 2 * (protocol.timeout_s + GRACE_S)


def result_of(answer: Future[Any], limit_s: float) -> Any:
    """Wait for an answer. Raises WorkerLostError if there is none within the limit."""
    try:
        return answer.result(limit_s)
    except TimeoutError:
        raise WorkerLostError(f"no answer within {limit_s:g} s") from None


def _expire(answer: Future[Any], limit_s: float) -> None:
    with contextlib.suppress(InvalidStateError):
        answer.set_exception(WorkerLostError(f"no answer within {limit_s:g} s"))


def settle(answer: Future[Any], value: Any) -> None:
    """Give an answer of the cluster's process to whoever waits for it."""
    with contextlib.suppress(InvalidStateError):  # it came after its limit
        if isinstance(value, Problem):
            answer.set_exception(WorkerLostError(value.text))
        elif isinstance(value, Refusal):
            answer.set_exception(value.as_error())
        else:
            answer.set_result(value)


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
