"""Pytest plugin for `pytest --benchmark`: joules per call, next to pytest-benchmark's seconds.

    def test_sd15(energy_benchmark):
        energy_benchmark(pipe, "a lighthouse", num_inference_steps=25)

Every pytest run in an environment with perjoule imports this module, so it imports only pytest; the other modules are
imported when the first test measures energy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from perjoule.protocols import EnergyMeter
    from perjoule.pytest_energy.fixture import EnergyBenchmark
    from perjoule.pytest_energy.session import EnergySession

_ENABLED = "energy_benchmark"  # destination of the options --benchmark and --energy-benchmark
_SHORT, _LONG = "--benchmark", "--energy-benchmark"
_HELP = "Run energy tests; they are deselected otherwise."

_SESSION = pytest.StashKey["EnergySession"]()
_DESELECTED = pytest.StashKey["set[str]"]()
_OPTION = pytest.StashKey[str]()
_OUTPUT = "perjoule_energy"  # key of what a worker of pytest-xdist sends


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add our options; those of pytest-benchmark have the prefix `--benchmark-`."""
    group = parser.getgroup("perjoule", "energy benchmarks (perjoule)")
    add = group.addoption
    add(_LONG, dest=_ENABLED, action="store_true", default=False, help=_HELP)
    add(
        "--energy-meter",
        default="auto",
        metavar="M",
        help="auto, nvml, nvml:UUID, rapl, work, work:PROFILE, estimate or replay:FILE.",
    )
    add("--energy-rounds", type=int, default=5, metavar="N", help="Windows per test (default 5).")
    add(
        "--energy-window", type=float, default=0.5, metavar="S",
        help="Minimum window in s; shorter calls are repeated inside it (default 0.5).",
    )  # fmt: skip
    add("--energy-save", metavar="NAME", help="Save the joules of this session as a baseline.")
    add("--energy-baseline", metavar="NAME", help="Compare with a baseline saved by --energy-save.")
    add("--energy-gate", action="store_true", default=False, help="Fail tests that exceed the baseline.")
    add(
        "--energy-sequential", action="store_true", default=False,
        help="With --energy-gate: stop the rounds of a test when its verdict is decided; --energy-rounds is the most.",
    )  # fmt: skip
    add("--energy-margin", default="5%", metavar="SHARE", help="Largest tolerable increase in energy (default 5%%).")
    add(
        "--energy-session-sd", default="3%", metavar="SHARE",
        help="Standard deviation of ln E between sessions (default 3%%, assumed; measure yours with A/A sessions).",
    )  # fmt: skip
    add(
        "--energy-max-joules", type=float, metavar="J",
        help="Stop and fail when the windows of the session exceed this energy.",
    )  # fmt: skip
    add("--energy-report", metavar="PATH", help="Write the joules to this file: .json, .md or .html.")
    if any(
        Path(getattr(plugin, "__file__", None) or "").name == "conftest.py" for plugin in pluginmanager.get_plugins()
    ):
        # a conftest.py names us in `pytest_plugins`: pytest_load_initial_conftests is running and will not be called
        _add_short_option(parser, pluginmanager.get_plugin("pytestconfig"))


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Iterator[None]:
    """Add `--benchmark` last, because another plugin or a conftest.py may have an option of this name."""
    yield
    _add_short_option(parser, early_config)


