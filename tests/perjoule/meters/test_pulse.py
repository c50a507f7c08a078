"""Windows that were stopped have no joules, and windows that were only busy keep theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.perjoule.meters.conftest import NOT_SUPPORTED, Rig

from perjoule.meters.base import BaseMeter
from perjoule.meters.clock import SystemClock
from perjoule.meters.edges import bracket
from perjoule.meters.estimate import EstimateMeter, PowerModel
from perjoule.meters.nvml import open_nvml
from perjoule.meters.pulse import HOLE_S
from perjoule.meters.rapl import RaplMeter
from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard, SyntheticMeter, VirtualClock
from perjoule.testing import nvml_simulator as module
from perjoule.types import EnergyReading

pytestmark = pytest.mark.slow

MODEL = PowerModel(cpu_model="x", tdp_w=100.0, generic_tdp=False, cpu_count=1, ram_w=5.0, version="1")
# opens the meter that it is told, says so, measures until it is told to stop, prints the reading
CHILD = """
import dataclasses, json, sys
from perjoule import open_meter
from perjoule.meters.estimate import EstimateMeter, PowerModel
model = PowerModel(cpu_model="x", tdp_w=100.0, generic_tdp=False, cpu_count=1, ram_w=5.0, version="1")
with (EstimateMeter(model) if sys.argv[1] == "estimate" else open_meter(sys.argv[1])) as meter:
    with meter.window() as window:
        print("begun", flush=True)
        sys.stdin.readline()
