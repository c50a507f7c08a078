from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.perjoule.test_cli import call
from tests.support.histories import logged
from tests.support.stored_runs import stored_run

from perjoule import cli
from perjoule.errors import RunError
from perjoule.files import write_json_lines
from perjoule.gating.history import log_run
from perjoule.importing.conversion import import_table
from perjoule.runs.directory import Run
from perjoule_reports import render_index, write_index
from perjoule_reports.pages.index import read_folder
from perjoule_reports.pages.index_page import _part

ROWS = [
    {
        "variant": "ladder",
        "prompt_id": f"p{prompt}",
        "seed": 1,
        "steps": steps,
        "energy_j": 2.0 * steps + prompt / 10,
        "quality:q": 1 - 1 / steps + prompt / 100,
    }
    for steps in (2, 4, 8)
    for prompt in range(6)
]


def imported(folder: Path, name: str, day: int, *, factor: float = 1.0, key: str = "same", **environment) -> Path:
    table = folder.parent / f"{name}.parquet"
    pl.DataFrame(ROWS).with_columns(pl.col("energy_j") * factor).write_parquet(table)
    run = folder / name
    import_table(table, run)
    file = run / "environment.json"
    found = json.loads(file.read_text()) | {
        "created_utc": f"2026-01-{day:02d}T00:00:00+00:00",
        "comparability_key": key,
    }
    file.write_text(json.dumps(found | environment))
    suite = run / "suite.toml"
    suite.write_text(re.sub(r'(?m)^name = "[^"]*"$', 'name = "mine"', suite.read_text(), count=1))
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    runs.mkdir()
    imported(runs, "old", 1)
    imported(runs, "new", 3, factor=1.5)
    imported(runs, "elsewhere", 2, factor=4.0, key="other")
    return runs


def test_runs_of_a_suite_stand_together_oldest_first(folder):
    (suite,), broken = read_folder(folder)
    assert broken == ()
    assert [run.folder for run in suite.runs] == ["old", "elsewhere", "new"]
    assert suite.cell_id == "ladder-004"  # the middle of the ladder
    energies = [run.cells[suite.cell_id].energy.value for run in suite.runs]
    assert energies == pytest.approx([8.25, 4 * 8.25, 1.5 * 8.25])
    assert all(run.doubts == () for run in suite.runs)


def test_a_line_never_joins_runs_of_other_comparability(folder):
    page = render_index(folder)
    for picture in ("energy", "quality"):
        courses = dict(re.findall(rf'id="suite-0-{picture}-course-(\d)"><path d="([^"]*)"', page))
        places = {name: re.findall(r"[ML] ([\d.]+) ", path) for name, path in courses.items()}
        assert [len(p) for p in places.values()] == [2, 1]  # old and new in one line, elsewhere alone
        old, new = map(float, places["0"])
        assert old < float(places["1"][0]) < new


def test_partial_unscored_and_broken_runs_are_listed_with_the_reason(folder, small):
    torn = folder / "torn"
    shutil.copytree(folder / "old", torn)
    (torn / "environment.json").write_text('{"schema": 1,')
    (folder / "empty").mkdir()
    (folder / "empty" / "trials.jsonl").write_text("")
    (folder / "notes").mkdir()  # no run at all
    (folder / "unscored").mkdir()
    shutil.copytree(folder / "old", folder / "unscored", dirs_exist_ok=True)
    (folder / "unscored" / "points.parquet").unlink()
    suites, broken = read_folder(folder)
    reasons = {run.folder: run.reason for run in broken}
    assert set(reasons) == {"torn", "empty"}
    assert "environment.json" in reasons["torn"]
    assert "suite.toml or environment.json is missing" in reasons["empty"]
    assert next(run for run in suites[0].runs if run.folder == "unscored").doubts == ("not scored yet",)
    page = render_index(folder)
    assert "Runs that cannot be read" in page
    assert "notes" not in page
    assert "4 runs of 1 suite, 1 unfinished or with gaps, 2 unreadable" in page


def test_a_run_without_points_has_the_joules_of_its_trials(folder):
    """Interrupted or not scored yet: the joules are spent, and the page must show them."""
    (scored,), _ = read_folder(folder)
    (folder / "new" / "points.parquet").unlink()
    (folder / "new" / "scores.parquet").unlink()
    (suite,), broken = read_folder(folder)
    assert broken == ()
    before, after = (next(run for run in part.runs if run.folder == "new") for part in (scored, suite))
    assert after.doubts == ("not scored yet",)
    assert (after.provenance, after.boundary) == (before.provenance, before.boundary) == ("not stated", "")
    assert {cell: numbers.energy.value for cell, numbers in after.cells.items()} == pytest.approx(
        {"ladder-002": 1.5 * 4.25, "ladder-004": 1.5 * 8.25, "ladder-008": 1.5 * 16.25}
    )
    assert all(numbers.quality.value is None for numbers in after.cells.values())
    assert "no joules" not in render_index(folder)


