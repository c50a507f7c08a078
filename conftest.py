"""Shared by all tests: no network, no terminal colours, no deadlines; `-n 2`; in CI nothing is skipped unnoticed."""

from __future__ import annotations

import os
import re

# before any Hugging Face library reads them
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# processes that tests start compile our modules once, not each time again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# a pytest that a test starts is a session of its own, not a part of this one
if os.environ.pop("PYTEST_XDIST_WORKER", None):
    # the workers have a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import pytest
from hypothesis import settings

# no deadline: a slow machine is not a failing test
settings.register_profile("perjoule", deadline=None)
settings.load_profile("perjoule")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, the tests of one file share a process, since they share fixtures that take long."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `-n`, files with slow tests come first, so that no process is left with one at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def has_gpu() -> bool:
    """Whether torch is installed and finds a GPU; creates no CUDA context."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` without a GPU."""
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("needs a GPU that CUDA can use")


_LEAVE = "GPU|recordings of boards|ratings of people|there is no actionlint"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session with PERJOULE_SKIPS=gpu, as in CI, if a test was skipped that should have run.

    It may be skipped for a missing GPU, for recordings of boards and ratings of people, which the project lacks, and
    for actionlint, a program that its package downloads from a host that not every machine reaches.
    """
    if os.environ.get("PERJOULE_SKIPS") != "gpu":
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    skipped = [reason for reason in reasons if not re.search(_LEAVE, reason)]
    for reason in skipped:
        reporter.write_line(f"skipped without leave: {reason}", red=True)
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
