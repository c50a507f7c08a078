"""The safe choice: the same in the section, in the advice, in the result and from `perjoule recommend`."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.support.reports import SMALL, section
from tests.support.synthetic import SyntheticRun
from tests.support.tables_of_runs import imported, rewrite, table

from perjoule import cli
from perjoule.gating.recommend import recommend
from perjoule.runs.directory import Run
from perjoule_reports import build_report
from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_the_choice_is_what_recommend_chooses(run: Run, report: Report) -> None:
    choices = report.payload["choices"]
    assert choices["margin"] is None
    asked = recommend(run, min_quality=choices["floor"] - 1e-6)
    assert choices["chosen"] == asked["safe"]["cell_id"]
    assert asked["safe"]["p_meets"] >= 0.9
    kept = {option["cell_id"]: option["quality_kept"] for option in choices["options"]}
    energies = [cell["energy_j_per_image"]["value"] for cell in report.payload["cells"]]
    assert len(kept) == len(energies)
    assert kept[choices["chosen"]] >= choices["floor"]


def test_odd_joules_are_in_beware_and_not_in_the_advice(tmp_path: Path) -> None:
    """The longest run of a ladder and its safe choice cost less than shorter runs."""
    frame = table(**SMALL)
    usual = build_report(imported(frame, tmp_path, "usual"))
    chosen = usual.payload["choices"]["chosen"]
    variant, steps = chosen.rsplit("-", 1)
    odd = (pl.col("variant") == variant) & (pl.col("steps") == int(steps))
    run = imported(frame.with_columns(energy_j=pl.when(odd).then(0.01).otherwise(pl.col("energy_j"))), tmp_path, "odd")
    report = build_report(run)
    sentence = f"More steps cannot cost less: check the table. {chosen} is not recommended."
    assert any(line.endswith(sentence) for line in report.headline.beware)
    assert any(line.endswith(sentence) for line in section(report, "warnings").paragraphs)
    choices = report.payload["choices"]
    assert chosen not in {option["cell_id"] for option in choices["options"]}
    assert chosen not in {report.headline.test, report.headline.anchor}
    asked = recommend(run, min_quality=choices["floor"] - 1e-6)
    assert choices["chosen"] == asked["safe"]["cell_id"] != chosen


def test_without_the_longest_run_the_anchor_has_its_name(tmp_path: Path) -> None:
    frame = table(**SMALL, variants=(("ladder", 1.0),))
    odd = pl.col("steps") == 64
    run = imported(frame.with_columns(energy_j=pl.when(odd).then(0.01).otherwise(pl.col("energy_j"))), tmp_path)
    report = build_report(run)
    assert report.headline.anchor == "ladder-032"
    words = " ".join((report.headline.sentence, *report.headline.support, *report.headline.deploy))
    assert "the longest run" not in words
    assert "32 steps" in words


def test_the_table_has_a_row_for_every_floor(report: Report) -> None:
    """Each row keeps more than the cheaper ones, and the best floor of all is in it."""
    (found,) = section(report, "choose").tables
    kept = [row[1].sort or 0.0 for row in found.rows]
    energies = [row[2].sort or 0.0 for row in found.rows]
    assert kept == sorted(kept)
    assert energies == sorted(energies)
    options = report.payload["choices"]["options"]
    assert kept[-1] == pytest.approx(max(option["quality_kept"] for option in options), rel=1e-4)
    (marked,) = found.marked
    floor = report.payload["choices"]["floor"]
    assert kept[marked] >= floor - 1e-6
    assert all(value < floor for value in kept[:marked])


def test_what_the_table_prints_is_kept(report: Report) -> None:
    """Qualities are rounded down and joules up, at the most by one in the last place."""
    (found,) = section(report, "choose").tables
    kept = {option["cell_id"]: option for option in report.payload["choices"]["options"]}
    assert found.rows
    for row in found.rows:
        option = next(o for o in kept.values() if o["quality_kept"] == pytest.approx(row[1].sort, rel=1e-5))
        for cell, value, sign in ((row[1], option["quality_kept"], 1), (row[3], option["energy_j_kept"], -1)):
            lost = sign * (value - float(cell.text))
            assert -1e-5 * value <= lost <= 10.0 ** -len(cell.text.partition(".")[2])


def test_the_advice_names_the_choice_with_its_code(small: SyntheticRun) -> None:
    report = build_report(small)
    chosen = report.payload["choices"]["chosen"]
    steps = int(chosen.rpartition("-")[2])
    assert f"at {steps} step" in report.headline.deploy[0]
    assert "in 90 % of the draws" in report.headline.deploy[1]
    assert f"num_inference_steps={steps}" in report.headline.call
    code = {option["cell_id"]: option["code"] for option in report.payload["choices"]["options"]}
    assert code[chosen] == report.headline.call


def suggested(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, Any]:
    """The result of the command that the page of a run suggests, and the result of the page."""
    page = tmp_path / "page.html"
    assert executed(["report", str(run.path), "--out", str(page), "--json"], monkeypatch) == 0
    result = json.loads((tmp_path / "page.json").read_text())
    capsys.readouterr()
    command = re.search(r"or perjoule (recommend .*)\.$", "\n".join(result["deploy"]), flags=re.M)
    assert command
    monkeypatch.chdir(run.path.parent)  # the page names the run without its folders
    assert executed([*shlex.split(command[1]), "--json"], monkeypatch) == 0
    return json.loads(capsys.readouterr().out), result


def executed(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr("sys.argv", ["perjoule", *argv])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_the_command_on_the_page_makes_the_choice_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two families under a full-reference metric, and a folder whose name has a blank."""
    run = imported(table(**SMALL).rename({"quality:q": "quality:cvvdp"}), tmp_path, "my run")
    assert run.metrics["cvvdp"].track == "fidelity"
    asked, page = suggested(run, tmp_path, monkeypatch, capsys)
    assert asked["safe"]["cell_id"] == page["choices"]["chosen"]


