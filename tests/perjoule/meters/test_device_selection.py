"""Which board is measured, by CUDA_VISIBLE_DEVICES as other processes find it: real binding, two simulated boards.

Board 0 draws 60 W and board 1 draws 200 W all the time, so the joules tell which one was measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard
from perjoule.testing import nvml_simulator as module
from perjoule.text import board_digest

pytestmark = pytest.mark.slow

if module.compiler() is None:
    pytest.skip("no C compiler", allow_module_level=True)

FIRST, SECOND = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-8944aaaa-1111-2222-3333-444444444444"
POWERS_W = {FIRST: 60.0, SECOND: 200.0}
MEASURE = """
import json, time
from perjoule import open_meter
from perjoule.errors import MeterError
try:
    with open_meter("nvml") as meter, meter.window() as window:
        time.sleep(0.2)
    reading = window.reading
    print(json.dumps([reading.devices[0].device, reading.energy_j, reading.uncertainty_j, reading.duration_s]))
except MeterError as error:
    print(json.dumps(str(error)))
"""
# value (None: not set) -> the board that CUDA would take first, or what has to be said
SPELLINGS: dict[str | None, str] = {
    None: FIRST,
    "0": FIRST,
    "1": SECOND,
    " 1 ,0": SECOND,
    "1,-1,0": SECOND,
    SECOND: SECOND,
    "GPU-8944": SECOND,
    f"{SECOND},{FIRST}": SECOND,
    "": "hides every GPU",
    "-1": "names board -1",
    "2": "there are 2",
    "NoDevFiles": "does not match any board",
    "GPU-89": "matches several boards",
    "1,1": "twice",
    "MIG-0ea2c1c8-5e2c-5d5c-8e5b-9d1e3a2b4c5d": "MIG slice",
    f"MIG-{FIRST}/1/0": "MIG slice",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str | None, list[object] | str]]:
    """What each spelling led to, each in a process of its own, all at once."""
    folder: Path = tmp_path_factory.mktemp("boards")
    boards = [SimulatedBoard(uuid=uuid, wave=ConstantPower(power_w)) for uuid, power_w in POWERS_W.items()]
    with NvmlSimulator(boards, folder) as simulator:
        environment = os.environ | simulator.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        processes = {
            spelling: subprocess.Popen(
                [sys.executable, "-c", MEASURE],
                env=environment | ({} if spelling is None else {"CUDA_VISIBLE_DEVICES": spelling}),
                stdout=subprocess.PIPE,
                text=True,
            )
            for spelling in SPELLINGS
        }
        yield {spelling: json.loads(process.communicate(timeout=60)[0]) for spelling, process in processes.items()}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_right_board_or_a_clear_error(found: dict[str | None, list[float] | str], spelling: str | None) -> None:
    wanted, outcome = SPELLINGS[spelling], found[spelling]
    if isinstance(outcome, str):
        assert wanted in outcome
        assert "CUDA_VISIBLE_DEVICES" in outcome
    else:
        device, energy_j, bound_j, duration_s = outcome
        assert device == board_digest(wanted)
        assert abs(energy_j - POWERS_W[wanted] * duration_s) <= bound_j < energy_j
