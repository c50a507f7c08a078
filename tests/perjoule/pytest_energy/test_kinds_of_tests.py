"""Every way to write a test: parameters, classes, fixtures, async, other plugins, processes of pytest-xdist."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from tests.perjoule.pytest_energy.repository import Repository, edit, run

pytestmark = pytest.mark.slow

ONLY_JOULES = ("--benchmark", "-pno:benchmark")

KINDS = """
import unittest
import pytest
from virtual import CLOCK

@pytest.fixture(params=[1.0, 2.0], ids=["short", "long"])
def seconds(request):
    return request.param

@pytest.fixture(scope="module")
def prepared():
    CLOCK.sleep(1000.0)  # outside every window
    yield "ready"
    CLOCK.sleep(1000.0)

@pytest.fixture
def measured(energy_benchmark):
    return energy_benchmark(CLOCK.sleep, 4.0)

@pytest.mark.parametrize("factor", [1, 3])
def test_parameters(energy_benchmark, seconds, factor):
    energy_benchmark(CLOCK.sleep, factor * seconds)

class TestClass:
    def setup_method(self):
        CLOCK.sleep(500.0)
        self.seconds = 2.0

    def test_method(self, energy_benchmark, prepared):
        assert prepared == "ready"
        energy_benchmark(self.work, extra=1.0)

    def work(self, extra):
        CLOCK.sleep(self.seconds + extra)

class TestOuter:
    class TestInner:
        @pytest.mark.energy(rounds=2)
        def test_inner(self, energy_benchmark):
            energy_benchmark(CLOCK.sleep, 1.0)

@pytest.mark.usefixtures("measured")
def test_measured_by_a_fixture():
    pass

class TestUnittest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def take(self, energy_benchmark):
        self.energy_benchmark = energy_benchmark

    def test_case(self):
        self.energy_benchmark(CLOCK.sleep, 5.0)

def test_on_request(request):
    request.getfixturevalue("energy_benchmark")(CLOCK.sleep, 6.0)
"""
JOULES = {
    "test_parameters[short-1]": 50.0, "test_parameters[long-1]": 100.0, "test_parameters[short-3]": 150.0,
    "test_parameters[long-3]": 300.0, "TestClass::test_method": 150.0, "TestOuter::TestInner::test_inner": 50.0,
    "test_measured_by_a_fixture": 200.0, "TestUnittest::test_case": 250.0, "test_on_request": 300.0,
}  # fmt: skip


@pytest.mark.parametrize("arguments", [["-pno:benchmark"], ["--benchmark-timer=virtual.seconds"]])
def test_every_kind_of_test(repository: Repository, arguments: list[str]) -> None:
    repository.makepyfile(test_theirs=KINDS)
    result = run(repository, "--benchmark", *arguments, "--energy-report=out.json")
    result.assert_outcomes(passed=len(JOULES))
    tests = json.loads((repository.path / "out.json").read_text())["tests"]
    joules = {test["nodeid"].partition("::")[2]: test["mean_j"] for test in tests}
    assert joules == pytest.approx(JOULES, abs=0.06)
    if arguments[0] == "-pno:benchmark":
        # without the option, a test that requests the fixture itself is skipped, and the others are deselected
        run(repository).assert_outcomes(deselected=len(JOULES) - 1, skipped=1)


ASYNC = """
import asyncio
import pytest
from virtual import CLOCK

pytestmark = pytest.mark.{marker}

async def coroutine():
    await asyncio.sleep(0)
    CLOCK.sleep(1.0)

async def test_function(energy_benchmark):
    await asyncio.sleep(0)
    energy_benchmark(CLOCK.sleep, 2.0)

async def test_coroutine(energy_benchmark):
    energy_benchmark(coroutine)

async def test_pedantic(energy_benchmark):
    energy_benchmark.pedantic(coroutine, rounds=2)
"""
PLAIN = """
import asyncio
import pytest
from virtual import CLOCK

async def coroutine():
    await asyncio.sleep(0)
    CLOCK.sleep(1.0)

def test_plain(energy_benchmark):
    energy_benchmark(coroutine)