print(json.dumps(dataclasses.asdict(window.reading)))
"""


def codes(reading: EnergyReading) -> list[str]:
    return [said[:4] for said in reading.warnings]


def assert_worthless(reading: EnergyReading) -> None:
    assert "W251" in codes(reading)
    known = (reading.energy_j, reading.uncertainty_j, reading.net_energy_j, reading.partial_energy_j, reading.trace)
    assert known == (None,) * 5
    for row in reading.devices:
        assert (row.energy_j, row.power_ratio) == (None, None)
        if row.counter is not None:  # neither has who computes it again from the stored log
            assert bracket(row.counter).energy_j is None


def stopped_child(meter: str, environment: dict[str, str], stop_s: float) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, meter],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    if stop_s:
        process.send_signal(signal.SIGSTOP)
        time.sleep(stop_s)
        process.send_signal(signal.SIGCONT)
    out, _ = process.communicate("done\n", timeout=60)
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs the kernel's account of waiting threads")
@pytest.mark.parametrize("kind", ["estimate", "counter", "power"])
def test_a_real_process_that_is_stopped_in_a_window(kind: str, tmp_path: Path) -> None:
    if kind != "estimate" and module.compiler() is None:
        pytest.skip("no C compiler")
    features = ("energy", "energy_field") if kind == "power" else ()
    board = SimulatedBoard(wave=ConstantPower(200.0), unsupported=features)
    with NvmlSimulator([board] if kind != "estimate" else [], tmp_path) as simulator:
        meter, environment = ("estimate" if kind == "estimate" else "nvml"), simulator.environment()
        stopped, quiet = stopped_child(meter, environment, 2.0), stopped_child(meter, environment, 0.0)
    assert stopped["energy_j"] is None
    assert any(said.startswith("W251: the process did not run for") for said in stopped["warnings"])
    assert stopped["duration_s"] > 2.0
    assert quiet["energy_j"] > 0
    assert not any(said.startswith("W251") for said in quiet["warnings"])


class FilesOfACounter:
    """A powercap tree whose counter is what the clock says, at 50 W."""

    def __init__(self, root: Path, clock: VirtualClock) -> None:
        self.root, self._clock = root, clock
        folder = root / "intel-rapl:0"
        folder.mkdir(parents=True)
        (folder / "name").write_text("package-0\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
        (folder / "energy_uj").write_text("0\n")
        self._file = folder / "energy_uj"
        self.write()
        clock.every(0.001, self.write)

    def write(self) -> None:
        self._file.write_text(f"{int(50e6 * self._clock.now())}\n")


def meters(tmp_path: Path) -> dict[str, Callable[[], tuple[VirtualClock, BaseMeter[Any]]]]:
    def counter() -> tuple[VirtualClock, BaseMeter[Any]]:
        rig = Rig()
        return rig.clock, open_nvml(nvml=rig.nvml, clock=rig.clock, environ={})

    def power() -> tuple[VirtualClock, BaseMeter[Any]]:
        rig = Rig(ripple_w=5.0)
        rig.nvml.failing["nvmlDeviceGetTotalEnergyConsumption"] = NOT_SUPPORTED
        return rig.clock, open_nvml(nvml=rig.nvml, clock=rig.clock, environ={})

    def estimate() -> tuple[VirtualClock, BaseMeter[Any]]:
        clock = VirtualClock()
        return clock, EstimateMeter(MODEL, clock, cpu_s=lambda: 0.5 * clock.now())

    def rapl() -> tuple[VirtualClock, BaseMeter[Any]]:
        clock = VirtualClock(1.0)
        return clock, RaplMeter(FilesOfACounter(tmp_path / "powercap", clock).root, clock)

    def synthetic() -> tuple[VirtualClock, BaseMeter[Any]]:
        clock = VirtualClock()
        return clock, SyntheticMeter(60.0, clock)

    return {"counter": counter, "power": power, "estimate": estimate, "rapl": rapl, "synthetic": synthetic}


KINDS = ["counter", "power", "estimate", "rapl", "synthetic"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_meter_refuses_a_stopped_window_and_reads_the_next_one(kind: str, tmp_path: Path) -> None:
    clock, meter = meters(tmp_path)[kind]()
    with meter:
        with meter.window() as stopped:
            clock.advance(1.0)
            clock.stop(63.5)
            clock.advance(1.0)
        assert_worthless(stopped.reading)
        assert "did not run for 63." in " ".join(stopped.reading.warnings)
        with meter.window() as quiet:
            clock.advance(2.0)
        assert (quiet.reading.energy_j or 0) > 0
        assert "W251" not in codes(quiet.reading)


@pytest.mark.parametrize("kind", KINDS)
def test_every_meter_refuses_a_window_in_which_the_machine_slept(kind: str, tmp_path: Path) -> None:
    clock, meter = meters(tmp_path)[kind]()
    with meter, meter.window() as window:
        clock.advance(1.0)
        clock.suspend(3600.0)
        clock.advance(1.0)
    assert_worthless(window.reading)
    assert "the machine slept for 3600.0 s" in " ".join(window.reading.warnings)


@pytest.mark.parametrize("when", ["first", "last"])
def test_a_stop_before_the_first_beat_or_after_the_last_one_is_seen(when: str) -> None:
    clock = VirtualClock()
    with SyntheticMeter(60.0, clock) as meter, meter.window() as window:
        clock.advance(0.0 if when == "first" else 0.95)
        clock.stop(3.0)
        clock.advance(0.5 if when == "first" else 0.0)
    assert_worthless(window.reading)


def test_waiting_for_the_device_may_raise_in_every_window() -> None:
    """A file was left open by each of them."""
    calls = 0

    def dead() -> None:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:  # at the end of a window
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    files = []
    with EstimateMeter(MODEL) as meter:
        for _ in range(4):
            with pytest.raises(RuntimeError, match="illegal memory"), meter.window(sync=dead):
                pass
            files.append(len(list(Path("/proc/self/fd").iterdir())))
    assert files == files[:1] * 4


def test_what_happens_between_windows_does_not_matter() -> None:
    clock = VirtualClock()
    with SyntheticMeter(60.0, clock) as meter:
        for _ in range(3):
            clock.stop(100.0)
            clock.suspend(100.0)
            with meter.window() as window:
                clock.advance(1.0)
            assert (window.reading.energy_j, window.reading.warnings) == (60.0, ())


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs the kernel's account of waiting threads")
def test_work_that_holds_the_interpreters_lock_is_not_a_stop() -> None:
    base = pow(3, 100_000)
    modulus = pow(7, 60_000)

    def one_long_call() -> float:
        began_s = time.perf_counter()
        pow(base, 60, modulus)  # a single C call, with no thread of ours running meanwhile
        return time.perf_counter() - began_s

    with EstimateMeter(MODEL) as meter, meter.window() as window:
        held_s = one_long_call()
        while held_s < 3 * HOLE_S:
            base **= 2
            held_s = one_long_call()
    assert (window.reading.energy_j or 0) > 0
    assert "W251" not in codes(window.reading)


def test_a_look_that_raises_ends_neither_the_thread_nor_the_window(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def look() -> None:
        calls.append(threading.get_native_id())
        raise ZeroDivisionError

    cancel = SystemClock().every(0.001, look)
    until_s = time.perf_counter() + 10
    while len(calls) < 5 and time.perf_counter() < until_s:
        time.sleep(0.01)
    cancel()
    assert len(calls) >= 5
    assert len(set(calls)) == 1
    messages = [record.message for record in caplog.records]
    assert messages.count("a reading of the device failed; further readings continue") == 1


class EagerClock(VirtualClock):
    """Calls back at once, before `every` has returned, as a thread may."""

    def every(self, interval_s: float, action: Callable[[], None]) -> Any:
        action()
        return super().every(interval_s, action)


def test_a_watching_thread_that_runs_at_once_finds_its_window() -> None:
    rig = Rig()
    rig.clock = EagerClock(100.0)
    rig.load = type(rig.load)()
    rig.nvml.clock, rig.nvml.work = rig.clock, rig.load
    with open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}) as meter, meter.window() as window:
        rig.work(0.5)
    assert codes(window.reading) == []
    assert (window.reading.energy_j or 0) > 0
