"""Options, markers and plugins of other people that have our names."""

from __future__ import annotations

import pytest

from tests.perjoule.pytest_energy.repository import Repository, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("how", "attributes", "given"),
    [
        ("conftest", 'action="store_true"', ["--benchmark"]),
        ("conftest", 'default="none"', ["--benchmark=theirs"]),
        ("plugin", 'action="store_true"', ["--benchmark"]),
    ],
)
def test_a_benchmark_option_of_the_project_stays_the_projects(
    repository: Repository, how: str, attributes: str, given: list[str]
) -> None:
    option = f"""
def pytest_addoption(parser):
    parser.addoption("--benchmark", {attributes})
"""
    arguments = ["--benchmark-max-time=0.01"]
    if how == "conftest":
        conftest = repository.path / "conftest.py"
        conftest.write_text(conftest.read_text() + option)
    else:
        repository.makepyfile(their_plugin=option)
        arguments += ["-p", "their_plugin"]
    theirs = run(repository, *arguments, *given)
    theirs.assert_outcomes(passed=2, deselected=1)
    theirs.stdout.fnmatch_lines(["perjoule: --benchmark is an option of another plugin; use --energy-benchmark*"])
    both = run(repository, *arguments, *given, "--energy-benchmark")
    both.assert_outcomes(passed=3)
    both.stdout.fnmatch_lines(["*test_theirs.py::test_joules*100*measured*"])
    refused = run(repository, *arguments, "--energy-save=main")
    assert "--energy-save needs --energy-benchmark" in refused.stderr.str()


def test_an_unknown_meter_is_one_error_before_the_first_test(repository: Repository) -> None:
    result = run(repository, "--benchmark", "--energy-meter=rapple")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    output = result.stdout.str() + result.stderr.str()
    assert output.count("unknown meter 'rapple': did you mean 'rapl'? known: ") == 1
    assert "passed" not in output


def test_the_long_option_always_works(repository: Repository) -> None:
    result = run(repository, "--benchmark-max-time=0.01", "--energy-benchmark")
    result.assert_outcomes(passed=3)
    assert "another plugin" not in result.stdout.str()


def test_a_project_that_loads_the_plugin_itself_has_the_short_option(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    conftest = repository.path / "conftest.py"
    conftest.write_text('pytest_plugins = ["perjoule.pytest_plugin"]\n' + conftest.read_text())
    result = run(repository, "--benchmark", "-k", "joules")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines(["*test_theirs.py::test_joules*100*measured*"])


def test_a_marker_of_the_project_named_energy_hides_no_test(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        import pytest

        @pytest.mark.energy("high", beam=7)
        def test_physics():
            pass

        @pytest.mark.energy
        def test_dynamic(request):
            request.getfixturevalue("energy_benchmark")(sum, [1])
        """
    )
    run(repository).assert_outcomes(passed=1, skipped=1)
    run(repository, "--benchmark", "--benchmark-max-time=0.01").assert_outcomes(passed=2)


def test_the_suite_that_a_run_directory_keeps_is_not_a_test_file(repository: Repository) -> None:
    folder = repository.mkdir("runs")
    (folder / "suite.toml").write_text("[protocol]\n[[variants]]\n")
    (folder / "environment.json").write_text("{}")
    run(repository, "--benchmark", "--benchmark-max-time=0.01", "runs", "test_theirs.py").assert_outcomes(passed=3)
    named = run(repository, "--benchmark", "runs/suite.toml")
    named.assert_outcomes(errors=1)
    assert "runs/suite.toml: name is missing: it has no default" in named.stdout.str()


DISABLED = """
from virtual import CLOCK

calls = []

def test_once(energy_benchmark):
    assert energy_benchmark(calls.append, "a") is None
    assert calls == ["a"]

def test_pedantic(energy_benchmark):
    order = []
    result = energy_benchmark.pedantic(
        lambda x: order.append(x) or x, setup=lambda: ((7,), {}), teardown=lambda x: order.append("down"), rounds=9,
        warmup_rounds=3,
    )
    assert (result, order) == (7, [7, "down"])

def test_coroutine(energy_benchmark):
    async def work():
        return "done"
    assert energy_benchmark(work) == "done"

def test_seconds(benchmark):
    benchmark(calls.append, "b")
    assert calls == ["a", "b"]
"""


def test_disabled_benchmarks_are_called_once_without_joules(repository: Repository) -> None:
    repository.makepyfile(test_theirs=DISABLED)
    result = run(repository, "--benchmark", "--benchmark-disable")
    result.assert_outcomes(passed=4, warnings=0)
    assert "--benchmark-disable: each function was called once, without joules" in result.stdout.str()
    assert "J/call" not in result.stdout.str()
    refused = run(repository, "--benchmark", "--benchmark-disable", "--energy-save=main")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert "--energy-save needs joules, and --benchmark-disable calls each function once" in refused.stderr.str()