def _add_short_option(parser: pytest.Parser, config: Any) -> None:
    try:
        taken = _SHORT not in parser.parse_known_and_unknown_args([_SHORT])[1]
    except pytest.UsageError:  # the option requires a value
        taken = True
    if not taken:
        parser.getgroup("perjoule").addoption(_SHORT, dest=_ENABLED, action="store_true", default=False, help=_HELP)
    config.stash[_OPTION] = _LONG if taken else _SHORT


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return a header with the option that runs energy tests, if it is not the usual one."""
    if _option(config) == _SHORT:
        return None
    return f"perjoule: {_SHORT} is an option of another plugin; use {_LONG} to run energy tests"


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before tests are collected."""
    config.addinivalue_line("markers", "energy(rounds, window_s): settings of a test that uses energy_benchmark")
    # known only now, because `-p no:benchmark` disables pytest-benchmark
    fixtures = _NextToSeconds() if config.pluginmanager.hasplugin("benchmark") else _JoulesOnly()
    config.pluginmanager.register(fixtures, "perjoule-fixtures")
    option_name = _option(config)
    if not config.getoption(_ENABLED):
        _refuse(config, f"needs {option_name}, without which energy tests do not run")
        return
    if _calls_once(config):
        _refuse(
            config, "needs joules, and --benchmark-disable calls each function once without them: remove one of them"
        )
        return
    if _is_distributed(config):
        _check_distributed(config, option_name)
    if config.getoption("--energy-sequential"):
        if not config.getoption("--energy-gate"):
            raise pytest.UsageError("--energy-sequential needs --energy-gate, whose verdicts end the rounds")
        if config.getoption("--energy-save"):
            raise pytest.UsageError("--energy-save needs all rounds of a test. Remove --energy-sequential")
    if config.getoption("--energy-gate") and not config.getoption("--energy-baseline"):
        raise pytest.UsageError("--energy-gate needs --energy-baseline NAME to compare with")
    max_joules = config.getoption("--energy-max-joules")
    if max_joules is not None and not 0 < max_joules < float("inf"):
        raise pytest.UsageError(f"--energy-max-joules {max_joules:g}: must be a positive number of joules")
    if config.getoption("--energy-rounds") < 2:
        raise pytest.UsageError("--energy-rounds: must be 2 or more, to estimate the variation")
    window_s = config.getoption("--energy-window")
    if not 0 <= window_s < float("inf"):
        raise pytest.UsageError(f"--energy-window {window_s:g}: must be 0 or more seconds")


def _refuse(config: pytest.Config, why: str) -> None:
    """Raise pytest.UsageError if an option was given that needs measured joules."""
    names = (
        "--energy-save", "--energy-baseline", "--energy-gate", "--energy-sequential", "--energy-report",
        "--energy-max-joules",
    )  # fmt: skip
    for option in names:
        if config.getoption(option) not in (None, False):
            raise pytest.UsageError(f"{option} {why}")


def _calls_once(config: pytest.Config) -> bool:
    """Return whether pytest-benchmark's `--benchmark-disable` was given."""
    disabled = config.getoption("benchmark_disable", False) and not config.getoption("benchmark_enable", False)
    return bool(disabled)


