from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest
from tests.support.reports import built, section

from perjoule.runs.columns import DRAWN
from perjoule_reports import build_report
from perjoule_reports.drawing.figures import panels
from perjoule_reports.evidence import read_evidence

pytestmark = pytest.mark.slow


def test_headline_names_the_cheapest_cell_that_is_not_resolved_as_worse(usual_report):
    report = usual_report
    words = r"25 steps cost (about half|5\d %) of the estimated energy of 50 steps \(.*\), with no loss of "
    assert re.match(words, report.headline.sentence)
    assert "paired by prompt" in report.headline.support[0]
    assert "does not exclude a loss of up to" in report.headline.support[0]


def test_headline_claims_nothing_when_no_difference_is_resolved(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=9, ladder=(40, 50), seeds=(1,), variants=("one",), metrics=("scene",))
    assert "cannot say what the extra joules buy" in build_report(run).headline.sentence


def test_headline_claims_nothing_from_a_handful_of_prompts(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=3, ladder=(2, 50), seeds=(1,), metrics=("scene",))
    assert build_report(run).headline.sentence.startswith("3 prompts with scores in two cells are too few")


def test_headline_of_a_full_reference_axis_speaks_of_closeness(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=8, ladder=(1, 12, 50), metrics=("iclip",))
    run = replace(run, suite=replace(run.suite, metrics=replace(run.suite.metrics, primary="iclip")))
    report = build_report(run)
    assert ", with similarity to the longest run at 0." in report.headline.sentence
    assert "not improvement" in report.headline.support[0]


def test_headline_respects_lower_is_better(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=12, ladder=(1, 25, 50), metrics=("blur",))
    run = replace(run, suite=replace(run.suite, metrics=replace(run.suite.metrics, primary="blur")))
    assert build_report(run).headline.sentence.startswith("25 steps cost")


def disturbed(run, *sentences):
    """The run, with warnings in its first trial and the others as they were."""
    rows = run.trials.to_dicts()
    rows[0]["warnings"] = [*rows[0]["warnings"], *sentences]
    return replace(run, trials=pl.DataFrame(rows, schema=run.trials.schema))


def one_window_per_cell(synthetic, run):
    """The same run, every cell metered in one window: what prompts cost apart from each other is then not known."""
    sums = ("energy_j", "uncertainty_j", "net_energy_j", "duration_s", "image_count")
    lists = ("prompts", "prompt_ids", "seeds", "steps", "image_sha256")
    rest = [c for c in run.trials.columns if c not in {*sums, *lists, "cell_id"}]
    trials = run.trials.group_by("cell_id", maintain_order=True).agg(
        *(pl.col(c).sum() for c in sums), *(pl.col(c).explode() for c in lists), *(pl.col(c).first() for c in rest)
    )
    return synthetic.summarised(replace(run, trials=trials.select(run.trials.columns)))


def test_one_window_per_cell_leaves_the_bound_of_the_meter(synthetic, small):
    run = one_window_per_cell(synthetic, small)
    assert run.points["energy_low"].null_count() == len(run.points)
    report, _, _ = built(run)
    assert "meter's own bound" in " ".join(report.headline.support)
    unbounded = run.trials.with_columns(uncertainty_j=pl.lit(None, pl.Float64))
    report, _, _ = built(synthetic.summarised(replace(run, trials=unbounded)))
    assert "no saving can be claimed" in report.headline.sentence
    assert "no interval" in report.headline.support[0]


def test_more_steps_for_fewer_joules_is_called_a_disturbance(synthetic, small):
    high = pl.when(pl.col("cell_id") == "tiny-teacher-012").then(900.0 * DRAWN).otherwise(pl.col("energy_j"))
    report, _, _ = built(synthetic.summarised(replace(small, trials=small.trials.with_columns(energy_j=high))))
    assert "12 steps cost 900 J per image and 50 steps only" in section(report, "warnings").paragraphs[0]
    assert "so a window was disturbed" in report.headline.beware[0]
    assert report.headline.beware[0].endswith("tiny-teacher-012, tiny-teacher-050 are not recommended.")


def test_empty_run(synthetic, small):
    run = small
    empty = {name: getattr(run, name).clear() for name in ("trials", "images", "scores", "points", "power")}
    report, _, _ = built(replace(run, **empty, metrics={}, prompts={}, environment={}))
    assert "no finished trials" in report.headline.sentence


def test_single_cell(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=1, ladder=(4,), seeds=(1,), variants=("only",), metrics=("scene",))
    report, _, _ = built(run)
    assert "there is no frontier" in report.headline.sentence
    assert section(report, "frontier").figures


def test_not_a_number_is_absent(synthetic, small):
    run = small
    broken = pl.when(pl.col("steps_mean") == 1).then(float("nan")).otherwise(pl.col("quality"))
    built(replace(run, points=run.points.with_columns(quality=broken)))


def test_missing_pictures_are_said_to_be_missing(small, tmp_path):
    run = replace(small, path=tmp_path)
    _, html, _ = built(run)
    assert "image missing" in html


def test_full_reference_metrics_and_unlike_boundaries_never_share_axes(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=2, ladder=(1, 4))
    split = run.points.with_columns(family=pl.col("variant"))
    evidence = read_evidence(replace(run, points=split))
    by_name = {axis.name: axis for axis in evidence.axes}
    assert len(panels(evidence, by_name["iclip"])) == 2
    assert len(panels(evidence, by_name["scene"])) == 1
    gpu = pl.when(pl.col("variant") == "tiny-student").then(pl.lit("gpu-board")).otherwise(pl.col("boundary"))
    evidence = read_evidence(replace(run, points=run.points.with_columns(boundary=gpu)))
    assert len(panels(evidence, by_name["scene"])) == 2


def test_every_section_says_how_to_read_it(usual_report):
    assert all(s.how_to_read for s in usual_report.shown)
