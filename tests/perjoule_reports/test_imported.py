"""The report of an imported run says only what its table states."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
from tests.support.tables_of_runs import imported, table

from perjoule.gating import GateConfig
from perjoule.running.reporting import ReportRequest
from perjoule.runs.directory import Run
from perjoule_reports.content import build_report
from perjoule_reports.pages.html import render_html
from perjoule_reports.pages.index import read_folder
from perjoule_reports.pages.markdown import render_markdown
from perjoule_reports.pages.schema import result_schema
from perjoule_reports.records import Report

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"prompts": 12, "ladder": (2, 4, 8, 16)}
# what perjoule knows of its own runs alone
INVENTED = (
    "shuffled order", "order seed", "warm-up", "are the images that were metered", "no human ratings", "was metered",
    "outside every energy window", "of rest before each window", "idle power", "window was disturbed",
    "idle machine", "the meter's own bound", "one window per cell", "wall time of the windows", "gross energy",
    "joules of the predictor are included", "pipeline calls of up to", "is the reference itself", "99.5 % of windows",
    "what was actually done", "the command was not recorded", "seconds of rest",
)  # fmt: skip


def plain(**options: Any) -> pl.DataFrame:
    """A table that does not state how its joules were obtained."""
    return table(**options).drop("provenance")


def words_of(report: Report) -> str:
    """All that a reader can read, the columns' hints among it."""
    html = render_html(report)
    visible = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    return visible + render_markdown(report)


def stated(**columns: str) -> pl.DataFrame:
    return plain(**SMALL).with_columns(pl.lit(value).alias(name) for name, value in columns.items())


