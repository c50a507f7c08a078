"""`pytest --benchmark`: joules of a call, beside pytest-benchmark's seconds.

    def test_sd15(energy_benchmark):
        energy_benchmark(pipe, "a lighthouse", num_inference_steps=25)

This module is imported by every pytest of an environment that has perjoule, so it imports nothing but pytest; what
measures is imported when the first test asks for joules.
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

_SESSION = pytest.StashKey["EnergySession"]()
_DESELECTED = pytest.StashKey["set[str]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options; those of pytest-benchmark keep their prefix `--benchmark-`."""
    group = parser.getgroup("perjoule", "energy benchmarks (perjoule)")
    add = group.addoption
    add("--benchmark", action="store_true", default=False, help="Run energy tests; they are deselected otherwise.")
    add("--energy-meter", default="auto", metavar="M", help="auto, nvml, nvml:UUID, rapl, estimate or replay:FILE.")
    add("--energy-rounds", type=int, default=5, metavar="N", help="Windows per test (default 5).")
    add(
        "--energy-window", type=float, default=0.5, metavar="S",
        help="Shortest window in s; shorter calls are repeated inside it (default 0.5).",
    )  # fmt: skip
    add("--energy-save", metavar="NAME", help="Keep the joules of this session as a baseline.")
    add("--energy-baseline", metavar="NAME", help="Compare with a baseline kept by --energy-save.")
    add("--energy-gate", action="store_true", default=False, help="Fail tests that need more than the baseline.")
    add("--energy-margin", default="5%", metavar="SHARE", help="Tolerable extra energy (default 5%%).")
    add(
        "--energy-session-sd", default="3%", metavar="SHARE",
        help="Scatter of ln E between sessions (default 3%%, an assumption; learn yours from A/A sessions).",
    )  # fmt: skip
    add(
        "--energy-max-joules", type=float, metavar="J",
        help="Stop and fail once the windows of the session have spent more than this.",
    )  # fmt: skip
    add("--energy-report", metavar="PATH", help="Write the joules there: .json, .md or .html.")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what cannot be measured, before anything is collected."""
    config.addinivalue_line("markers", "energy(rounds, window_s): an energy benchmark; needs --benchmark to run")
    if not config.getoption("--benchmark"):
        names = ("--energy-save", "--energy-baseline", "--energy-gate", "--energy-report", "--energy-max-joules")
        for option in names:
            if config.getoption(option) not in (None, False):
                raise pytest.UsageError(f"{option} needs --benchmark: without it no energy test runs")
        return
    workers = getattr(config.option, "numprocesses", None)
    if workers or hasattr(config, "workerinput") or getattr(config.option, "dist", "no") not in ("no", None):
        raise pytest.UsageError(
            "--benchmark cannot run under xdist: tests side by side on one device burn each other's joules. Drop -n"
        )
    if config.getoption("--energy-gate") and not config.getoption("--energy-baseline"):
        raise pytest.UsageError("--energy-gate needs --energy-baseline NAME: there is nothing to gate against")
    most = config.getoption("--energy-max-joules")
    if most is not None and not 0 < most < float("inf"):
        raise pytest.UsageError(f"--energy-max-joules {most:g}: a positive number of joules")
    if config.getoption("--energy-rounds") < 2:
        raise pytest.UsageError("--energy-rounds: 2 or more; one window has no scatter")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect energy tests unless they were asked for."""
    if config.getoption("--benchmark"):
        return
    energy = [item for item in items if _is_energy(item)]
    if energy:
        config.hook.pytest_deselected(items=energy)
        items[:] = [item for item in items if not _is_energy(item)]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember what was left out on purpose: it is not missing."""
    for item in items:
        session = item.config.stash.get(_SESSION, None)
        if session is not None:
            session.deselected.add(item.nodeid)
        else:
            names: set[str] = item.config.stash.setdefault(_DESELECTED, set())
            names.add(item.nodeid)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """With --benchmark, a suite file is collected: one test per cell."""
    if file_path.suffix != ".toml" or not parent.config.getoption("--benchmark"):
        return None
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


@pytest.fixture
def energy_benchmark(request: pytest.FixtureRequest, benchmark: Any) -> EnergyBenchmark:
    """Call it like pytest-benchmark's `benchmark`; it returns what the function returned last."""
    from perjoule.pytest_energy.fixture import EnergyBenchmark

    meter = request.getfixturevalue("energy_meter")
    return EnergyBenchmark(session=session_of(request.config), meter=meter, item=request.node, benchmark=benchmark)


def session_of(config: pytest.Config) -> EnergySession:
    """The records of this session, made when the first test asks for joules."""
    found = config.stash.get(_SESSION, None)
    if found is None:
        from perjoule.pytest_energy.session import EnergySession

        found = config.stash[_SESSION] = EnergySession.open(config)
        left_out: set[str] = config.stash.setdefault(_DESELECTED, set())
        found.deselected |= left_out
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Save, report, and fail if the evidence for a gate is not there."""
    config = session.config
    if not config.getoption("--benchmark") or config.getoption("collectonly", False):
        return
    asked = any(config.getoption(f"--energy-{name}") for name in ("save", "baseline", "gate", "report"))
    if (asked or config.stash.get(_SESSION, None) is not None) and not session_of(config).finish(exitstatus):
        # pytest's 2 to 5 mean other things: what could not be judged counts as a failed test
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table with joules."""
    found = config.stash.get(_SESSION, None)
    if found is not None:
        found.print_summary(terminalreporter)


def _is_energy(item: pytest.Item) -> bool:
    return "energy_benchmark" in getattr(item, "fixturenames", ()) or item.get_closest_marker("energy") is not None
