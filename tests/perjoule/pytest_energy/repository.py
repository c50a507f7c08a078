"""A foreign repository with tests of its own and a meter of known power, and pytest runs in it.

Not pytest's own `pytester`: when it ends, it forgets every module that was imported since it began. The tests after it
then meet other copies of classes, and extension modules that cannot be loaded twice. Here every run is a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

import perjoule
import perjoule_reports
import perjoule_suites

SOURCES = [str(Path(package.__path__[0]).parent) for package in (perjoule, perjoule_suites, perjoule_reports)]
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


# the last two only take long to import: more than pytest, numpy and perjoule together
UNUSED = ("cacheprovider", "randomly", "typeguard", "hypothesispytest")


@dataclass(frozen=True)
class Repository:
    """A folder in which pytest runs."""

    path: Path

    def makepyfile(self, **files: str) -> None:
        """Write Python files by their names."""
        for name, text in files.items():
            (self.path / f"{name}.py").write_text(dedent(text), encoding="utf-8")

    def makeconftest(self, text: str) -> None:
        """Write conftest.py."""
        self.makepyfile(conftest=text)

    def mkdir(self, name: str) -> Path:
        """Make a folder."""
        folder = self.path / name
        folder.mkdir()
        return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(SOURCES))  # a relative one leads elsewhere from another directory
    made = Repository(tmp_path / "theirs")
    made.path.mkdir()
    for package in ("bench", "reports"):
        folder = made.mkdir(package)
        (folder / "__init__.py").touch()
        (folder / "own.py").write_text('NAME = "theirs"\n')
    made.makeconftest(CONFTEST)
    made.makepyfile(virtual=VIRTUAL, test_theirs=TESTS)
    return made


def run(repository: Repository, *arguments: str) -> pytest.RunResult:
    """In a process of its own; windows as short as one call."""
    without = [word for plugin in UNUSED for word in ("-p", f"no:{plugin}")]
    command = [sys.executable, "-m", "pytest", *without, "--energy-window=0"]
    began = time.monotonic()
    done = subprocess.run([*command, *arguments], cwd=repository.path, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")  # shown if the test fails
    lines = done.stdout.splitlines(), done.stderr.splitlines()
    return pytest.RunResult(done.returncode, lines[0], lines[1], time.monotonic() - began)


def edit(repository: Repository, old: str, new: str) -> None:
    file = repository.path / "test_theirs.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
