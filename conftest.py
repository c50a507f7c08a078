"""Shared by all tests: no network, no terminal colours, no deadlines; in CI nothing is skipped unnoticed."""

from __future__ import annotations

import os

# before any Hugging Face library reads them
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

# no deadline: a slow machine is not a failing test
settings.register_profile("perjoule", deadline=None)
settings.load_profile("perjoule")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With PERJOULE_SKIPS=gpu, as in CI, a test that is skipped for another reason than a missing GPU is a failure."""
    if os.environ.get("PERJOULE_SKIPS") != "gpu":
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    skipped = [reason for reason in reasons if "GPU" not in reason]
    for reason in skipped:
        reporter.write_line(f"skipped without leave: {reason}", red=True)
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
