from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import MeterError
from perjoule.meters import open_meter
from perjoule.meters.estimate import EstimateMeter, PowerModel, process_cpu_s
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

    before_s = process_cpu_s()
    worker = threading.Thread(target=spin)
    worker.start()
    worker.join()
    assert 0.03 <= process_cpu_s() - before_s < 0.3


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
    costs_s = []
    with codecarbon_meter as meter:
        for _ in range(50):
            begun_s = time.perf_counter()
            with meter.window() as window:
                inside_s = time.perf_counter()
                time.sleep(0.001)
                inside_s = time.perf_counter() - inside_s
            costs_s.append(time.perf_counter() - begun_s - inside_s)
    assert window.reading.energy_j is not None
    assert window.reading.energy_j > 0
    assert sorted(costs_s)[len(costs_s) // 2] < 0.005
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_missing_codecarbon_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "codecarbon.core.cpu", None)
    with pytest.raises(MeterError, match="install codecarbon"):
        EstimateMeter()
