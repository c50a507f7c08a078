"""A simulated board behind pynvml's functions, on virtual time, with a closed-form truth."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perjoule.testing import VirtualClock

UUID = "GPU-11111111-aaaa-bbbb-cccc-000000000000"
OTHER_UUID = "GPU-22222222-aaaa-bbbb-cccc-000000000000"
NOT_SUPPORTED, GPU_IS_LOST, UNKNOWN, DRIVER_NOT_LOADED = 3, 15, 999, 9


class Work:
    """Idle power with a slow ripple, and stretches of work on top; energy in closed form."""

    def __init__(self, idle_w: float = 60.0, ripple_w: float = 0.0) -> None:
        self.idle_w, self.ripple_w = idle_w, ripple_w
        self.idle_steps: list[tuple[float, float]] = []  # (from when, W more)
        self._stretches: list[tuple[float, float, float, float]] = []  # begin, end, W above idle, J before

    def add(self, begin_s: float, end_s: float, power_w: float) -> None:
        before_j = sum((e - b) * w for b, e, w, _ in self._stretches[-1:]) + (
            self._stretches[-1][3] if self._stretches else 0.0
        )
        self._stretches.append((begin_s, end_s, power_w - self.idle_w, before_j))

    def total_j(self, t_s: float) -> float:
        omega = 2 * math.pi / 0.73
        rest_j = self.idle_w * t_s + self.ripple_w * (1 - math.cos(omega * t_s)) / omega
        rest_j += sum(more_w * max(t_s - from_s, 0.0) for from_s, more_w in self.idle_steps)
        at = bisect_right(self._stretches, t_s, key=lambda one: one[0]) - 1
        if at < 0:
            return rest_j
        begin_s, end_s, above_w, before_j = self._stretches[at]
        return rest_j + before_j + above_w * (min(t_s, end_s) - begin_s)

    def energy_j(self, begin_s: float, end_s: float) -> float:
        return self.total_j(end_s) - self.total_j(begin_s)


class FakeNvml:
    """What perjoule needs of pynvml, for boards that all do the same work.

    `failing` maps a function's name (fields: `field 186`, with scope `field 186/1`) to the code it raises.
    `counter_fault` may distort the counter (time, mJ) -> mJ.
    """

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"fake error {value}")
            self.value = value

    def __init__(self, clock: VirtualClock, work: Work, period_s: float = 0.1, phase_s: float = 0.013) -> None:
        self.clock, self.work, self.period_s, self.phase_s = clock, work, period_s, phase_s
        self.boards = [(UUID, "Fake A")]
        self.failing: dict[str, int] = {}
        self.counter_fault: Callable[[float, int], int] = lambda t_s, total_mj: total_mj
        self.counter_error: Callable[[float], int] = lambda t_s: 0
        self.limit_w: float = 400.0
        self.power_scale = 1.0
        self.calls: list[tuple[str, float]] = []
        self.sessions = 0

    def _call(self, name: str) -> None:
        self.calls.append((name, self.clock.now()))
        if name in self.failing:
            raise self.NVMLError(self.failing[name])

    def _refreshed_s(self) -> float:
        return math.floor((self.clock.now() - self.phase_s) / self.period_s) * self.period_s + self.phase_s

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own name, like those below
        self._call("nvmlInit")
        self.sessions += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.sessions -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "999.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.boards[handle][0]

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.boards[handle][1]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetEnforcedPowerLimit")
        return int(self.limit_w * 1000)

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        self._call("nvmlDeviceGetMigMode")
        return [0, 0]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetTotalEnergyConsumption")
        code = self.counter_error(self.clock.now())
        if code:
            raise self.NVMLError(code)
        refreshed_s = self._refreshed_s()
        return self.counter_fault(refreshed_s, int(1000 * self.work.total_j(refreshed_s)))

    def _power_mw(self, averaging_s: float) -> int:
        end_s = self._refreshed_s()
        return round(1000 * self.power_scale * self.work.energy_j(end_s - averaging_s, end_s) / averaging_s)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetPowerUsage")
        return self._power_mw(1.0)

    def nvmlDeviceGetFieldValues(self, handle: int, fields: list[tuple[int, int]]) -> list[Any]:  # noqa: N802
        self._call("nvmlDeviceGetFieldValues")
        return [self._field(*field) for field in fields]

    def _field(self, number: int, scope: int) -> Any:
        self.calls.append((f"field {number}/{scope}", self.clock.now()))
        unsupported = NOT_SUPPORTED if (scope == 1 or number == 83) and f"field {number}/1" not in self.failing else 0
        code = self.failing.get(f"field {number}/{scope}", self.failing.get(f"field {number}", unsupported))
        value = SimpleNamespace(ullVal=0, uiVal=self._power_mw(1.0 if number == 185 else self.period_s))
        return SimpleNamespace(nvmlReturn=code, value=value)


class Rig:
    """A clock, a load and a board, and the way to let the board work."""

    def __init__(self, period_s: float = 0.1, phase_s: float = 0.013, ripple_w: float = 0.0) -> None:
        self.clock = VirtualClock(100.0)
        self.load = Work(ripple_w=ripple_w)
        self.nvml = FakeNvml(self.clock, self.load, period_s, phase_s)

    def work(self, seconds: float, power_w: float = 300.0) -> float:
        """Let the board draw `power_w` for `seconds`; the true energy of that stretch in J."""
        begin_s = self.clock.now()
        self.load.add(begin_s, begin_s + seconds, power_w)
        self.clock.advance(seconds)
        return self.load.energy_j(begin_s, begin_s + seconds)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def make_rig() -> Callable[..., Rig]:
    return Rig
