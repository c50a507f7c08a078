"""Tests mirror the packages: in these rooms each module has a test module of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "bench/perjoule/gating": "tests/perjoule/gating",
    "bench/perjoule/statistics": "tests/perjoule/statistics",
    "reports/perjoule_reports/sections": "tests/perjoule_reports/sections",
}


@pytest.mark.parametrize("room", ROOMS)
def test_each_module_has_a_test_module(room: str) -> None:
    modules = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / ROOMS[room]).glob("test_*.py")}
    assert modules
    assert modules - tested == set()
