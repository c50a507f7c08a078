"""What each section says, and what it says when there is nothing to say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.support.reports import SMALL, rendered, section
from tests.support.tables_of_runs import imported, table

from perjoule.gating.records import GateConfig
from perjoule.running.reporting import ReportRequest
from perjoule.runs.directory import Run
from perjoule_reports import build_report, render_markdown, write_report
from perjoule_reports.records import Report

pytestmark = pytest.mark.slow

ORDER = (
    "gate", "choose", "pictures", "frontier", "arms", "warnings", "adaptation", "curves", "prompts", "phases", "power",
    "noise", "system", "method", "data",
)  # fmt: skip


def test_sections_stand_in_the_order_of_the_reader(report: Report) -> None:
    assert tuple(s.anchor for s in report.sections) == ORDER
    rendered(report)


def test_every_figure_has_a_table_and_says_what_its_joules_are(usual_report: Report) -> None:
    figures = [f for s in usual_report.sections for f in s.figures]
    assert len(figures) > 5
    for figure in figures:
        assert figure.data is not None, figure.name
        assert figure.data.rows, figure.name
        for svg in filter(None, (figure.svg, figure.narrow)):
            assert "<title" in svg
            assert "<desc" in svg
            if "energy" in re.sub(r"<(title|desc)[^>]*>.*?</\1>", "", svg):
                assert "ESTIMATED" in svg, figure.name


class TestDegenerate:
    def test_zero_trials(self, run: Run, synthetic, small) -> None:
        empty = {n: getattr(small, n).clear() for n in ("trials", "images", "scores", "points", "power")}
        report = build_report(replace(small, **empty, metrics={}))
        assert "no finished trials" in report.headline.sentence
        assert not any(s.figures for s in report.sections)
        rendered(report)

    def test_all_trials_failed(self, synthetic, small) -> None:
        trials = small.trials.with_columns(failure=pl.lit("out of memory"), energy_j=pl.lit(None, pl.Float64))
        broken = replace(small, trials=trials, scores=small.scores.clear(), points=small.points.clear(), metrics={})
        report = build_report(broken)
        assert "not measured" in report.headline.sentence
        assert any("48 trials failed" in said for said in report.headline.beware)
        text = rendered(report)
        assert "out of memory" in text
        assert not section(report, "frontier").figures

    def test_a_single_arm(self, tmp_path: Path) -> None:
        run = imported(table(prompts=12, seeds=1, ladder=(2, 8, 32), variants=(("ladder", 1.0),)), tmp_path)
        report = build_report(run)
        assert len(section(report, "arms").tables) == 1
        assert section(report, "curves").empty == "two curves that share a quality"
        assert section(report, "curves") not in report.shown
        rendered(report)

    def test_a_single_prompt(self, tmp_path: Path) -> None:
        report = build_report(imported(table(prompts=1, seeds=2, ladder=(2, 8, 32, 64)), tmp_path))
        assert "too few" in report.headline.sentence
        assert not section(report, "prompts").figures
        rendered(report)

    def test_a_single_cell_and_prompt(self, tmp_path: Path) -> None:
        frame = table(prompts=1, seeds=1, ladder=(8,), variants=(("ladder", 1.0),))
        report = build_report(imported(frame, tmp_path))
        assert "there is no frontier" in report.headline.sentence
        rendered(report)

    def test_a_run_that_is_still_going(self, small) -> None:
        part = small.trials.head(20)
        going = replace(
            small, trials=part, images=small.images.clear(), scores=small.scores.clear(), points=small.points.clear(),
            metrics={},
        )  # fmt: skip
        report = build_report(going)
        assert any("INCOMPLETE" in badge.value for badge in report.badges)
        assert report.headline.beware[0].startswith("INCOMPLETE: 20 of 48")
        again = "perjoule run RUN/suite.toml --out RUN --resume"
        assert f"continue it with {again}" in section(report, "warnings").paragraphs[0]
        for command, words in (
            (["perjoule", "run", "mine", "--meter", "estimate", "--max-joules", "3"], f"{again} --meter estimate."),
            (["perjoule", "gate", "--junit", "/etc/passwd"], "its own command and --resume."),
        ):
            asked = build_report(replace(going, environment={**small.environment, "command": command}))
            assert section(asked, "warnings").paragraphs[0].endswith(f"continue it with {words}")
        energies = [row[1] for row in section(report, "arms").tables[0].rows]
        assert all(cell.sort and cell.brand == "est." for cell in energies)
        rendered(report)

    def test_an_imported_run_has_no_phases_pictures_or_power(self, report: Report) -> None:
        for anchor in ("phases", "pictures", "power"):
            assert not section(report, anchor).figures
            assert section(report, anchor).empty in report.absent
        assert "imported" in section(report, "noise").paragraphs[0]

    def test_joules_of_zero_are_refused_with_words(self, small) -> None:
        broken = small.trials.with_columns(energy_j=pl.lit(0.0))
        report = build_report(replace(small, trials=broken, points=small.points.clear()))
        assert any("energy_j = 0.0" in said for said in section(report, "warnings").paragraphs)

    def test_unscored_metric(self, synthetic, small) -> None:
        scores = small.scores.with_columns(value=pl.lit(None, pl.Float64), reason_unscored=pl.lit("no weights"))
        report = build_report(synthetic.summarised(replace(small, scores=scores)))
        assert "have not been scored" in report.headline.sentence
        assert "no weights" in rendered(report)
        assert not section(report, "frontier").figures


def test_a_metric_at_its_bound_is_called_blind(synthetic, small) -> None:
    scores = small.scores.with_columns(value=pl.when(pl.col("cell_id").str.ends_with("001")).then(0.4).otherwise(1.0))
    report = build_report(synthetic.summarised(replace(small, scores=scores)))
    assert any("is at its bound (1.00) in 4 of 6 cells" in said for said in report.headline.beware)
    assert "no difference. All " in report.headline.support[0]
    assert "up to 0" not in report.headline.support[0]


def test_equal_input_gives_equal_bytes_with_a_gate(run: Run, tmp_path: Path) -> None:
    candidate = imported(table(**SMALL, seed=1), tmp_path, "candidate")
    bytes_ = []
    for name in ("one", "two"):
        request = ReportRequest(baseline=Run(path=run.path), gate=GateConfig(margin_quality=0.1))
        files = write_report(Run(path=candidate.path), tmp_path / name, request)
        bytes_.append([file.read_bytes() for file in files])
    assert bytes_[0] == bytes_[1]


def test_the_twin_fits_a_pull_request(run: Run, report: Report) -> None:
    long = replace(report, sections=report.sections * 10)
    text = render_markdown(long)
    assert len(text.encode()) <= 60_000
    assert "the HTML report contains the rest" in text
