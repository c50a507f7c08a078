"""What a meter leaves behind, on real time: nothing, however the process goes on or ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perjoule.testing import NvmlSimulator, SimulatedBoard, StepLog
from perjoule.testing import nvml_simulator as module

pytestmark = pytest.mark.slow

if module.compiler() is None:
    pytest.skip("no C compiler", allow_module_level=True)

HEAD = """
import json, os, signal, sys, threading, time
from perjoule import open_meter
from perjoule.meters.processes import descendants

def left():
    return threading.active_count() - 1, len(descendants())

meter = open_meter("nvml")
"""
BY_EXCEPTION = """
seen = [left()]
try:
    with meter.window() as window:
        seen.append(left())
        raise ArithmeticError
except ArithmeticError:
    seen.append(left())
with meter.window() as window:
    pass
seen.append(left())
meter.close()
print(json.dumps(seen))
"""
BY_FORK = """
with meter, meter.window() as window:
    child = os.fork()
    if not child:
        sys.exit(3)  # through the ends of window and meter
    time.sleep(0.3)
    begun = time.perf_counter()
    _, status = os.waitpid(child, 0)
    waited = time.perf_counter() - begun
print(json.dumps([os.waitstatus_to_exitcode(status), waited, window.reading.energy_j, left()]))
"""
FORKED_BEFORE = """
child = os.fork()  # a worker that inherits an open meter, and measures with it
with meter.window() as window:
    time.sleep(0.2)
if not child:
    os._exit(0 if window.reading.energy_j else 1)
_, status = os.waitpid(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), window.reading.energy_j is not None, left()]))
"""
KILLED = """
with meter.window():
    print(json.dumps([os.getpid(), left()]), flush=True)
    time.sleep(30)
"""
UNCLOSED = """
window = meter.window()
window.__enter__()
print(json.dumps(left()))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with NvmlSimulator([SimulatedBoard(wave=StepLog())], tmp_path) as simulator:
        found = os.environ | simulator.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
        found.pop("CUDA_VISIBLE_DEVICES", None)
        yield found


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[[str], object]:
    def started(code: str) -> object:
        done = subprocess.run(
            [sys.executable, "-c", HEAD + code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    return started


def test_one_thread_inside_a_window_and_none_after_it_whatever_the_work_raises(run: Callable[[str], object]) -> None:
    assert run(BY_EXCEPTION) == [[0, 0], [1, 0], [0, 0], [0, 0]]


def test_a_fork_inside_a_window_hurts_neither_side(run: Callable[[str], list[object]]) -> None:
    status, waited_s, energy_j, left = run(BY_FORK)
    assert status == 3
    assert isinstance(waited_s, float)
    assert waited_s < 5.0  # it does not hang; on a quiet machine it has ended already
    assert energy_j is not None
    assert left == [0, 0]


def test_a_forked_worker_may_measure_too(run: Callable[[str], object]) -> None:
    assert run(FORKED_BEFORE) == [0, True, [0, 0]]


def test_a_process_that_forgets_its_window_still_ends(run: Callable[[str], object]) -> None:
    assert run(UNCLOSED) == [1, 0]


def test_a_killed_process_has_no_helpers_to_leave_behind(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + KILLED],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pid, left = json.loads(process.stdout.readline())
    assert left == [1, 0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(ProcessLookupError):  # nobody of its session is there any more
        os.killpg(pid, 0)
