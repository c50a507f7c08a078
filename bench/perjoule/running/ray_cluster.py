"""The process that talks to a Ray cluster for a run.

    driver  ─── (number, method, arguments) ──►  this process  ─── Ray ──►  workers
            ◄── (number, answer) ──────────────
            ◄── None: the cluster answers ─────

Ray ends a process whose cluster is gone, replaces its signal handlers, and waits in calls outside Python. In a process
of its own it can do all this, and the driver still says what happened, and never waits without a limit.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from perjoule.errors import first_line
from perjoule.running.prepared import Prepared
from perjoule.running.ray_worker import RemoteBench
from perjoule.types import Assignment

# how often the driver hears that the cluster answers
PULSE_S = 5.0
# a process that cannot leave its cluster in this time ends without
LEAVING_S = 10.0
# until Ray says whether a place is reserved
_ANSWER_S = 0.5
_MOST_CHARACTERS = 300
_HEAD = "node:__internal_head__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong in Ray: exceptions of Ray cannot be read in a process without it."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Places where workers may run: how many are reserved for this run, how many there are, and `GPU` or `node`."""

    places: int
    total: int
    kind: str


class Cluster:
    """A Ray cluster, joined by this process, with one worker for each GPU, or for each node if there is no GPU."""

    def __init__(self) -> None:
        self._groups: list[Any] = []
        self._actors: dict[int, Any] = {}
        self._run: tuple[Any, ...] = ()

    def connect(self, address: str | None) -> None:
        """Join the cluster of an address, or start one on this machine."""
        import ray

        own = {"include_dashboard": False} if address is None else {}
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)

    def reserve(self, most: int, wait_s: float) -> Reserved:
        """Reserve places for at most `most` workers; those that are still in use after `wait_s` are left out."""
        import ray
        from ray.util import placement_group, remove_placement_group

        bundles, kind = bundles_of(ray.nodes())
        groups = [placement_group([bundle], strategy="STRICT_PACK") for bundle in bundles]
        end_s = time.monotonic() + wait_s
        for group in groups:
            if len(self._groups) < most and group.wait(max(_ANSWER_S, end_s - time.monotonic())):
                self._groups.append(group)
            else:
                remove_placement_group(group)
        return Reserved(places=len(self._groups), total=len(bundles), kind=kind)

    def prepare(self, prepared: Prepared, *arguments: Any) -> None:
        """Store what every worker is opened with."""
        import ray

        self._run = (ray.put(prepared), *arguments)

    def open(self, place: int) -> Any:
        """Start a worker at a place, instead of the one before; returns Ray's reference to its answer."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        before = self._actors.pop(place, None)
        if before is not None:
            ray.kill(before)
        group = self._groups[place]
        bundle = group.bundle_specs[0]
        # a worker that dies is started again by the driver, which repeats its trial
        self._actors[place] = (
            ray.remote(RemoteBench)
            .options(
                num_gpus=bundle.get("GPU", 0),
                num_cpus=bundle.get("CPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=group),
                max_restarts=0,
            )
            .remote()
        )
        return self._actors[place].open.remote(*self._run)

    def do(self, place: int, assignment: Assignment) -> Any:
        """Start a trial; returns Ray's reference to its answer."""
        return self._actors[place].do.remote(assignment)


def bundles_of(nodes: list[dict[str, Any]]) -> tuple[list[dict[str, float]], str]:
    """Return what each worker reserves, and what a place is, for the nodes as Ray describes them.

    The CPUs of a node are divided among its workers. A worker may get a part of a CPU, because boards may outnumber
    CPUs. Each bundle names its node, so that a worker without a GPU has all of one.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = any(int(one.get("GPU", 0)) for one in resources)
    bundles = []
    for one in resources:
        workers, cpus = int(one.get("GPU", 0)) if gpus else 1, float(one.get("CPU", 0.0))
        if not workers or not (gpus or cpus):
            continue
        share = cpus / workers
        bundle = {"GPU": 1.0} if gpus else {}
        bundle["CPU"] = float(int(share)) if share >= 1 else int(share * 1000) / 1000
        bundle |= {name: 0.001 for name in one if name.startswith("node:") and name != _HEAD}
        bundles += [{name: amount for name, amount in bundle.items() if amount}] * workers
    return bundles, "GPU" if gpus else "node"


def serve(link: Connection, address: str | None) -> None:
    """Do what the driver asks for, until it closes the link or ends."""
    # the driver decides what signals of the terminal mean
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - Ray's own lines are not for the user
        for output in (1, 2):
            os.dup2(nowhere.fileno(), output)
    os.environ.pop("RAY_ADDRESS", None)  # Ray prefers it to the address that it is given
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # only this run may use its cluster; Ray would write a token into the home directory, for all later clusters
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock, contextlib.suppress(OSError):  # of a driver that has ended
            link.send(message)

    try:
        import ray
    except Exception as error:  # e.g. an OSError of amdsmi, which Ray imports if it is installed
        send((0, Problem(text=f"Ray cannot be imported: {described(error)}")))
        return
    send(None)
    cluster = Cluster()
    _answer(send, 0, lambda: cluster.connect(address))
    threading.Thread(target=_pulse, args=(ray, send), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = link.recv()
            if message is None:
                break
            number, method, arguments = message
            _answer(send, number, partial(_call, cluster, method, arguments))
    last = threading.Timer(LEAVING_S, os._exit, (1,))
    last.daemon = True
    last.start()
    with contextlib.suppress(Exception):
        ray.shutdown()
    os._exit(0)


def _call(cluster: Cluster, method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(cluster, method)(*arguments)


def _answer(send: Callable[[Any], None], number: int, call: Callable[[], Any]) -> None:
    """Send the result of a call, or of Ray's work that it started."""
    try:
        value = call()
    except BaseException as error:  # Ray raises SystemExit
        send((number, Problem(text=described(error))))
        return
    if not hasattr(value, "future"):
        send((number, value))
        return

    def settle(done: Future[Any]) -> None:
        error = done.exception()
        send((number, done.result() if error is None else Problem(text=described(error))))

    value.future().add_done_callback(settle)


def _pulse(ray: Any, send: Callable[[Any], None]) -> None:
    with contextlib.suppress(Exception):
        while True:
            ray.nodes()
            send(None)
            time.sleep(PULSE_S)


def described(error: BaseException) -> str:
    """Return type and first line of an error, and the reason: what a worker raised, or what Ray quotes at the end."""
    raised = getattr(error, "cause", None)
    if isinstance(raised, BaseException):
        return described(raised)
    lines = [line.strip() for line in str(error.__cause__ or "").splitlines() if line.strip()]
    reason = f": {lines[-1][:_MOST_CHARACTERS]}" if lines else ""
    return f"{type(error).__name__}: {first_line(error)}{reason}"
