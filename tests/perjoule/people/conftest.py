"""A run with pictures, and a study of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perjoule.people.creating import StudyRequest, new_study
from perjoule.people.records import Study
from perjoule.runs.directory import Run
from tests.support.stored_runs import stored_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return stored_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    out = tmp_path_factory.mktemp("studies") / "study"
    return new_study(run, StudyRequest(pairs=40, observers=8), out), out


@pytest.fixture
def study(made: tuple[Study, Path], tmp_path: Path) -> tuple[Study, Path]:
    """A study that a test may change."""
    return made[0], shutil.copytree(made[1], tmp_path / "study")
