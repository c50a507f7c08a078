"""The safe choice: the same in the section, in the advice, in the result and from `perjoule recommend`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.reports import section
from tests.support.synthetic import SyntheticRun
from tests.support.tables_of_runs import imported, table

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


def test_the_advice_names_the_choice_with_its_code(small: SyntheticRun) -> None:
    report = build_report(small)
    chosen = report.payload["choices"]["chosen"]
    steps = int(chosen.rpartition("-")[2])
    assert f"at {steps} step" in report.headline.deploy[0]
    assert "in 90 % of the draws" in report.headline.deploy[1]
    assert f"num_inference_steps={steps}" in report.headline.call
    code = {option["cell_id"]: option["code"] for option in report.payload["choices"]["options"]}
    assert code[chosen] == report.headline.call


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