def without_points(run: Run, rows: list[dict[str, Any]]) -> None:
    """Turn a run into one that was interrupted or not scored: with these trials, in the file of a run in progress."""
    for name in ("trials.parquet", "points.parquet", "scores.parquet", "metrics.json"):
        (run.path / name).unlink()
    write_json_lines(run.path / "trials.jsonl", rows)


def test_an_interrupted_run_has_joules_and_joins_no_line(tmp_path):
    """Its cells may lack prompts, so its means are not comparable."""
    runs = tmp_path / "runs"
    stored_run(runs / "whole")
    cut = stored_run(runs / "cut")
    (trial,) = cut.trials.filter(pl.col("energy_j").is_not_null()).head(1).to_dicts()
    without_points(cut, [trial])
    (suite,), _ = read_folder(runs)
    line = next(run for run in suite.runs if run.folder == "cut")
    assert line.counts == "1 trial, 1 cell"
    assert re.fullmatch(r"stopped after 1 of \d+ trials; not scored yet", "; ".join(line.doubts))
    images = trial["image_count"] * trial["iterations"]
    assert line.cells[trial["cell_id"]].energy.value == pytest.approx(trial["energy_j"] / images)
    assert line.provenance == trial["provenance"]
    assert line.boundary == trial["boundary"]
    assert len(suite.series()) == 2


def test_joules_that_cannot_be_averaged_are_absent_with_the_reason(tmp_path):
    run = stored_run(tmp_path / "mixed")
    rows = run.trials.to_dicts()
    rows[0]["energy_j"] = -1.0
    without_points(run, rows)
    (suite,), broken = read_folder(tmp_path)
    assert broken == ()
    assert "no joules: mixed: trial" in suite.runs[0].doubts[-1]


def test_a_run_without_joules_is_in_the_index_and_in_the_list(tmp_path, capsys):
    run = stored_run(tmp_path / "mixed")
    without_points(run, [row | {"energy_j": -1.0} for row in run.trials.to_dicts()])
    shutil.copytree(tmp_path / "mixed", tmp_path / "broken")
    (tmp_path / "broken" / "suite.toml").write_text("[")
    code, out, err = call("report", str(tmp_path), "--json", capsys=capsys)
    assert err == ""
    (problem,) = json.loads(out)["problems"]
    assert code == 0
    assert problem.startswith(str(tmp_path / "broken"))
    rows = json.loads(call("list", "runs", str(tmp_path), "--json", capsys=capsys)[1])["runs"]
    listed, broken = rows
    assert (listed["problem"], listed["suite"], listed["done"]) == (None, run.suite.name, len(run.trials))
    assert listed["provenance"] is None
    assert broken["problem"]


def test_links_lead_to_reports_that_exist(folder):
    (folder / "old" / "report.html").write_text("x")
    page = render_index(folder)
    assert re.findall('<a href="([^"]*)"', page) == ["./old/report.html"]
    assert '<a href="./old/report.html">old</a>' in page
    assert "perjoule report new" in page


def test_equal_folders_give_equal_bytes(folder):
    assert render_index(folder) == render_index(folder)


