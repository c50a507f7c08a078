from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest
from perjoule_reports import build_report, render_html, render_markdown
from perjoule_reports.evidence import read_evidence
from perjoule_reports.figures import panels

SMALL = {"prompts": 6, "ladder": (1, 4, 12, 50), "seeds": (1,)}


def rendered(run):
    report = build_report(run)
    html, markdown = render_html(report), render_markdown(report)
    visible = re.sub(r"<(script|style).*?</\1>|<svg.*?</svg>|data:image[^\"]*", "", html, flags=re.S)
    for text in (visible, markdown):
        assert not re.search(r"\b(nan|NaN|None|inf|Infinity|null)\b", text), re.search(r".{40}\b(nan|None|inf)\b", text)
    return report, html, markdown


def section(report, anchor):
    return next(s for s in report.sections if s.anchor == anchor)


def test_headline_names_the_cheapest_cell_that_is_not_resolved_as_worse(usual):
    report = build_report(usual)
    assert re.match(r"25 steps use 4\d % less estimated energy than 50 steps, with no loss", report.headline.sentence)
    assert "paired difference" in report.headline.support[0]
    assert "still allows a loss of up to" in report.headline.support[0]


def test_headline_claims_nothing_when_no_difference_is_resolved(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=3, ladder=(40, 50), seeds=(1,))
    assert "cannot say what the extra joules buy" in build_report(run).headline.sentence


def test_headline_of_a_full_reference_axis_speaks_of_closeness(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    run = replace(run, suite=replace(run.suite, metrics=replace(run.suite.metrics, primary="iclip")))
    report = build_report(run)
    assert "of that run" in report.headline.sentence
    assert "never improvement" in report.headline.support[0]


def test_headline_respects_lower_is_better(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=24, seeds=(1, 2))
    run = replace(run, suite=replace(run.suite, metrics=replace(run.suite.metrics, primary="blur")))
    assert build_report(run).headline.sentence.startswith("25 steps use")


def test_no_points(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    run = replace(run, points=run.points.clear(), scores=run.scores.clear(), metrics={})
    report, html, _ = rendered(run)
    assert "not measured" in report.headline.sentence.lower()
    assert "NOT MEASURED" in html
    assert len(section(report, "arms").tables[0].rows) == 8


def test_empty_run(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    empty = {name: getattr(run, name).clear() for name in ("trials", "images", "scores", "points", "power")}
    report, _, _ = rendered(replace(run, **empty, metrics={}, prompts={}, environment={}))
    assert "no finished trials" in report.headline.sentence
    bare = {name: pl.DataFrame() for name in empty}
    rendered(replace(run, **bare, metrics={}, prompts={}, environment={}))


def test_single_cell(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=1, ladder=(4,), seeds=(1,), variants=("only",))
    report, _, _ = rendered(run)
    assert "there is no frontier" in report.headline.sentence
    assert section(report, "frontier").figures


def test_energy_that_is_absent_is_never_zero(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    run = synthetic.summarised(
        replace(run, trials=run.trials.with_columns(pl.lit(None, dtype=pl.Float64).alias("energy_j")))
    )
    report, html, markdown = rendered(run)
    assert "Energy was not measured" in report.headline.sentence
    assert not section(report, "frontier").figures
    arms = section(report, "arms").tables[0]
    energies = [row[i].text for row in arms.rows for i, c in enumerate(arms.columns) if c.title == "energy"]
    assert set(energies) == {"not measured"}
    assert "J not measured" in html and "not measured" in markdown


def test_one_cell_without_energy_is_left_out_of_the_picture_only(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    lost = pl.when(pl.col("cell_id") == "tiny-teacher-012").then(None).otherwise(pl.col("energy_j"))
    run = synthetic.summarised(replace(run, trials=run.trials.with_columns(energy_j=lost)))
    report, html, _ = rendered(run)
    assert "tiny-teacher, 12 steps:" not in html
    assert len(section(report, "arms").tables[0].rows) == 8


def test_not_a_number_is_absent(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    broken = pl.when(pl.col("steps_mean") == 1).then(float("nan")).otherwise(pl.col("quality"))
    rendered(replace(run, points=run.points.with_columns(quality=broken)))


def test_failures_and_unscored_images_are_counted_with_their_reasons(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    first = pl.col("cell_id") == "tiny-teacher-001"
    run = replace(
        run,
        trials=run.trials.with_columns(failure=pl.when(first).then(pl.lit("out of memory"))),
        scores=run.scores.with_columns(
            value=pl.when(first).then(None).otherwise(pl.col("value")),
            reason_unscored=pl.when(first).then(pl.lit("no image")),
        ),
    )
    report, html, _ = rendered(synthetic.summarised(run))
    tables = {t.caption: t for t in section(report, "warnings").tables}
    assert [c.text for c in tables["Trials that failed"].rows[0]] == ["tiny-teacher-001", "6", "out of memory"]
    unscored = tables["Images without a score"].rows
    assert {row[0].text for row in unscored} == set(run.metrics)
    assert {row[2].text for row in unscored} == {"no image"}
    assert "W203" in html


def test_missing_pictures_are_said_to_be_missing(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    _, html, _ = rendered(run)
    assert "picture missing" in html


def test_full_reference_metrics_and_unlike_boundaries_never_share_axes(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    split = run.points.with_columns(family=pl.col("variant"))
    evidence = read_evidence(replace(run, points=split))
    by_name = {axis.name: axis for axis in evidence.axes}
    assert len(panels(evidence, by_name["iclip"])) == 2
    assert len(panels(evidence, by_name["scene"])) == 1
    gpu = pl.when(pl.col("variant") == "tiny-student").then(pl.lit("gpu-board")).otherwise(pl.col("boundary"))
    evidence = read_evidence(replace(run, points=run.points.with_columns(boundary=gpu)))
    assert len(panels(evidence, by_name["scene"])) == 2


def test_phases_are_shares_of_time(usual):
    report = build_report(usual)
    table = section(report, "phases").figures[0].data
    for row in table.rows:
        assert sum(cell.sort for cell in row[1:]) == pytest.approx(100)
    assert "not of joules" in section(report, "phases").how_to_read


def test_a_run_without_phases_has_no_such_section(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, **SMALL)
    report, _, _ = rendered(replace(run, trials=run.trials.with_columns(phases_s=pl.lit("{}"))))
    assert "phases" not in {s.anchor for s in report.sections}


def test_every_section_says_how_to_read_it(usual):
    assert all(s.how_to_read for s in build_report(usual).sections)
