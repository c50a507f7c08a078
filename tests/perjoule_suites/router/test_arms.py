from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.support.routes import ARMS, route_run, route_table, texts
from tests.support.tables_of_runs import imported, rewrite

from perjoule.errors import EvidenceError, RunError, UnknownNameError
from perjoule.runs.directory import Run, load_run
from perjoule_suites.router.arms import read_arms, require_disjoint


def test_arms_are_in_the_order_of_their_joules(dev: Run) -> None:
    scores = read_arms(dev)
    assert [arm.cell_id for arm in scores.arms] == ["student-002", "teacher-002", "teacher-008"]
    assert [arm.steps for arm in scores.arms] == [2, 2, 8]
    assert scores.prices == pytest.approx([1, 2.5, 8], rel=0.01)
    assert [prompt.text for prompt in scores.prompts] == texts(60)
    assert scores.quality.shape == scores.energy_j.shape == (60, 2, 3)
    hard = np.array(["striped" in prompt.text for prompt in scores.prompts])
    assert scores.quality[hard].mean((0, 1)) == pytest.approx([0.4, 0.5, 0.9], abs=0.02)
    assert (scores.device, scores.provenance) == ("Board A", "measured")


def test_some_variants(dev: Run) -> None:
    assert [arm.cell_id for arm in read_arms(dev, variants=["teacher"]).arms] == ["teacher-002", "teacher-008"]
    with pytest.raises(UnknownNameError, match=r"did you mean 'teacher'"):
        read_arms(dev, variants=["techer"])
    with pytest.raises(EvidenceError, match=r"1 finished arms of fixed steps"):
        read_arms(dev, variants=["student"])


def test_full_reference_scores_never_compare_models(tmp_path: Path) -> None:
    run = imported(route_table(30), tmp_path, fidelity=["q"])
    with pytest.raises(EvidenceError, match=r"longest run of its own model.*student, teacher.*score an absolute one"):
        read_arms(run)
    assert len(read_arms(run, variants=["teacher"]).arms) == 2  # the arms of one model


def test_a_family_of_several_weights_is_several_models(tmp_path: Path) -> None:
    frame = route_table(30).with_columns(family=pl.lit("one"), model=pl.col("variant"))
    run = imported(frame, tmp_path, fidelity=["q"])
    assert set(run.families.values()) == {"one"}
    with pytest.raises(EvidenceError, match=r"longest run of its own model"):
        read_arms(run)


def test_lower_is_better(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"lower is better"):
        read_arms(imported(route_table(30), tmp_path, lower=["q"]))


def test_a_metric_that_is_not_in_the_run(dev: Run) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric of the run 'scene': known: q"):
        read_arms(dev, "scene")


def test_missing_scores_name_the_worst_arm(tmp_path: Path) -> None:
    late = (pl.col("steps") == 8) & (pl.col("prompt_id") == "p0003")
    frame = route_table(30).with_columns(pl.when(late).then(None).otherwise(pl.col("quality:q")).alias("quality:q"))
    with pytest.raises(EvidenceError, match=r"2 scores of q are missing or NaN, e\.g\. of teacher-008"):
        read_arms(imported(frame, tmp_path))


def test_missing_joules_name_the_arms(tmp_path: Path) -> None:
    known = pl.when(pl.col("steps") < 8).then(pl.col("energy_j")).alias("energy_j")
    with pytest.raises(EvidenceError, match=r"teacher-008 have no joules"):
        read_arms(imported(route_table(30).with_columns(known), tmp_path))


def test_prompts_without_texts(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"some prompts have no text.*add the column `prompt`"):
        read_arms(imported(route_table(30).drop("prompt"), tmp_path))


def test_arms_of_several_boards_are_not_pooled(tmp_path: Path) -> None:
    board = pl.when(pl.col("variant") == "student").then(pl.lit("Board A")).otherwise(pl.lit("Board B"))
    with pytest.raises(RunError, match=r"Board A, Board B"):
        read_arms(imported(route_table(30).with_columns(device=board), tmp_path))


def test_a_run_that_is_not_scored(tmp_path: Path) -> None:
    run = route_run(tmp_path, "run", 30)
    (run.path / "metrics.json").unlink()
    with pytest.raises(EvidenceError, match=r"not scored yet"):
        read_arms(load_run(run.path))


def test_shared_prompts() -> None:
    with pytest.raises(EvidenceError, match=r"1 prompts are in both runs/a and runs/b, e.g. 'y'"):
        require_disjoint(["x", "y"], ["y", "z"], ("runs/a", "runs/b"))
    require_disjoint(["x"], ["y"], ("runs/a", "runs/b"))


def test_the_weights_of_each_arm(tmp_path: Path) -> None:
    run = route_run(tmp_path, "run", 30)
    run = rewrite(run, "environment.json", lambda e: e["models"].update(imported="ab" * 32))
    assert {arm.digest for arm in read_arms(run).arms} == {"ab" * 32}
    assert len(ARMS) == 3
