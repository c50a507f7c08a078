"""The record of a run of two arms whose joules and qualities are known: marginal gains, knee, area, corner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perjoule.errors import UnknownNameError
from perjoule.runs.directory import Run
from perjoule.statistics.drawn import draw
from perjoule.statistics.frontier import frontier_of, read_frontier
from perjoule.statistics.pareto import hypervolume
from perjoule.statistics.records import Frontier
from tests.support.tables_of_runs import imported

# energy and quality of each rung, the same for all prompts up to an offset of the prompt
LADDER = {2: (1.0, 0.1), 4: (2.0, 0.6), 8: (4.0, 0.8), 16: (8.0, 0.85)}
QUICK = {2: (0.5, 0.0), 8: (3.0, 0.7)}


def table(sign: float = 1.0) -> pl.DataFrame:
    rows = [
        {
            "variant": variant,
            "prompt_id": f"p{prompt}",
            "seed": 1,
            "steps": steps,
            "energy_j": energy * (1 + prompt / 100),
            "provenance": "measured",
            "quality:q": sign * (quality + prompt / 1000),
        }
        for variant, rungs in (("ladder", LADDER), ("quick", QUICK))
        for steps, (energy, quality) in rungs.items()
        for prompt in range(12)
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="module", params=[1.0, -1.0], ids=["higher", "lower"])
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Frontier, float]:
    """The run under a metric of which more is better, and the same turned round."""
    sign: float = request.param
    run = imported(table(sign), tmp_path_factory.mktemp("known"), lower=["q"] if sign < 0 else [])
    return run, read_frontier(run, "q", resamples=200), sign


MEAN = 1 + 5.5 / 100
OFFSET = 5.5 / 1000


def test_the_frontier_runs_from_cheap_to_good(known: tuple[Run, Frontier, float]) -> None:
    _, found, _ = known
    assert found.frontier == ("quick-002", "ladder-002", "ladder-004", "quick-008", "ladder-008", "ladder-016")


def test_the_next_joule_buys_the_difference_quotient(known: tuple[Run, Frontier, float]) -> None:
    _, found, _ = known
    at = {f"{v}-{s:03d}": point for v, rungs in (("ladder", LADDER), ("quick", QUICK)) for s, point in rungs.items()}
    assert [(step.from_, step.to) for step in found.marginal] == list(
        zip(found.frontier, found.frontier[1:], strict=False)
    )
    for step in found.marginal:
        (e0, q0), (e1, q1) = at[step.from_], at[step.to]
        assert step.gain_per_joule.value == pytest.approx((q1 - q0) / (e1 - e0) / MEAN)
        assert step.reason is None


def test_the_knee_is_where_the_ladder_bends(known: tuple[Run, Frontier, float]) -> None:
    _, found, _ = known
    assert found.knee is not None
    assert found.knee.cell_id == "ladder-004"
    assert found.knee.shares == {"ladder-004": 1.0}


def test_the_area_reaches_to_twice_the_longest_rung_and_the_quality_of_the_shortest(
    known: tuple[Run, Frontier, float],
) -> None:
    _, found, sign = known
    assert found.hypervolume is not None
    corner = found.hypervolume.reference
    assert corner.energy_j_per_image == pytest.approx(2 * 8.0 * MEAN)
    assert corner.quality == pytest.approx(sign * (0.1 + OFFSET))
    points = np.array([*LADDER.values(), *QUICK.values()])
    area = hypervolume(points[:, 0] * MEAN, points[:, 1] + OFFSET, (16.0 * MEAN, 0.1 + OFFSET))
    assert found.hypervolume.value == pytest.approx(area)
    assert found.hypervolume.beyond_reference == ("quick-002",)


def test_a_declared_corner_is_taken(known: tuple[Run, Frontier, float]) -> None:
    run, _, sign = known
    other = Run(path=run.path)
    metrics = replace(run.suite.metrics, reference={"q": (5.0, sign * 0.5)})
    vars(other).update(suite=replace(run.suite, metrics=metrics))
    found = read_frontier(other, "q", resamples=20).hypervolume
    assert found is not None
    assert (found.reference.energy_j_per_image, found.reference.quality) == (5.0, sign * 0.5)
    assert set(found.beyond_reference) == {"quick-002", "ladder-002", "ladder-016"}


def test_scores_against_a_reference_of_the_model_are_compared_within_its_family(
    known: tuple[Run, Frontier, float],
) -> None:
    run, _, _ = known
    inside = Run(path=run.path)
    variants = tuple(replace(variant, model=f"org/{variant.name}") for variant in run.suite.variants)
    vars(inside).update(
        metrics={"q": replace(run.metrics["q"], track="fidelity")}, suite=replace(run.suite, variants=variants)
    )
    assert len(set(inside.families.values())) == 2
    found = frontier_of(inside, draw(inside, ["q"], 20), "q")
    steps = [(step.from_.split("-")[0], step.to.split("-")[0]) for step in found.marginal]
    assert steps
    assert all(one == other for one, other in steps)
    assert found.hypervolume is not None
    assert found.hypervolume.family == inside.families["ladder"]
    assert found.hypervolume.beyond_reference == ()


def test_two_rungs_have_no_knee(tmp_path: Path) -> None:
    run = imported(table().filter(pl.col("variant") == "quick"), tmp_path)
    assert read_frontier(run, "q", resamples=20).knee is None


def test_a_table_without_qualities_has_joules_and_no_frontier(tmp_path: Path) -> None:
    run = imported(table().drop("quality:q"), tmp_path)
    found = read_frontier(run, resamples=20)
    assert (found.metric, found.direction, found.frontier, found.comparisons) == (None, None, (), ())
    assert [point.energy_j_per_image.value for point in found.points] == pytest.approx(
        [rung[0] * MEAN for rung in (*LADDER.values(), *QUICK.values())]
    )
    with pytest.raises(UnknownNameError, match="other"):
        read_frontier(run, "other")
