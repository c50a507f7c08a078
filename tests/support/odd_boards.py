"""Simulated boards for proofs: honest ones, and ones with a fault that a proof must name."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perjoule.meters.base import BaseMeter
from perjoule.meters.nvml import open_nvml
from perjoule.testing import NvmlSimulator, SimulatedBoard, SimulatedLoad, StepLog

REST_W = 70.0


class _Distorted:
    """The simulator's binding with another energy counter."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nvml, name)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:  # noqa: N802 - NVML's name
        return self.distorted_mj(int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))

    def distorted_mj(self, counter_mj: int) -> int:
        raise NotImplementedError


class GainByPower(_Distorted):
    """A counter whose gain grows with power: 1 at rest, `gain` at the power of the work."""

    def __init__(self, nvml: Any, simulator: NvmlSimulator, odd: OddBoard) -> None:
        super().__init__(nvml)
        self._simulator, self._period_s, self._rest_w = simulator, odd.board.counter_period_s, odd.rest_w
        self._slope = (odd.gain_at_work - 1) / (odd.work_w - odd.rest_w)
        self._shown_mj, self._at_s = 0.0, 0.0
        self._true_mj: int | None = None

    def distorted_mj(self, counter_mj: int) -> int:
        now_s = self._simulator.now()
        if self._true_mj is None:
            self._shown_mj, self._true_mj, self._at_s = float(counter_mj), counter_mj, now_s
        elif counter_mj != self._true_mj:
            more_mj = counter_mj - self._true_mj
            periods = max(round((now_s - self._at_s) / self._period_s), 1)
            power_w = more_mj / 1000 / (periods * self._period_s)
            self._shown_mj += more_mj * (1 + self._slope * (power_w - self._rest_w))
            self._true_mj, self._at_s = counter_mj, now_s
        return round(self._shown_mj)


class SlowAtRest(_Distorted):
    """A counter that refreshes every `slow_s` at rest, and in its own period at work."""

    def __init__(self, nvml: Any, simulator: NvmlSimulator, odd: OddBoard) -> None:
        super().__init__(nvml)
        self._simulator, self._slow_s, self._busy_w = simulator, odd.slow_s or 0.0, (odd.rest_w + odd.work_w) / 2
        self._slot, self._shown_mj = -1, 0

    def distorted_mj(self, counter_mj: int) -> int:
        now_s = self._simulator.now()
        slot = int(now_s / self._slow_s)
        if slot != self._slot or self._simulator.power_w(0, now_s) > self._busy_w:
            self._slot, self._shown_mj = slot, counter_mj
        return self._shown_mj


def add_foreign_load(simulator: NvmlSimulator, odd: OddBoard, chance: random.Random) -> None:
    """Let another process work on the board at random while it rests: for about 0.3 s, every 2 s on average."""
    busy = False

    def maybe() -> None:
        nonlocal busy
        at_work = simulator.power_w(0, simulator.now()) > (odd.rest_w + odd.foreign_w + odd.work_w) / 2
        if at_work:
            busy = False
        elif chance.random() < (0.3 if busy else 0.05):
            busy = not busy
            simulator.set_power(0, odd.rest_w + busy * odd.foreign_w)

    simulator.every(0.1, maybe)


@dataclass(frozen=True, slots=True, kw_only=True)
class OddBoard:
    """A kind of board.

    Attributes:
        board: Its properties.
        work_w: Power of the work.
        gain_at_work: Gain of the counter at the power of the work.
        slow_s: Update period of the counter at rest, if it is another one.
        foreign_w: Power that another process adds from time to time.
    """

    board: SimulatedBoard
    work_w: float = 320.0
    gain_at_work: float = 1.0
    slow_s: float | None = None
    foreign_w: float = 0.0

    @property
    def rest_w(self) -> float:
        """Power at rest."""
        assert isinstance(self.board.wave, StepLog)
        return self.board.wave.start_w

    @contextmanager
    def opened(self, folder: Path, seed: int = 1) -> Iterator[tuple[Any, SimulatedLoad]]:
        """Return a function that opens the board's meter, and work for the board, on virtual time."""
        with NvmlSimulator([self.board], folder, virtual=True) as simulator:
            nvml = simulator.load()
            if self.gain_at_work != 1.0:
                nvml = GainByPower(nvml, simulator, self)
            if self.slow_s is not None:
                nvml = SlowAtRest(nvml, simulator, self)
            if self.foreign_w:
                add_foreign_load(simulator, self, random.Random(seed))

            def open_meter() -> BaseMeter[Any]:
                return open_nvml(nvml=nvml, clock=simulator, environ={}, chance=random.Random(seed))

            yield open_meter, SimulatedLoad(simulator, work_w=self.work_w, rest_w=self.rest_w)


def honest_board(**changes: Any) -> SimulatedBoard:
    """Return a board with a little noise and jitter; `changes` replace properties."""
    usual: dict[str, Any] = {"wave": StepLog(start_w=REST_W), "noise_w": 0.5, "counter_jitter": 0.02}
    return SimulatedBoard(**(usual | {"unsupported": ("energy_field",)} | changes))
