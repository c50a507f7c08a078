"""The command and the page make the same choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.support.stored_runs import stored_run
from tests.support.tables_of_runs import imported, table, with_margin

from perjoule.gating.recommend import recommend
from perjoule_reports import build_report


@pytest.mark.parametrize("margin", [None, 0.02, 0.2])
def test_recommend_without_a_demand_makes_the_choice_of_the_report(tmp_path: Path, margin: float | None) -> None:
    run = stored_run(tmp_path / "run", prompts=12, metrics=("scene",))
    run = run if margin is None else with_margin(run, margin)
    choices, found = build_report(run).payload["choices"], recommend(run)
    assert choices["floor"] == pytest.approx(found["min_quality"])
    assert choices["chosen"] == (found["chosen"] and found["chosen"]["cell_id"])


@pytest.mark.parametrize(
    "roles", [{"short": "predicted", "long": "predicted"}, {"short": "predicted", "long": "control"}]
)
@pytest.mark.parametrize("margin", [None, 0.05])
def test_without_a_fixed_run_both_take_the_floor_of_the_same_cell(
    tmp_path: Path, roles: dict[str, str], margin: float | None
) -> None:
    """The longest run sets it, a control only if there is nothing else."""
    steps = {"short": 8, "long": 16}
    frame = table(variants=(("short", 1.0), ("long", 1.0)), prompts=24, seeds=1, ladder=(8, 16))
    frame = frame.filter(pl.col("steps") == pl.col("variant").replace_strict(steps))
    run = imported(frame.with_columns(role=pl.col("variant").replace_strict(roles)), tmp_path)
    run = run if margin is None else with_margin(run, margin)
    report, found = build_report(run), recommend(run)
    choices = report.payload["choices"]
    anchor = next(name for name in ("long", "short") if roles[name] == "predicted")
    mean = float(np.mean(frame.filter(pl.col("variant") == anchor)["quality:q"].to_numpy()))
    if margin is not None:
        assert found["min_quality"] == pytest.approx(mean - margin)
    assert f"longest run, {anchor}" in found["floor_from"]
    assert choices["floor"] == pytest.approx(found["min_quality"], rel=1e-5)
    assert choices["chosen"] == found["chosen"]["cell_id"]
