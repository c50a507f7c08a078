from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tests.support.reports import built, section
from tests.support.tables_of_runs import imported, table

from perjoule.gating.recommend import recommend
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


def test_headline_of_a_single_cell_begins_with_a_capital_letter(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=9, ladder=(8,), seeds=(1,), variants=("one",), metrics=("scene",))
    variant = replace(run.suite.variants[0], label="the small model")
    labelled = replace(run, suite=replace(run.suite, variants=(variant,)))
    assert build_report(labelled).headline.sentence.startswith("The small model at 8 steps costs ")


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


def equally_long(tmp_path, gap):
    """Three cells of 32 steps near the bound of their metric; the most expensive one is the worst."""
    chance = np.random.default_rng(5)
    rows = [
        {"variant": name, "prompt_id": f"p{i}", "seed": 1, "steps": steps, "energy_j": cost * steps * (1 + i / 99),
         "provenance": "measured", "quality:share": min(1.0, value - 0.2 * (steps == 8) + 1e-4 * chance.normal())}
        for name, cost, value in (("a", 1.0, 0.998), ("b", 2.0, 0.998 - gap), ("c", 3.0, 0.998 - 2 * gap))
        for steps in (8, 32)
        for i in range(30)
    ]  # fmt: skip
    return imported(pl.DataFrame(rows), tmp_path, bounds={"share": (0.0, 1.0)})


def test_of_equally_long_runs_the_best_is_the_anchor(tmp_path):
    run = equally_long(tmp_path, 0.002)
    report = build_report(run)
    assert report.headline.anchor == "a-032"
    assert "a-032" in recommend(run)["floor_from"]
    assert "the longest run" not in " ".join((report.headline.sentence, *report.headline.deploy))


@pytest.mark.parametrize(("gap", "saturated"), [(0.002, False), (0.0, True)])
def test_a_metric_near_its_bound_is_saturated_only_if_it_resolves_nothing(gap, saturated, tmp_path):
    beware = build_report(equally_long(tmp_path, gap)).headline.beware
    assert any("at its bound" in line for line in beware) == saturated


def test_all_joules_of_a_page_have_one_unit(tmp_path):
    frame = table(prompts=12, seeds=1, ladder=(2, 8, 64, 128)).with_columns(pl.col("energy_j") * 20)
    report = build_report(imported(frame, tmp_path))
    units = set(re.findall(r"[\d.] (k?J) per image", " ".join((*report.headline.deploy, *report.glance.remark))))
    units |= {tile.detail.split(" per image")[0].split()[-1] for tile in report.headline.tiles[:1]}
    (energy, *_) = [c.unit for c in section(report, "arms").tables[0].columns if c.title == "energy"]
    assert units == {energy.split("/")[0]}


def test_odd_cells_are_mentioned_where_all_cells_are_meant(tmp_path):
    """A ladder whose 8 steps cost more than its 16 steps: both are left out."""
    frame = table(prompts=30, seeds=1, ladder=(4, 8, 16, 32), variants=(("m", 1.0),))
    odd = pl.when(pl.col("steps") == 8).then(2.5).otherwise(1.0)
    report = build_report(imported(frame.with_columns(pl.col("energy_j") * odd * 1.2), tmp_path))
    assert len(report.headline.beware) > 0
    assert report.headline.sentence.startswith("Apart from 2 odd cells, every cheaper cell scores worse"), (
        report.headline.sentence
    )


def test_every_section_says_how_to_read_it(usual_report):
    assert all(s.how_to_read for s in usual_report.shown)
