from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from perjoule_reports import build_report


def _load() -> ModuleType:
    name = "perjoule_reports_synthetic"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("synthetic.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The maker of synthetic runs; importlib mode has no sibling imports."""
    return _load()


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
