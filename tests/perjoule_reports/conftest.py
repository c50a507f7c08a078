from __future__ import annotations

from types import ModuleType

import pytest
from tests.support import boards
from tests.support import synthetic as module

from perjoule.runs.directory import Run
from perjoule_reports import build_report


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """Return the module that makes synthetic runs."""
    return module


@pytest.fixture(scope="session")
def usual(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """Two variants, nine step counts, 24 prompts, two seeds, estimated joules."""
    return synthetic.make_run(tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="session")
def small(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """Two variants, three step counts, eight prompts, one metric: quick to render."""
    return synthetic.make_run(
        tmp_path_factory.mktemp("small"), prompts=8, ladder=(1, 12, 50), seeds=(1,), metrics=("scene",)
    )


@pytest.fixture(scope="session")
def usual_report(usual):
    return build_report(usual)


@pytest.fixture(scope="package")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    throttled = {"throttle": 4, "throttle_from_s": 1000.0, "sm_clock_after_mhz": 1700, "sm_clock_change_s": 1004.0}
    return boards.traced_run(tmp_path_factory.mktemp("traced") / "run", board=throttled)
