"""Images with their own joules, and pairs of images in the order of their difference."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from perjoule_reports import format as fmt
from perjoule_reports.evidence import read_evidence
from perjoule_reports.shots import Shot, Side, deciding_axes, pairs, shots

pytestmark = pytest.mark.slow
JOULES = fmt.Scale(factor=1.0, unit="J")


def side(run, cell):
    return Side(run=run, arm=next(arm for arm in read_evidence(run).arms if arm.cell_id == cell))


def test_an_image_alone_in_its_windows_has_its_own_joules(small):
    second = small.trials.with_columns(pl.col("energy_j") * 3, block=pl.lit(1, pl.Int64))
    run = replace(small, trials=pl.concat([small.trials, second]))
    found = shots(side(run, "tiny-teacher-012"), None)
    assert len(found) == len(run.prompts)
    for (prompt, _), shot in found.items():
        own = run.trials.filter(pl.col("cell_id") == "tiny-teacher-012", pl.col("prompt_ids").list.first() == prompt)
        assert len(own) == 2
        assert shot.own_j == pytest.approx(own["energy_j"].mean())
        assert shot.joules(JOULES) == f"{fmt.number(shot.own_j)} J est., this image, 2 windows"


def test_images_that_share_a_window_have_the_mean_of_the_cell(usual):
    one = side(usual, "tiny-teacher-012")  # two seeds in each window
    for shot in shots(one, None).values():
        assert shot.own_j is None
        assert shot.joules(JOULES) == f"{fmt.interval(one.arm.energy, JOULES)[0]} J est., mean of the cell"


def test_iterations_of_a_window_draw_the_same_image(small):
    run = replace(small, trials=small.trials.with_columns(iterations=pl.lit(4, pl.Int64)))
    for prompt, shot in ((p, s) for (p, _), s in shots(side(run, "tiny-teacher-012"), None).items()):
        own = run.trials.filter(pl.col("cell_id") == "tiny-teacher-012", pl.col("prompt_ids").list.first() == prompt)
        assert shot.own_j == pytest.approx(own["energy_j"][0] / 4)


def test_pairs_run_from_the_worst_to_the_best_whatever_better_means(usual):
    test, anchor = side(usual, "tiny-student-001"), side(usual, "tiny-teacher-050")
    axes = {axis.name: axis for axis in read_evidence(usual).axes}
    up, down = (pairs(test, anchor, [axes[name]]) for name in ("scene", "blur"))
    assert len(up) == len(down) == 48
    assert [p.differences[0] for p in up] == sorted(p.differences[0] for p in up)
    assert [p.differences[0] for p in down] == sorted((p.differences[0] for p in down), reverse=True)
    assert not any(p.same for p in up)
    assert all(p.same and p.differences == (0.0,) for p in pairs(test, test, [axes["scene"]]))


def test_metrics_that_cannot_compare_two_families_do_not_rank_them(usual):
    evidence = read_evidence(usual)
    one, other = evidence.arms[0], replace(evidence.arms[-1], family="another")
    assert [a.name for a in deciding_axes(evidence, one, evidence.arms[-1])] == ["scene", "clip_text", "iclip"]
    assert [a.name for a in deciding_axes(evidence, one, other)] == ["scene", "clip_text"]


def test_the_mean_of_a_cell_says_over_which_step_counts(small):
    one = Side(run=small, arm=replace(read_evidence(small).arms[1], steps_spread=(3.0, 12.0)))
    shot = Shot(
        side=one, prompt_id="p", seed=1, steps=3, file="", sha256=None, score=None, own_j=None, windows=0
    )  # fmt: skip
    assert shot.joules(JOULES).endswith("mean of the cell, 3 to 12 steps")
