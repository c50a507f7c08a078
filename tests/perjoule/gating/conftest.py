"""Two comparable runs that pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perjoule.gating import gate
from perjoule.runs.directory import Run, load_run
from tests.support.gating import HUNDRED, WIDE
from tests.support.tables_of_runs import imported, table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two comparable runs that pass."""
    folder = tmp_path_factory.mktemp("made")
    base = imported(table(**HUNDRED), folder, "base")
    candidate = imported(table(**HUNDRED, seed=1), folder, "candidate")
    assert gate(base, candidate, config=WIDE).verdict == "pass"
    return base, candidate


@pytest.fixture
def pair(made: tuple[Run, Run], tmp_path: Path) -> tuple[Run, Run]:
    """The same, to be edited."""
    base, candidate = (load_run(shutil.copytree(run.path, tmp_path / run.path.name)) for run in made)
    return base, candidate
