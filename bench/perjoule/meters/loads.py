"""Work in equal pieces for a proof: matrix products on a GPU that torch sees, hashes on the CPU."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from importlib.util import find_spec

from perjoule.errors import MeterError, install_command
from perjoule.meters.proving import Load
from perjoule.text import board_digest

PIECE_S = 0.005  # a quarter of the shortest published update period
TRIES = 5  # the shortest of them counts, because others are disturbed
HASHED_BYTES = 1 << 20
SIDE = 4096  # of square matrices: large enough to reach the power limit of published boards, 100 MB in half precision


class RepeatedWork:
    """A load that repeats a call; `calls` of them, found by trial, take about `PIECE_S`."""

    def __init__(self, name: str, call: Callable[[], None], wait: Callable[[], None] = lambda: None) -> None:
        """Run the call several times to find out how long it takes.

        Args:
            name: What it does.
            call: Starts a fixed amount of work.
            wait: Returns when all work that was started is finished.
        """
        self.name = name
        self._call, self._wait = call, wait
        self._calls = 1
        self.run(1)  # the first call may compile, allocate or raise clocks
        while (took_s := self._shortest_s()) < PIECE_S / 2:
            self._calls = max(round(self._calls * PIECE_S / max(took_s, 1e-6)), 2 * self._calls)
        self.piece_s = took_s

    def run(self, pieces: int) -> None:
        """Do that many pieces and return when the device has finished them."""
        for _ in range(pieces * self._calls):
            self._call()
        self._wait()

    def _shortest_s(self) -> float:
        times = []
        for _ in range(TRIES):
            begun_s = time.perf_counter()
            self.run(1)
            times.append(time.perf_counter() - begun_s)
        return min(times)


def cpu_load() -> Load:
    """Return work for one core: SHA-256 of a fixed text."""
    text = bytes(HASHED_BYTES)

    def call() -> None:
        hashlib.sha256(text).digest()

    return RepeatedWork(f"SHA-256 of {HASHED_BYTES >> 20} MiB on one core", call)


def cuda_load(board: str) -> Load:
    """Return work for the GPU with this digest: products of square matrices in half precision.

    Raises:
        MeterError: torch is missing, or does not see that GPU.
    """
    if find_spec("torch") is None:
        raise MeterError(f"a proof keeps the GPU busy with torch, which is missing; {install_command('torch')}")
    import torch

    visible = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    digests = [board_digest(f"GPU-{properties.uuid}") for properties in visible]
    if board not in digests:
        seen = ", ".join(digests) or "no CUDA device"
        raise MeterError(
            f"a proof keeps the GPU busy with torch, but torch {torch.__version__} sees {seen}, not {board}"
        )
    device = torch.device("cuda", digests.index(board))
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=torch.float16) for _ in range(2))
    product = torch.empty_like(left)

    def call() -> None:
        torch.mm(left, right, out=product)

    name = f"products of {SIDE} x {SIDE} matrices in half precision on {visible[device.index].name}"
    return RepeatedWork(name, call, lambda: torch.cuda.synchronize(device))
