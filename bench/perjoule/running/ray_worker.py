"""The part of a run on Ray that works in the process of a worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perjoule.errors import PerjouleError
from perjoule.running.device import ready
from perjoule.running.prepared import Prepared
from perjoule.running.trial import Bench
from perjoule.running.workers import PackingBench, Parcel
from perjoule.suite.reading import cells_of
from perjoule.types import Assignment
from perjoule.weights.downloads import go_offline


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A worker that is ready: the record of its system, and its machine, which several workers may share."""

    environment: dict[str, Any]
    machine: str


class RemoteBench:
    """Actor in a worker's process."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        # Ray numbers boards as NVML does, but CUDA counts the fastest first, unless it is told otherwise
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    def open(self, prepared: Prepared, meter_name: str, command: Sequence[str], offline: bool) -> Opened | Refusal:
        """Load pipelines and open the meter."""
        if offline:
            go_offline()
        try:
            cells = cells_of(prepared.suite)
            device = self._stack.enter_context(ready(prepared, cells, meter_name, command))
        except PerjouleError as error:
            return Refusal(message=str(error), exit_code=error.exit_code)
        meter, generators = device.meter, device.generators
        self._bench = PackingBench(
            lambda place: Bench(prepared.plan, prepared.suite.protocol, meter, generators, place)
        )
        return Opened(environment=device.environment, machine=_machine())

    def do(self, assignment: Assignment) -> Parcel | Refusal:
        """Do a trial."""
        try:
            return self._bench.do(assignment)
        except PerjouleError as error:
            return Refusal(message=str(error), exit_code=error.exit_code)


def _machine() -> str:
    """Return what identifies this machine until it is started again, also from inside a container."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
