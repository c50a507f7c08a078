from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from perjoule.pytest_energy.records import Measured, judge


@pytest.mark.parametrize("side", ["now", "baseline"])
def test_disturbed_rounds_of_a_test_are_no_evidence(side: str) -> None:
    facts: dict[str, Any] = {
        "nodeid": "t", "energy_j": (1.0, 1.01, 0.99), "uncertainty_j": (None,) * 3, "duration_s": (1.0,) * 3,
        "iterations": 1, "boundary": "gpu-board", "provenance": "measured", "method": "m",
    }  # fmt: skip
    quiet = Measured(**facts)
    assert judge(quiet, quiet, 0.05, 0.0).outcome == "pass"
    disturbed = Measured(**facts, warnings=("W203: x", "W260: 1 other compute process on the board"))
    pair = (disturbed, quiet) if side == "now" else (quiet, disturbed)
    found = judge(*pair, 0.05, 0.0)
    assert found.outcome == "invalid"
    assert found.reason.startswith(f"{side}: ")
    assert "W260" in found.reason


def test_nothing_heavy_is_imported_for_a_text() -> None:
    script = "import sys, perjoule.gating.disturbances; print(sorted({'polars', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