RUNS = {
    "usual": plain(**SMALL),
    "measured": stated(provenance="measured", boundary="system").with_columns(uncertainty_j=pl.col("energy_j") * 0.3),
    "cell values": plain(**SMALL).with_columns(pl.col("quality:q", "energy_j").mean().over("variant", "steps")),
    "odd": plain(**SMALL).with_columns(energy_j=1000 / pl.col("steps")),
    "few": plain(**{**SMALL, "prompts": 3}),
    "adaptive": pl.concat(
        [
            plain(**SMALL, variants=(("ladder", 1.0),)).with_columns(role=pl.lit("fixed"), family=pl.lit("m")),
            plain(prompts=12, ladder=(4,), variants=(("policy", 1.0),)).with_columns(
                role=pl.lit("predicted"), family=pl.lit("m")
            ),
        ]
    ),
    "fidelity": plain(**SMALL).rename({"quality:q": "quality:lpips"}),
    "joules": plain(**SMALL).drop("quality:q"),
    "quality": plain(**SMALL).drop("energy_j", "duration_s"),
    "no steps": plain(prompts=12, ladder=(8,)).drop("steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_invented(tmp_path: Path, name: str) -> None:
    run = imported(RUNS[name], tmp_path)
    report = build_report(run)
    words = words_of(report)
    assert [phrase for phrase in INVENTED if phrase in words] == []
    jsonschema.validate(json.loads(json.dumps(report.payload)), result_schema())
    for section in report.shown:
        assert section.how_to_read, section.anchor
        assert section.sample, section.anchor
        assert section.interval, section.anchor
        assert section.change, section.anchor


def test_a_run_of_our_own_does_say_these_things(usual_report: Report) -> None:
    words = words_of(usual_report)
    said = [phrase for phrase in INVENTED if phrase in words]
    assert {"shuffled order", "warm-up", "are the images that were metered", "no human ratings"} <= set(said)


def test_what_is_not_stated_is_branded_on_every_surface(tmp_path: Path) -> None:
    run = imported(plain(**SMALL), tmp_path)
    report = build_report(run)
    html, markdown = render_html(report), render_markdown(report)
    assert '<body class="not-stated">' in html
    assert html.count("PROVENANCE NOT STATED") >= 4  # band, axes of three figures
    assert "> **PROVENANCE NOT STATED**" in markdown
    assert "MEASURED" not in re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    assert "energy of unstated provenance" in report.headline.sentence or "energy" not in report.headline.sentence
    arms = next(section for section in report.sections if section.anchor == "arms").tables[0]
    assert {row[1].brand for row in arms.rows} == {"n.s."}
    assert report.payload["provenance"] == "not stated"
    assert {cell["provenance"] for cell in report.payload["cells"]} == {"not stated"}
    assert any(line.startswith("W280: ") for line in report.headline.beware)
    notes = next(section for section in report.sections if section.anchor == "warnings").tables[0]
    assert notes.rows[0][0].text == "W280"


def test_an_unknown_duration_is_absent_in_table_and_result(tmp_path: Path) -> None:
    report = build_report(imported(plain(**SMALL).drop("duration_s"), tmp_path))
    arms = next(section for section in report.sections if section.anchor == "arms").tables[0]
    titles = [column.title for column in arms.columns]
    for name in ("time", "power"):
        assert {row[titles.index(name)].text for row in arms.rows} == {"–"}
        assert {row[titles.index(name)].brand for row in arms.rows} == {""}
    for cell in report.payload["cells"]:
        assert cell["duration_s_per_image"] is cell["mean_power_w"] is cell["nfe_mean"] is None


def test_the_result_holds_no_setting_that_nobody_stated(tmp_path: Path) -> None:
    suite = build_report(imported(plain(**SMALL), tmp_path)).payload["suite"]
    assert set(suite["protocol"]) == {"seeds"}
    assert set(suite["variants"][0]) == {"name", "role", "policy", "family", "model", "steps", "batch_size"}
    assert suite["variants"][0]["model"] is None


def test_a_verdict_on_tables_counts_rows_and_names_the_table(tmp_path: Path) -> None:
    run = imported(plain(**SMALL), tmp_path)
    candidate = imported(plain(**SMALL, seed=1, factor=1.02), tmp_path, "candidate")
    report = build_report(candidate, ReportRequest(baseline=run, gate=GateConfig(margin_quality=0.1)))
    words = words_of(report)
    assert "Baseline: imported from " in words
    assert "prompts of one window" not in words
    gate = next(section for section in report.sections if section.anchor == "gate").tables[0]
    assert gate.columns[-1].title == "rows"


def test_a_saving_and_its_interval_have_the_same_sign(tmp_path: Path) -> None:
    tile = build_report(imported(plain(**SMALL), tmp_path)).headline.tiles[0]
    assert (tile.label, tile.value[0]) == ("energy per image", "−")
    assert re.fullmatch(r"\[−[\d.]+ %, −[\d.]+ %\] [\d.]+ → [\d.]+ J per image", tile.detail)


def test_joules_alone_have_no_column_about_the_frontier(tmp_path: Path) -> None:
    report = build_report(imported(RUNS["joules"], tmp_path))
    arms = next(section for section in report.sections if section.anchor == "arms").tables[0]
    assert "frontier" not in [column.title for column in arms.columns]
    assert {len(row) for row in arms.rows} == {len(arms.columns)}


def test_the_badge_names_every_kind_of_interval(tmp_path: Path) -> None:
    report = build_report(imported(plain(**SMALL), tmp_path))
    assert (
        next(badge for badge in report.badges if badge.label == "intervals").value
        == "95 % paired bootstrap, Student's t"
    )


def test_cell_values_are_said_to_be_such(tmp_path: Path) -> None:
    report = build_report(imported(RUNS["cell values"], tmp_path))
    assert report.headline.sentence.startswith(
        "The table gives one q for each cell, so differences in q may be due to chance"
    )
    assert report.headline.test == ""
    assert any(line.startswith("W281: the table gives a single q") for line in report.headline.beware)
    assert any(line.startswith("W281: the table gives a single energy") for line in report.headline.beware)
    assert not [figure for section in report.sections if section.anchor == "prompts" for figure in section.figures]
    assert '"attainment"' not in render_html(report)  # the band of the draws
    assert next(badge for badge in report.badges if badge.label == "intervals").value == "none"
    arms = next(section for section in report.sections if section.anchor == "arms").tables[0]
    assert not [row for row in arms.rows for cell in row if "[" in cell.detail]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("joules", "The table states no quality: its 8 cells cost 2.379 to 16.95 J"),
        ("quality", "The table states no energy, so no cost can be stated."),
    ],
)
def test_half_a_table_says_which_half_is_missing(tmp_path: Path, name: str, sentence: str) -> None:
    report = build_report(imported(RUNS[name], tmp_path))
    assert report.headline.sentence.startswith(sentence)
    assert "0 J" not in report.headline.sentence


def test_steps_that_are_not_known_have_no_longest_run(tmp_path: Path) -> None:
    words = unescape(words_of(build_report(imported(RUNS["no steps"], tmp_path))))
    words = re.sub(r"</?abbr[^>]*>", "", words)  # terms with a tooltip
    assert "unstated steps" not in words
    assert "longest run" not in words.replace("anchor's longest run", "").replace("ladder's longest run", "")


def test_a_pool_of_provenances_is_warned_of(tmp_path: Path) -> None:
    frame = plain(**SMALL).with_columns(
        provenance=pl.when(pl.col("seed") == 1).then(pl.lit("measured")).otherwise(pl.lit("simulated"))
    )
    report = build_report(imported(frame, tmp_path))
    assert report.provenance == "simulated"
    assert any("pool joules of several provenances" in line for line in report.headline.beware)


def test_the_index_brands_it_too(tmp_path: Path) -> None:
    run: Run = imported(plain(**SMALL), tmp_path)
    suites, broken = read_folder(tmp_path)
    assert not broken
    line = suites[0].runs[0]
    assert (line.folder, line.provenance, line.trials_planned) == (run.path.name, "not stated", None)