"""


@pytest.mark.parametrize(
    ("marker", "module", "arguments"),
    [("anyio", "anyio", []), ("asyncio", "pytest_asyncio", []), ("asyncio", "pytest_asyncio", ["--asyncio-mode=auto"])],
)
def test_async_tests(repository: Repository, marker: str, module: str, arguments: list[str]) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    backend = "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n" if marker == "anyio" else ""
    repository.makepyfile(test_theirs=ASYNC.format(marker=marker) + backend, test_plain=PLAIN)
    result = run(repository, *ONLY_JOULES, "-W", "error::RuntimeWarning", "--energy-report=out.json", *arguments)
    result.assert_outcomes(passed=2, failed=2)
    tests = json.loads((repository.path / "out.json").read_text())["tests"]
    assert [test["mean_j"] for test in tests] == pytest.approx([50.0, 100.0], abs=0.06)
    assert "an event loop is already running: make the test a plain `def`" in result.stdout.str()
    assert "fixture.py:" not in result.stdout.str()


# -- a gate that stops when it knows ---------------------------------------------------------------------------------


def sequential(repository: Repository, *arguments: str) -> pytest.RunResult:
    gate = ("--energy-baseline=main", "--energy-gate", "--energy-sequential", "--energy-session-sd=0.5%")
    return run(repository, "--benchmark", *gate, "--energy-rounds=20", "--energy-report=out.json", *arguments)


def rounds(repository: Repository) -> int:
    (test,) = json.loads((repository.path / "out.json").read_text())["tests"]
    return len(test["energy_j"])


@pytest.mark.parametrize("arguments", [["-pno:benchmark"], ["--benchmark-timer=virtual.seconds"]])
def test_rounds_end_when_the_verdict_is_decided(
    repository: Repository, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(repository, "def test_seconds(benchmark)", "def unused(benchmark)")
    run(repository, *ONLY_JOULES, "--energy-save=main").assert_outcomes(passed=2)

    timed_too = arguments[0].startswith("--benchmark")
    json_file = ["--benchmark-json=seconds.json"] if timed_too else []
    same = sequential(repository, *arguments, *json_file)
    same.assert_outcomes(passed=2)
    assert rounds(repository) == 3
    assert same.ret == 0
    if timed_too:
        (timed,) = json.loads((repository.path / "seconds.json").read_text())["benchmarks"]
        assert timed["stats"]["rounds"] == 3
        assert timed["stats"]["mean"] == pytest.approx(2.0)
        return
    monkeypatch.setenv("WATTS", "60")
    worse = sequential(repository, *arguments)
    worse.assert_outcomes(passed=1, failed=1)
    worse.stdout.fnmatch_lines(["*FAIL: energy +20.0%*decided after 3 of 20 rounds*"])

    monkeypatch.setenv("WATTS", "52.5")  # at the margin
    sequential(repository, *arguments).stdout.fnmatch_lines(["*INCONCLUSIVE*open after 20 of 20 rounds*"])
    assert rounds(repository) == 20


def test_a_new_test_gets_all_rounds_and_pedantic_stops_too(repository: Repository) -> None:
    edit(repository, "energy_benchmark(sleep, 2.0)", "energy_benchmark.pedantic(sleep, (2.0,), rounds=9)")
    edit(repository, "def test_seconds(benchmark)", "def unused(benchmark)")
    run(repository, *ONLY_JOULES, "--energy-save=main").assert_outcomes(passed=2)
    sequential(repository, "-pno:benchmark").assert_outcomes(passed=2)
    assert rounds(repository) == 3
    edit(repository, "def test_joules", "def test_new")
    sequential(repository, "-pno:benchmark")
    assert rounds(repository) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "--energy-sequential"], "--energy-sequential needs --energy-gate"),
        (["--energy-sequential"], "--energy-sequential needs --benchmark"),
        (
            ["--benchmark", "--energy-sequential", "--energy-gate", "--energy-baseline=a", "--energy-save=b"],
            "--energy-save needs all rounds of a test. Remove --energy-sequential",
        ),
    ],
)
def test_options_that_do_not_fit(repository: Repository, arguments: list[str], words: str) -> None:
    result = run(repository, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()


# -- pytest-xdist ----------------------------------------------------------------------------------------------------

COUNTED = """
import pytest
import torch

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(width, width)

    def forward(self, x):
        return self.layer(x)

@pytest.mark.parametrize("width", [32, 64, 96, 128])
def test_net(energy_benchmark, width):
    net = Net(width)
    with torch.no_grad():
        energy_benchmark(net, torch.ones(8, width))
"""
WORK = ("--benchmark", "--energy-meter=work", "--energy-window=0", "--energy-rounds=3")
XDIST = pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")


@XDIST
def test_counted_work_of_all_processes_is_merged(repository: Repository) -> None:
    repository.makeconftest("")
    repository.makepyfile(test_theirs=COUNTED)
    alone = run(repository, *WORK, "-pno:benchmark", "--energy-report=alone.json", "--energy-save=main")
    alone.assert_outcomes(passed=4)
    gate = ("--energy-baseline=main", "--energy-gate")
    both = run(repository, *WORK, "-n2", "--energy-report=both.json", "--energy-save=other", *gate)
    both.assert_outcomes(passed=4)
    assert both.ret == 0
    one, two = (json.loads((repository.path / f"{name}.json").read_text()) for name in ("alone", "both"))
    assert {t["nodeid"]: t["energy_j"] for t in one["tests"]} == {t["nodeid"]: t["energy_j"] for t in two["tests"]}
    assert len(two["tests"]) == 4
    assert one["system"] == two["system"]
    assert {judgement["outcome"] for judgement in two["judged"].values()} == {"pass"}
    assert (repository.path / ".perjoule" / "energy" / "other.json").is_file()
    both.stdout.fnmatch_lines(["*::test_net?32?*PASS*"])

    # a test that gets more expensive fails in its process, one that is gone is missing
    edit(repository, "[32, 64, 96, 128]", "[32, 64, 96]")
    edit(repository, "net = Net(width)", "net = torch.nn.Sequential(Net(width), Net(width))")
    worse = run(repository, *WORK, "-n2", *gate, "--energy-margin=1%")
    worse.assert_outcomes(failed=3)
    worse.stdout.fnmatch_lines(["ERROR *test_net?128?: in baseline 'main', but did not run*"])


@XDIST
def test_measured_joules_are_refused_in_several_processes(repository: Repository) -> None:
    for arguments, words in (
        (("--benchmark", "-n2"), "cannot run under xdist, because joules include tests that run at the same time."),
        ((*WORK, "-n2", "--energy-max-joules=5"), "--energy-max-joules cannot run under xdist"),
        ((*WORK, "-n2", "--energy-baseline=none"), "none.json does not exist"),
    ):
        result = run(repository, *arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert words in result.stderr.str() + result.stdout.str()
    # the project's own meter measures, whatever the option says
    result = run(repository, *WORK, "-n1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "energy_meter must count work" in result.stdout.str()
    run(repository, "--benchmark", "-n0", "--benchmark-max-time=0.01").assert_outcomes(passed=3)
