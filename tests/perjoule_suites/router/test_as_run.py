from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from tests.support.routes import route_table, with_routed
from tests.support.tables_of_runs import imported, rewrite_table

from perjoule.runs.directory import Run
from perjoule_suites.router.arms import read_arms
from perjoule_suites.router.as_run import PHASE, SWITCH, phase_share, routed_cells
from perjoule_suites.router.cost import own_cost
from perjoule_suites.router.evaluation import evaluate
from perjoule_suites.router.printing import evaluation_lines
from perjoule_suites.router.router import Router


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return imported(with_routed(route_table(80, 200)), tmp_path)


def test_a_routed_cell_is_compared_with_mixtures(run: Run) -> None:
    (cell,) = routed_cells(run, read_arms(run), resamples=400)
    assert cell.energy_j_per_image == pytest.approx(2.75, abs=0.05)
    assert cell.quality == pytest.approx(0.775, abs=0.01)
    assert cell.saving.value == pytest.approx(1 - 2.75 / 4.5, abs=0.02)
    assert cell.saving.low is not None
    assert 0.2 < cell.saving.low < 1 - 2.75 / 4.5
    assert (cell.decision_share, cell.switch_share) == (None, None)


def test_a_run_without_such_cells(dev: Run) -> None:
    assert routed_cells(dev, read_arms(dev)) == ()


def test_shares_of_phases_and_the_cost_of_the_decision(run: Run, router: Router) -> None:
    scores = read_arms(run)
    assert own_cost(run, router, scores).energy_j_per_image is None  # no phases are known, which is not a cost of 0
    phases = json.dumps({PHASE: 0.02, SWITCH: 0.5, "denoise": 1.0})
    run = rewrite_table(run, "trials", pl.lit(phases).alias("phases_s"), pl.lit(4.0).alias("duration_s"))
    trials = run.windows.filter(pl.col("policy") == "router")
    assert phase_share(trials, PHASE) == pytest.approx(0.005)
    assert phase_share(trials, SWITCH) == pytest.approx(0.125)
    cost = own_cost(run, router, scores)
    assert cost.share == pytest.approx(0.005)
    assert cost.energy_j_per_image == pytest.approx(0.005 * 2.75, rel=0.02)
    evaluation = evaluate(run, router, name="r", at_quality=0.8, resamples=200)
    (line,) = [line for line in evaluation_lines(evaluation) if line.startswith("  routed")]
    assert line.endswith("decision 0.50% of the time, switches 12.50% of the time")
