"""A foreign repository with tests of its own and a meter of known power, and pytest runs in it.

Every run is a process of its own: pytester forgets what a run inside this process imported, and the tests after it would
meet other copies of the modules and of their classes, and extension modules that cannot be loaded twice.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

# its own bench/ and reports/ packages, its own benchmarks, and a virtual clock for joules and seconds
CONFTEST = """
import os
import pytest
from perjoule.testing import SyntheticMeter
from virtual import CLOCK

@pytest.fixture(scope="session")
def energy_meter():
    power, kind = float(os.environ.get("WATTS", "50")), os.environ.get("KIND", "measured")
    with SyntheticMeter(power, CLOCK, uncertainty_j=0.05, seed=1, provenance=kind) as meter:
        yield meter

@pytest.fixture
def sleep():
    return CLOCK.sleep

@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info():
    return {"node": "one"}  # a look at the processor takes seconds
"""
VIRTUAL = """
from perjoule.testing import VirtualClock

CLOCK = VirtualClock()

def seconds():
    return CLOCK.now()
"""
TESTS = """
import bench.own
import reports.own

def test_plain():
    assert bench.own.NAME == "theirs" and reports.own.NAME == "theirs"

def test_joules(energy_benchmark, sleep):
    energy_benchmark(sleep, 2.0)

def test_seconds(benchmark):
    assert benchmark(lambda: 1) == 1
"""


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    ours = ("perjoule", "perjoule_suites", "perjoule_reports")
    sources = dict.fromkeys(str(Path(importlib.import_module(name).__path__[0]).parent) for name in ours)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sources))  # a relative one leads elsewhere from another directory
    for package in ("bench", "reports"):
        (pytester.mkpydir(package) / "own.py").write_text('NAME = "theirs"\n')
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(virtual=VIRTUAL, test_theirs=TESTS)
    return pytester


def run(repository: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """In an interpreter of its own; windows as short as one call."""
    return repository.runpytest_subprocess("-p", "no:cacheprovider", "--energy-window=0", *arguments)


def edit(repository: pytest.Pytester, old: str, new: str) -> None:
    file = repository.path / "test_theirs.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
