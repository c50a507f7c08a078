"""The command and the page make the same choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.stored_runs import stored_run
from tests.support.tables_of_runs import with_margin

from perjoule.gating.recommend import recommend
from perjoule_reports import build_report


@pytest.mark.parametrize("margin", [None, 0.02, 0.2])
def test_recommend_without_a_demand_makes_the_choice_of_the_report(tmp_path: Path, margin: float | None) -> None:
    run = stored_run(tmp_path / "run", prompts=12, metrics=("scene",))
    run = run if margin is None else with_margin(run, margin)
    choices, found = build_report(run).payload["choices"], recommend(run)
    assert choices["floor"] == pytest.approx(found["min_quality"])
    assert choices["chosen"] == (found["chosen"] and found["chosen"]["cell_id"])