def test_a_page_does_not_contain_the_folders_of_its_author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme").mkdir()
    run = imported(table(**SMALL), tmp_path / "acme", "my run")
    written = []
    for folder, named in (
        (tmp_path, str(run.path)),
        (run.path.parent, "my run"),
        (run.path, "."),
        (run.path, "../my run/"),
    ):
        monkeypatch.chdir(folder)
        assert executed(["report", named], monkeypatch) == 0
        written.append({name: (run.path / name).read_text() for name in ("report.html", "report.md", "result.json")})
    assert "or perjoule recommend 'my run' --min-quality" in "".join(json.loads(written[0]["result.json"])["deploy"])
    for pages in written:
        assert pages == written[0]
        assert not [name for name, text in pages.items() if str(tmp_path) in text or "acme" in text]


def test_a_floor_that_no_cell_keeps_is_not_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One cell, whose mean is too uncertain for its own margin."""
    made = imported(table(prompts=8, seeds=1, ladder=(8,), variants=(("one", 1.0),)), tmp_path)
    run = rewrite(made, "metrics.json", lambda stored: stored["metrics"][0].update(margin=1e-4))
    asked, page = suggested(run, tmp_path, monkeypatch, capsys)
    assert page["choices"]["chosen"] is None
    assert asked["safe"]["cell_id"] == "one-008"
    found = section(build_report(run), "choose")
    assert found.tables[0].marked == frozenset()
    assert "marked" not in found.paragraphs[0]
    assert "No cell keeps" in found.paragraphs[0]


def test_advice_and_section_say_the_same(tmp_path: Path) -> None:
    """Under a full-reference metric, whose ladder bends before the choice."""
    report = build_report(imported(table(**SMALL).rename({"quality:q": "quality:cvvdp"}), tmp_path))
    found = section(report, "choose")
    (place,) = found.tables[0].marked
    assert report.headline.deploy[0].startswith(f"{found.tables[0].rows[place][0].text}: ")
    assert report.headline.deploy[1] in found.paragraphs[0]


def test_a_margin_lowers_the_floor(small: SyntheticRun) -> None:
    spec = replace(small.metrics["scene"], margin=0.5)
    plan = build_report(replace(small, metrics={"scene": spec})).payload["choices"]
    anchor = max(plan["options"], key=lambda option: option["cell_id"])["cell_id"]
    assert anchor.endswith("050")
    strict = build_report(small).payload["choices"]
    assert plan["floor"] < strict["floor"]
    cells = [option["cell_id"] for option in plan["options"]]  # cheapest first
    assert cells.index(plan["chosen"]) <= cells.index(strict["chosen"])


def test_a_handful_of_prompts_is_no_choice(tmp_path: Path) -> None:
    report = build_report(imported(table(prompts=4, seeds=1, ladder=(2, 8, 32)), tmp_path))
    assert report.payload["choices"] is None
    assert "needs 8 prompts" in section(report, "choose").empty
