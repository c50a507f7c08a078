from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import MeterError
from perjoule.meters import open_meter
from perjoule.meters.estimate import CpuTime, EstimateMeter, PowerModel, ended_children_s
from perjoule.testing import VirtualClock

MODEL = PowerModel(cpu_model="Fake", tdp_w=100.0, generic_tdp=False, cpu_count=4, ram_w=10.0, version="0")


@given(busy=st.floats(0, 6), duration_s=st.floats(0.05, 60))
def test_the_model_lies_between_rest_and_full_load(busy: float, duration_s: float) -> None:
    clock, cpu_s = VirtualClock(), [0.0]
    with EstimateMeter(MODEL, clock, lambda: cpu_s[0]) as meter, meter.window() as window:
        clock.advance(duration_s)
        cpu_s[0] += busy * duration_s
    reading = window.reading
    assert reading.energy_j == pytest.approx((25.0 * min(busy, 4.0) + 10.0) * duration_s)
    assert reading.uncertainty_j == pytest.approx(55.0 * duration_s)
    assert (reading.boundary, reading.provenance, reading.warnings) == ("estimate", "estimated", ())


def test_the_method_says_model_and_constants() -> None:
    method = EstimateMeter(MODEL, VirtualClock(), lambda: 0.0).method
    assert all(word in method for word in ("codecarbon 0", "'Fake'", "TDP 100 W", "4 logical CPUs", "RAM 10 W"))


def test_a_model_without_power_is_no_energy() -> None:
    clock = VirtualClock()
    model = PowerModel(cpu_model="Fake", tdp_w=100.0, generic_tdp=True, cpu_count=4, ram_w=0.0, version="0")
    with EstimateMeter(model, clock, lambda: 5.0) as meter, meter.window() as window:
        clock.advance(1.0)
    assert window.reading.energy_j is None
    assert [said[:4] for said in window.reading.warnings] == ["W230", "W231"]


def test_cpu_time_that_goes_back_is_no_energy() -> None:
    clock, cpu_s = VirtualClock(), [5.0]
    with EstimateMeter(MODEL, clock, lambda: cpu_s[0]) as meter, meter.window() as window:
        clock.advance(1.0)
        cpu_s[0] = 4.0
    assert window.reading.energy_j is None
    assert window.reading.warnings[0].startswith("W231")


def test_idle_is_the_model_at_rest() -> None:
    clock = VirtualClock()
    with EstimateMeter(MODEL, clock, lambda: 0.0) as meter:
        assert meter.learn_idle(2.0) == pytest.approx(10.0)
        assert meter.learn_idle(0.0) is None
        with meter.window() as window:
            clock.advance(1.0)
    assert window.reading.net_energy_j == pytest.approx(0.0)


def test_threads_of_the_process_are_counted() -> None:
    def spin() -> None:
        end_s = time.thread_time() + 0.03
        while time.thread_time() < end_s:
            pass

    cpu_s = CpuTime()
    before_s = cpu_s()
    worker = threading.Thread(target=spin)
    worker.start()
    worker.join()
    assert 0.03 <= cpu_s() - before_s < 0.3


# Burns as many CPU seconds as it is told, line by line, and says when it is done.
WORKER = """
import sys, time
for line in sys.stdin:
    end_s = time.process_time() + float(line)
    while time.process_time() < end_s:
        pass
    print("done", flush=True)
"""
# A process with a worker below it, whose lines it passes on; the worker ends with it.
PARENT = f"""
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}], stdin=subprocess.PIPE)
for line in sys.stdin:
    worker.stdin.write(line.encode())
    worker.stdin.flush()
worker.stdin.close()
worker.wait()
"""
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="running children are seen on Linux only")


@contextmanager
def child(code: str) -> Iterator[Callable[[float], None]]:
    """A child process; call with the CPU seconds that it is to burn."""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def burn(seconds: float) -> None:
            stdin.write(f"{seconds}\n".encode())
            stdin.flush()
            assert stdout.readline() == b"done\n"

        yield burn
        stdin.close()
        process.wait()


@linux
@pytest.mark.parametrize("code", [WORKER, PARENT], ids=["child", "grandchild"])
def test_a_worker_that_goes_on_counts_for_what_it_does_in_the_window(code: str) -> None:
    with EstimateMeter(MODEL) as meter, child(code) as burn:
        burn(0.3)  # before the window: not in it
        with meter.window() as window:
            burn(0.2)
        burn(0.1)
        with meter.window() as idle:
            time.sleep(0.05)
    tick_s = 0.02  # user and system time, each rounded to 10 ms
    worked = window.reading
    assert worked.energy_j is not None
    busy_s = (worked.energy_j - 10.0 * worked.duration_s) / 25.0
    assert 0.2 - tick_s <= busy_s <= 0.2 + 0.1 + tick_s
    assert idle.reading.energy_j is not None
    assert idle.reading.energy_j < (10.0 + 25.0) * idle.reading.duration_s + 25.0 * tick_s


@linux
def test_cpu_time_is_neither_lost_nor_doubled_when_children_end() -> None:
    """Between every two readings a child works, ends, or is waited for."""
    cpu_s = CpuTime()
    seen = [cpu_s()]
    own_s = -time.process_time()
    ended_s = -ended_children_s()
    for _ in range(3):
        with child(WORKER) as burn:
            burn(0.05)
            seen.append(cpu_s())
        seen.append(cpu_s())
    own_s += time.process_time()
    ended_s += ended_children_s()
    assert ended_s >= 0.15
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] == pytest.approx(own_s + ended_s, abs=0.005)


@given(parts=st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=20))
def test_cpu_time_of_processes_that_nobody_waited_for_stays(parts: list[tuple[float, bool]]) -> None:
    """Growth counts in full after a process has vanished, and what it used does not vanish with it."""
    running = [0.0]
    cpu_s = CpuTime(lambda: running[0])
    begun_s = cpu_s()
    truth_s = 0.0
    for more_s, vanishes in parts:
        truth_s += more_s
        running[0] += more_s
        assert cpu_s() - begun_s == pytest.approx(truth_s, abs=0.05)
        if vanishes:
            running[0] = 0.0
            assert cpu_s() - begun_s == pytest.approx(truth_s, abs=0.05)


@pytest.fixture
def codecarbon_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EstimateMeter:
    """The real thing, once, in an empty folder and without a network."""
    import socket

    def refuse(*args: object) -> None:
        raise AssertionError(f"a network connection to {args} was tried")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    meter = open_meter("estimate")
    assert isinstance(meter, EstimateMeter)
    return meter


def test_on_this_machine(codecarbon_meter: EstimateMeter, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with codecarbon_meter as meter:
        for _ in range(50):
            with meter.window() as window:
                time.sleep(0.001)
    assert window.reading.energy_j is not None
    assert window.reading.energy_j > 0
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_codecarbon_is_silent_even_when_it_is_imported_first() -> None:
    """In a process of its own, since the import is what speaks."""
    code = "from perjoule.meters.estimate import codecarbon_model; from perjoule.meters.carbon import carbon; "
    code += (
        "codecarbon_model(); carbon(1.0, 'FRA'); import logging; assert not logging.getLogger('codecarbon').disabled"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_missing_codecarbon_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon.core.cpu", None)
    with pytest.raises(MeterError, match=r"perjoule\[codecarbon\]"):
        EstimateMeter()
