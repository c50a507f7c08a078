from __future__ import annotations

import pytest

from perjoule.runs.directory import Run
from perjoule.statistics.drawn import draw
from perjoule.statistics.frontier import frontier_of
from perjoule.statistics.sensitivity import bd_by_metric

DRAWS = 400


def test_bd_energy_is_the_same_under_a_metric_turned_over(run: Run) -> None:
    up, down = bd_by_metric(run, draw(run, ["q", "loss"], DRAWS))
    assert (up.metric, down.metric) == ("q", "loss")
    assert up.bd_energy.value == pytest.approx(-0.2, abs=0.02)
    assert down.bd_energy.value == pytest.approx(up.bd_energy.value)
    assert up.resolved
    assert up.akima == pytest.approx(up.bd_energy.value, abs=0.02)


def test_what_the_frontier_knows_is_not_worked_out_again(run: Run) -> None:
    drawn = draw(run, ["q", "loss"], DRAWS)
    assert bd_by_metric(run, drawn, frontier_of(run, drawn, "q")) == bd_by_metric(run, drawn)
