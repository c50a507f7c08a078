"""A small run of two arms and its report."""

from __future__ import annotations

import pytest
from tests.support.reports import SMALL
from tests.support.tables_of_runs import imported, table

from perjoule.runs.directory import Run
from perjoule_reports import build_report
from perjoule_reports.records import Report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return imported(table(**SMALL), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: Run) -> Report:
    return build_report(run)