def _is_distributed(config: pytest.Config) -> bool:
    """Return whether pytest-xdist runs the tests in several processes, in the controller and in its workers."""
    workers = getattr(config.option, "numprocesses", None)
    return bool(workers) or _is_worker(config) or getattr(config.option, "dist", "no") not in ("no", None)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _check_distributed(config: pytest.Config, option_name: str) -> None:
    if config.getoption("--energy-meter").split(":")[0] != "work":
        raise pytest.UsageError(
            f"{option_name} cannot run under xdist, because joules include tests that run at the same time. Remove -n, "
            "or count work: --energy-meter work"
        )
    if config.getoption("--energy-max-joules") is not None:
        raise pytest.UsageError(
            "--energy-max-joules cannot run under xdist, because each process counts alone. Remove -n"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Under xdist, read the baseline before the workers start."""
    config = session.config
    if config.getoption(_ENABLED) and _is_distributed(config) and not _is_worker(config):
        session_of(config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """Under xdist, take the joules of a worker that has finished."""
    output = getattr(node, "workeroutput", {}).get(_OUTPUT)
    if output is not None:
        session_of(node.config).merge(output)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect energy tests unless they were requested."""
    if config.getoption(_ENABLED):
        return
    energy = [item for item in items if _is_energy(item)]
    if energy:
        config.hook.pytest_deselected(items=energy)
        items[:] = [item for item in items if not _is_energy(item)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Read the baseline and check the options before the first window."""
    config = session.config
    measuring = config.getoption(_ENABLED) and not config.getoption("collectonly", False)
    if measuring and any(_is_energy(item) for item in session.items):
        session_of(config)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Record deselected tests, which are not missing."""
    for item in items:
        session = item.config.stash.get(_SESSION, None)
        if session is not None:
            session.deselected.add(item.nodeid)
        else:
            names: set[str] = item.config.stash.setdefault(_DESELECTED, set())
            names.add(item.nodeid)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a suite file with --benchmark: one test per cell."""
    if file_path.suffix != ".toml" or not parent.config.getoption(_ENABLED):
        return None
    if (file_path.parent / "environment.json").exists() and not parent.session.isinitpath(file_path):
        return None  # the copy in a run directory
    text = file_path.read_text(encoding="utf-8", errors="replace")
    if "[[variants]]" not in text or "[protocol]" not in text:
        return None
    from perjoule.pytest_energy.suites import SuiteFile

    return SuiteFile.from_parent(parent, path=file_path)


@pytest.fixture(scope="session")
def energy_meter(request: pytest.FixtureRequest) -> Iterator[EnergyMeter]:
    """The meter of `--energy-meter`; override it to bring your own."""
    from perjoule.meters import open_meter

    with open_meter(request.config.getoption("--energy-meter")) as meter:
        yield meter


class _NextToSeconds:
    """Fixture with pytest-benchmark loaded: its options apply to energy tests too."""

    @pytest.fixture
    def energy_benchmark(self, request: pytest.FixtureRequest, benchmark: Any) -> EnergyBenchmark:
        """Call it like pytest-benchmark's `benchmark`; it returns the last result of the function."""
        return _fixture(request, benchmark)


class _JoulesOnly:
    """Fixture without pytest-benchmark."""

    @pytest.fixture
    def energy_benchmark(self, request: pytest.FixtureRequest) -> EnergyBenchmark:
        """Call it with a function and its arguments; it returns the last result of the function."""
        return _fixture(request, None)


def _fixture(request: pytest.FixtureRequest, benchmark: Any) -> EnergyBenchmark:
    if not request.config.getoption(_ENABLED):  # requested with request.getfixturevalue
        pytest.skip(f"an energy test; run it with {_option(request.config)}")
    from perjoule.pytest_energy.fixture import EnergyBenchmark

    meter = None if _calls_once(request.config) else request.getfixturevalue("energy_meter")
    if meter is not None and _is_worker(request.config) and not getattr(meter, "counts_work", False):
        pytest.fail("under xdist, energy_meter must count work, because joules include other tests", pytrace=False)
    return EnergyBenchmark(session=session_of(request.config), meter=meter, item=request.node, benchmark=benchmark)


def session_of(config: pytest.Config) -> EnergySession:
    """Return the records of this session, created when the first test measures energy."""
    session = config.stash.get(_SESSION, None)
    if session is None:
        from perjoule.pytest_energy.session import EnergySession

        session = config.stash[_SESSION] = EnergySession.open(config)
        left_out: set[str] = config.stash.setdefault(_DESELECTED, set())
        session.deselected |= left_out
    return session


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Save, report, and fail if the evidence for a gate is missing.

    This runs before all other plugins, so that the joules are saved even if another plugin fails.
    """
    config = session.config
    if _is_worker(config):
        measured = config.stash.get(_SESSION, None)
        if measured is not None:
            config.workeroutput[_OUTPUT] = measured.as_output()  # type: ignore[attr-defined]
    elif config.getoption(_ENABLED) and not config.getoption("collectonly", False):
        requested = any(config.getoption(f"--energy-{name}") for name in ("save", "baseline", "gate", "report"))
        if requested or config.stash.get(_SESSION, None) is not None:
            complete = session_of(config).finish(exitstatus)
            if not complete and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                # pytest's codes 2 to 5 have other meanings: a test without a verdict counts as failed
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table with joules."""
    session = config.stash.get(_SESSION, None)
    if session is not None and _calls_once(config):
        terminalreporter.section("energy", sep="-")
        terminalreporter.write_line("--benchmark-disable: each function was called once, without joules")
    elif session is not None:
        session.print_summary(terminalreporter)


def _is_energy(item: pytest.Item) -> bool:
    # not by the marker: projects may have a marker of that name for other tests
    return "energy_benchmark" in getattr(item, "fixturenames", ())


def _option(config: pytest.Config) -> str:
    """Return the option that runs energy tests."""
    return config.stash.get(_OPTION, _LONG)
