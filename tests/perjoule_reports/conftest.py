from __future__ import annotations

from types import ModuleType

import pytest
from tests.support import synthetic as module

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
