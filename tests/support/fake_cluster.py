"""The process that talks to a cluster, started for real, without Ray and without a cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from types import ModuleType

from perjoule.running import ray_cluster
from perjoule.running.ray_worker import Refusal


class FakeCluster:
    """Joins what its address says: `raises`, `hangs`, or anything else that works."""

    def connect(self, address: str | None) -> None:
        if address == "raises":
            raise ConnectionError("version mismatch\nand more lines") from RuntimeError("a trace\n  of Ray: no token\n")
        if address == "hangs":
            time.sleep(600)

    def add(self, one: int, other: int) -> int:
        return one + other

    def refuse(self) -> Refusal:
        return Refusal(message="no joules here", exit_code=4)

    def end(self) -> None:
        """End the process, as Ray does if its cluster is gone."""
        os._exit(1)

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


def serve(link: Connection, address: str | None) -> None:
    """Entry point of the process."""
    module = ModuleType("ray")
    vars(module).update(nodes=list, shutdown=lambda: None)
    sys.modules["ray"] = module
    ray_cluster.Cluster = FakeCluster  # type: ignore[assignment, misc]
    ray_cluster.PULSE_S = 0.1
    ray_cluster.serve(link, address)