def test_the_command_tells_a_folder_of_runs_from_a_run(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["perjoule", "report", str(folder), "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == [str(folder / "index.html")]
    assert (folder / "index.html").read_text("utf-8") == render_index(folder)


def test_a_folder_without_runs_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RunError, match="contains no runs"):
        write_index(tmp_path, tmp_path / "index.html")


def test_hostile_names_stay_text(tmp_path, synthetic):
    runs = tmp_path / "runs"
    runs.mkdir()
    name = 'javascript:alert(1)"><img src=x onerror=alert(1)>'
    run = imported(runs, "plain", 1)
    run.rename(runs / name)
    (runs / name / "report.html").write_text("x")
    (runs / name / "result.json").write_text(json.dumps({"headline": "".join(synthetic.HOSTILE)}))
    page = render_index(runs)
    assert "<img" not in page
    assert 'href="./javascript%3Aalert%281%29%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E/report.html"' in page
    assert page.count("<script") == 1


def test_a_gate_that_did_not_pass_is_marked(folder):
    (folder / "new" / "result.json").write_text(json.dumps({"headline": "It costs more.", "verdict": "fail"}))
    (folder / "old" / "result.json").write_text(json.dumps({"headline": "Half.", "verdict": "no-gate"}))
    page = render_index(folder)
    assert "3 runs of 1 suite, 1 gate not passed" in page
    assert page.count('<tr class="failed">') == 1
    row = page.split('<tr class="failed">')[1].split("</tr>")[0]
    assert "new" in row
    assert "FAIL" in row
    assert "NO GATE" not in page


def test_other_prompts_are_not_joined(folder):
    file = folder / "new" / "images.parquet"
    pl.read_parquet(file).filter(pl.col("prompt_id") != "p0").write_parquet(file)
    (suite,), _ = read_folder(folder)
    sets = {run.folder: run.prompt_set for run in suite.runs}
    assert sets["old"] == sets["elsewhere"] != sets["new"]
    courses = dict(re.findall(r'id="suite-0-energy-course-(\d)"><path d="([^"]*)"', render_index(folder)))
    assert [len(re.findall("[ML] ", path)) for path in courses.values()] == [1, 1, 1]


def test_tables_that_were_imported_once_are_one_group(folder):
    for name in ("alpha", "beta"):
        run = imported(folder, name, 4)
        text = (run / "suite.toml").read_text()
        (run / "suite.toml").write_text(text.replace('name = "mine"', f'name = "{name}"', 1))
    suites, _ = read_folder(folder)
    assert [(suite.title, len(suite.runs)) for suite in suites if not suite.suite] == [("Imported tables", 2)]
    page = render_index(folder)
    assert "5 runs of 1 suite and 2 imported tables" in page
    assert page.count("<figcaption>") == 2  # the curves of the suite; titles are texts of the page


def test_a_name_of_a_folder_is_one_word_of_the_command_and_no_address(tmp_path):
    """Folders come from archives of others; the command is copied into a shell."""
    names = ["x; touch sprung", "javascript:alert(1)", os.fsdecode(b"caf\xe9 $(touch sprung)")]
    run = imported(tmp_path / "aside", "run", 1)
    for name in names:
        shutil.copytree(run, tmp_path / "runs" / name)
    suites, broken = read_folder(tmp_path / "runs")
    assert not broken
    (part,) = [_part(suite, "a") for suite in suites]
    for row in part.rows:
        assert len(shlex.split(row.command)) == 3
    (tmp_path / "runs" / names[2] / "report.html").write_text("")
    (tmp_path / "runs" / names[1] / "report.html").write_text("")
    suites, _ = read_folder(tmp_path / "runs")
    found = {row.href for suite in suites for row in _part(suite, "a").rows}
    assert found == {"", "./javascript%3Aalert%281%29/report.html", "./caf%E9%20%24%28touch%20sprung%29/report.html"}


def history_of(file: Path, factors) -> Path:
    for week, factor in enumerate(factors):
        wobble = 1 + 0.002 * ((7 * week) % 5)
        log_run(logged(week, [100.0 * factor * wobble, 300.0 * factor * wobble], [0.3, 0.31]), file)
    return file


def test_the_trend_of_a_history_is_drawn_with_its_mark(folder, tmp_path):
    file = history_of(tmp_path / "history.jsonl", [1.0] * 10 + [1.05] * 10)
    page = render_index(folder, file)
    assert page == render_index(folder, file)
    assert "1 trend for the worse" in page
    assert "WORSE" in page
    assert "at the run of 2026-03-16, commit 0000010." in page
    assert page.count('id="trend-0-energy-change-0"') == 1
    assert 'id="trend-0-quality-change-0"' not in page  # only energy changed
    xs = [
        float(x)
        for x in re.findall(r"[ML] ([\d.]+) ", re.findall(r'id="trend-0-energy-runs"><path d="([^"]*)"', page)[0])
    ]
    (mark,) = {
        float(x)
        for x in re.findall(
            r"[ML] ([\d.]+) ", re.findall(r'id="trend-0-energy-change-0"[^>]*>.*?<path d="([^"]*)"', page)[0]
        )
    }
    assert len(xs) == 20
    assert mark == pytest.approx(xs[10], abs=0.5)


def test_a_stable_history_has_no_mark(folder, tmp_path):
    page = render_index(folder, history_of(tmp_path / "history.jsonl", [1.0] * 12))
    assert "STABLE" in page
    assert "No change in 12 runs over 11 weeks." in page
    assert "-change-0" not in page
    assert "for the worse" not in page


def test_a_damaged_history_is_listed_and_the_rest_is_shown(folder, tmp_path):
    file = history_of(tmp_path / "history.jsonl", [1.0])
    file.write_text(file.read_text() + "{\n")
    page = render_index(folder, file)
    assert "line 2: damaged" in page
    assert "3 runs of 1 suite, 1 unreadable" in page


def test_hostile_histories_stay_text(folder, tmp_path, synthetic):
    words = "".join(synthetic.HOSTILE).replace("\x00", "")
    log_run(logged(0, [1.0], suite=words, device=words, commit=words), tmp_path / "history.jsonl")
    log_run(logged(1, [1.0], suite=words, device=words, metric=words), tmp_path / "history.jsonl")
    page = render_index(folder, tmp_path / "history.jsonl")
    assert "<img" not in page
    assert page.count("<script") == 1


def test_what_is_not_in_the_index_is_printed(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("report", "runs", capsys=capsys)
    assert (code, out, err) == (0, "runs/index.html\n", "")
    (tmp_path / ".perjoule").mkdir()
    (tmp_path / ".perjoule" / "history.jsonl").write_text("3\n")
    (folder / "old" / "suite.toml").write_text("[")
    code, out, err = call("report", "runs", capsys=capsys)
    assert (code, out) == (0, "runs/index.html\n")
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("perjoule: not in the index: runs/old/suite.toml: ")
    assert lines[1].startswith("perjoule: not in the index: .perjoule/history.jsonl, line 1: damaged")
    problems = json.loads(call("report", "runs", "--json", capsys=capsys)[1])["problems"]
    assert [f"perjoule: not in the index: {problem}" for problem in problems] == lines
