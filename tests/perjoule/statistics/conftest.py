"""A run of two arms."""

from __future__ import annotations

import polars as pl
import pytest

from perjoule.runs.directory import Run
from tests.support.tables_of_runs import imported, table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The arm `quick` needs 20 % less at every rung; a second metric counts backwards."""
    frame = table(prompts=40, noise=0.02).with_columns((-pl.col("quality:q")).alias("quality:loss"))
    return imported(frame, tmp_path_factory.mktemp("drawn"), lower=["loss"])
