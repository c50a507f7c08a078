from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.statistics.comparisons import Arm
from perjoule.statistics.drawn import drawn_once, evidence_of
from perjoule.statistics.frontier import read_frontier
from perjoule.statistics.grid import Grid, read_grid
from perjoule.statistics.pareto import non_dominated
from perjoule.statistics.points import operating_points
from perjoule.statistics.raced import needed_cells, replay
from perjoule.statistics.resampling import over_seeds
from perjoule.types import MetricSpec
from tests.support.racing import raced_run
from tests.support.tables_of_runs import imported, table


def arm(name: str, columns: tuple[int, ...], **more: object) -> Arm:
    settings = {"role": "fixed", "policy": "fixed", "family": "m"} | more
    return Arm(variant=name, columns=columns, **settings)  # type: ignore[arg-type]


ARMS = (
    arm("ladder", (0, 1, 2)),
    arm("policy", (3,), role="predicted"),
    arm("shuffled", (4,), role="control"),
    arm("student", (5, 6), family="s"),
)
CELLS = tuple("abcdefg")


def needed(remaining: str) -> dict[str, str]:
    spec = MetricSpec(
        name="q", direction="higher", track="absolute", needs_reference=False, unit="", weights_digest="none",
        licence="none", description="", advisory=False, bounds=(None, None),
    )  # fmt: skip
    return needed_cells(ARMS, CELLS, set(remaining), spec)


def test_anchors_and_controls_stay_as_long_as_they_are_needed() -> None:
    assert set(needed("abcdefg")) == set("abce")
    # the control stays with its policy, the ladder with any other arm
    assert set(needed("abcefg")) == set("abc")
    assert set(needed("abcf")) == set("abc")
    assert needed("abc") == {}
    assert needed("abcdefg")["e"] == "shuffled is a control of policy"
    assert needed("abcdefg")["a"] == "policy is compared with ladder"


@pytest.fixture
def raced(tmp_path: Path) -> Run:
    return raced_run(tmp_path / "run")


def on_frontier(grid: Grid, metric: str, sign: float) -> set[str]:
    energy_j, quality = over_seeds(grid.energy_j).mean(0), sign * over_seeds(grid.quality[metric]).mean(0)
    return {cell for cell, on in zip(grid.cells, non_dominated(energy_j, quality), strict=True) if on}


def test_cells_are_compared_on_common_prompts_only(raced: Run) -> None:
    assert raced.race is not None
    metric = raced.race.metric
    points = {row["cell_id"]: row for row in operating_points(raced).to_dicts() if row["metric"] == metric}
    grid, sign = read_grid(raced, [metric]), raced.metrics[metric].sign
    first = {prompt.prompt_id for prompt in raced.prompt_set[:8]}
    places = np.array([i for i, prompt in enumerate(grid.prompts) if prompt in first], np.intp)
    among_all = on_frontier(grid.of_prompts(places), metric, sign)
    dropped = set(raced.race.dropped)
    rest = grid.of_cells([i for i, cell in enumerate(grid.cells) if cell not in dropped])
    expected = (among_all & dropped) | on_frontier(rest, metric, sign)
    assert {cell for cell, row in points.items() if row["on_frontier"]} == expected
    assert {cell for cell, row in points.items() if row["dropped"]} == dropped
    assert {row["n_prompts"] for cell, row in points.items() if cell in dropped} == {8}
    record = read_frontier(raced, metric, resamples=200)
    assert not dropped & set(record.frontier)


def test_an_arm_is_compared_by_its_remaining_cells(raced: Run) -> None:
    assert raced.race is not None
    metric, dropped = raced.race.metric, set(raced.race.dropped)
    evidence = evidence_of(raced, drawn_once(raced), metric)
    in_arms = {evidence.grid.cells[column] for one in evidence.arms for column in one.columns}
    assert not in_arms & dropped


def test_only_a_race_has_looks(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"is not a race: it has no race\.json"):
        list(replay(imported(table(prompts=3), tmp_path)))
