"""What holds for the windows of every meter."""

from __future__ import annotations

import pytest

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.types import EnergyReading


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_no_reading_while_the_window_is_open(clock: VirtualClock) -> None:
    with SyntheticMeter(10.0, clock) as meter:
        window = meter.window("a")
        with pytest.raises(RuntimeError, match="'a' has no reading yet"):
            _ = window.reading
        with window, pytest.raises(RuntimeError, match="no reading yet"):
            _ = window.reading


def test_windows_do_not_nest_and_the_outer_one_survives(clock: VirtualClock) -> None:
    with SyntheticMeter(10.0, clock) as meter:
        with meter.window("outer") as outer:
            clock.advance(1.0)
            with pytest.raises(MeterError, match="'inner' opens inside window 'outer'"), meter.window("inner"):
                pass
            clock.advance(1.0)
        assert outer.reading.energy_j == 20.0


def test_a_closed_meter_opens_no_window(clock: VirtualClock) -> None:
    with SyntheticMeter(10.0, clock) as meter:
        pass
    with pytest.raises(MeterError, match="is closed"), meter.window():
        pass


def work(clock: VirtualClock) -> None:
    clock.advance(1.0)
    raise ZeroDivisionError


def test_what_the_work_raises_comes_through_and_the_energy_is_kept(clock: VirtualClock) -> None:
    with SyntheticMeter(10.0, clock) as meter:
        window = meter.window()
        with pytest.raises(ZeroDivisionError), window:
            work(clock)
        assert window.reading.energy_j == 10.0
        with meter.window() as after:
            clock.advance(1.0)
        assert after.reading.energy_j == 10.0


def test_a_zero_is_never_reported(clock: VirtualClock) -> None:
    with SyntheticMeter(0.0, clock) as meter, meter.window() as window:
        clock.advance(1.0)
    reading = window.reading
    assert (reading.energy_j, reading.uncertainty_j, reading.net_energy_j) == (None, None, None)
    assert reading.warnings[0].startswith("W202")


class Sync:
    """A synchronise hook that takes time and fails from its n-th call on."""

    def __init__(self, clock: VirtualClock, fails_from: int = 99) -> None:
        self.clock, self.fails_from, self.calls = clock, fails_from, 0

    def __call__(self) -> None:
        self.calls += 1
        self.clock.advance(0.5)
        if self.calls >= self.fails_from:
            raise RuntimeError("device-side assert")


def test_the_window_begins_after_one_hook_and_ends_after_the_other(clock: VirtualClock) -> None:
    sync = Sync(clock)
    with SyntheticMeter(10.0, clock) as meter, meter.window(sync=sync) as window:
        clock.advance(1.0)
    assert sync.calls == 2
    assert window.reading.duration_s == pytest.approx(1.5)  # waiting for the device is part of the work


@pytest.mark.parametrize("fails_from", [1, 2])
def test_a_failing_hook_is_the_users_and_leaves_the_meter_usable(clock: VirtualClock, fails_from: int) -> None:
    with SyntheticMeter(10.0, clock) as meter:
        window = meter.window(sync=Sync(clock, fails_from))
        with pytest.raises(RuntimeError, match="device-side"), window:
            clock.advance(1.0)
        if fails_from == 2:
            assert window.reading.energy_j is None
            assert window.reading.warnings[0].startswith("W250")
        with meter.window() as after:
            clock.advance(1.0)
        assert after.reading.energy_j == 10.0


def test_the_error_of_the_work_comes_before_that_of_the_hook(clock: VirtualClock) -> None:
    with SyntheticMeter(10.0, clock) as meter:
        with pytest.raises(ValueError, match="mine"), meter.window(sync=Sync(clock, 2)) as window:
            raise ValueError("mine")
        assert window.reading.energy_j is None


class Broken(BaseMeter[int]):
    """A meter with a defect at one end."""

    def __init__(self, clock: VirtualClock, where: str) -> None:
        super().__init__(name="broken", why="", boundary="estimate", provenance="simulated", clock=clock)
        self._where = where

    @property
    def method(self) -> str:
        return "none"

    def learn_idle(self, seconds: float) -> float | None:
        return None

    def _begin(self) -> int:
        if self._where == "begin":
            raise KeyError("oops")
        return 1

    def _end(self, state: int, started_s: float, stopped_s: float) -> EnergyReading:
        raise KeyError("oops")


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_defect_of_the_meter_never_reaches_the_work(clock: VirtualClock, where: str) -> None:
    with Broken(clock, where) as meter, meter.window() as window:
        clock.advance(1.0)
    assert window.reading.energy_j is None
    assert window.reading.duration_s == 1.0
    assert window.reading.warnings[0].startswith("W299")
    assert "KeyError" in window.reading.warnings[0]
