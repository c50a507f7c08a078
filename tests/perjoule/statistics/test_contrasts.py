from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from perjoule.runs.directory import Run
from perjoule.statistics.contrasts import contrasts
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.points import operating_points
from tests.support.tables_of_runs import imported, table

DRAWS = 400


def test_contrasts_know_the_factor_between_two_arms(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], DRAWS), "q")
    found = contrasts(evidence, "ladder-064")
    assert "ladder-064" not in found
    same = found["quick-064"]
    assert same.energy_ratio.value == pytest.approx(0.8, abs=0.01)
    assert same.energy_ratio.low < 0.8 < same.energy_ratio.high
    assert same.quality.low < 0 < same.quality.high
    assert found["ladder-002"].quality.high < 0
    assert found["ladder-002"].quadrants.cheaper_and_worse == 1.0
    assert contrasts(evidence, "nobody") == {}


def test_contrasts_of_a_falling_metric_keep_its_sign(run: Run) -> None:
    up = contrasts(evidence_of(run, draw(run, ["q"], DRAWS), "q"), "ladder-064")["ladder-002"]
    down = contrasts(evidence_of(run, draw(run, ["loss"], DRAWS), "loss"), "ladder-064")["ladder-002"]
    assert down.quality.value == pytest.approx(-up.quality.value)
    assert (down.quality.low, down.quality.high) == pytest.approx((-up.quality.high, -up.quality.low))
    assert down.quadrants == up.quadrants


def test_full_reference_scores_are_not_contrasted_between_families(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], 50), "q")
    inside = replace(evidence, spec=replace(evidence.spec, track="fidelity"))
    assert {cell.split("-")[0] for cell in contrasts(inside, "ladder-064")} == {"ladder"}


def test_cells_of_one_window_have_no_interval_of_energy(tmp_path: Path) -> None:
    whole = imported(table(prompts=12, seeds=1, ladder=(4, 16), variants=(("ladder", 1.0),)), tmp_path)
    lists = ("prompts", "prompt_ids", "seeds", "steps", "image_sha256")
    sums = ("energy_j", "image_count")
    rest = [c for c in whole.trials.columns if c not in {*lists, *sums, "cell_id"}]
    trials = whole.trials.group_by("cell_id", maintain_order=True).agg(
        *(pl.col(c).explode() for c in lists), *(pl.col(c).sum() for c in sums), *(pl.col(c).first() for c in rest)
    )
    trials.select(whole.trials.columns).write_parquet(whole.path / "trials.parquet")
    run = Run(path=whole.path)
    assert operating_points(run)["energy_low"].null_count() == 2
    found = contrasts(evidence_of(run, draw(run, ["q"], DRAWS), "q"), "ladder-016")["ladder-004"]
    assert found.energy_ratio.value is not None
    assert found.energy_ratio.low is found.energy_ratio.high is None
    assert found.quality.low is not None


def test_the_more_expensive_and_better_cell_is_in_its_quadrant(run: Run) -> None:
    found = contrasts(evidence_of(run, draw(run, ["q"], DRAWS), "q"), "ladder-002")["ladder-064"]
    assert found.quadrants is not None
    assert found.quadrants.dearer_and_better == 1.0
    assert found.energy_ratio.value == pytest.approx(65 / 3, rel=0.02)


def test_a_cell_without_common_prompts_is_left_out_and_no_other(tmp_path: Path) -> None:
    frame = table(prompts=12, seeds=1, ladder=(2, 4, 8), variants=(("ladder", 1.0),))
    early = pl.col("prompt_id") < "p006"
    run = imported(frame.filter(pl.when(pl.col("steps") == 4).then(early).otherwise(~early)), tmp_path)
    evidence = evidence_of(run, draw(run, ["q"], 20), "q")
    assert set(contrasts(evidence, "ladder-002")) == {"ladder-008"}
    assert contrasts(evidence, "ladder-004") == {}


def test_a_quality_that_is_stated_for_a_cell_has_no_interval(tmp_path: Path) -> None:
    frame = table(prompts=12, seeds=1, ladder=(2, 4, 8), variants=(("ladder", 1.0),))
    stated = pl.when(pl.col("steps") == 4).then(0.25).otherwise(pl.col("quality:q")).alias("quality:q")
    run = imported(frame.with_columns(stated), tmp_path)
    evidence = evidence_of(run, draw(run, ["q"], 50), "q")
    found = contrasts(evidence, "ladder-002")
    assert (found["ladder-004"].quality.low, found["ladder-004"].quadrants) == (None, None)
    assert found["ladder-008"].quality.low is not None
    assert all(contrast.quality.low is None for contrast in contrasts(evidence, "ladder-004").values())
