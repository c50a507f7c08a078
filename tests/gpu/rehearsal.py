"""The check on a simulated board, with torch on the CPU: real processes, real binding, real files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.gpu.stages import Check, all_stages
from tests.gpu.work import REST_W


def rehearse(out: Path, seconds: float, names: list[str], archive: Path | None = None) -> int:
    """Run stages on a simulated board; return 1 if one failed."""
    from perjoule.testing import NvmlSimulator, SimulatedBoard, StepLog

    board = SimulatedBoard(
        wave=StepLog(start_w=REST_W), model="NVIDIA H100 80GB HBM3", architecture=9, noise_w=1.5, limit_w=700.0
    )
    with tempfile.TemporaryDirectory() as folder, NvmlSimulator([board], Path(folder)) as simulator:
        check = Check(out, seconds, os.environ | simulator.environment() | {"OMP_NUM_THREADS": "1"}, archive)
        return check.run([stage for stage in all_stages(out, short=True) if not names or stage.name in names])
