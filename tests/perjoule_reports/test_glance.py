"""The pair of images at the top: the two cells of the headline, or both runs of a gate."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.support.synthetic import SyntheticRun

from perjoule_reports import build_report
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import read_evidence
from perjoule_reports.glance import glance
from perjoule_reports.records import Headline

pytestmark = pytest.mark.slow


def test_the_pair_are_the_cells_of_the_headline_and_the_median(small: SyntheticRun) -> None:
    report = build_report(small)
    top, seen = report.headline, report.glance
    assert [image.cell_id for image in seen.images] == [top.anchor, top.test]
    assert "the median of 8 pairs" in seen.remark
    assert seen.prompt in small.prompts.values()
    values = {}
    prompts = {text: prompt_id for prompt_id, text in small.prompts.items()}
    for cell in (top.anchor, top.test):
        rows = small.images.filter(pl.col("cell_id") == cell).select("image_id", "prompt_id")
        scored = rows.join(small.scores.select("image_id", "value"), on="image_id")
        values[cell] = dict(scored.select("prompt_id", "value").iter_rows())
    differences = sorted(values[top.test][p] - values[top.anchor][p] for p in values[top.anchor])
    own = values[top.test][prompts[seen.prompt]] - values[top.anchor][prompts[seen.prompt]]
    assert own == pytest.approx(differences[3])


def test_the_small_frontier_labels_the_marked_cells_and_names_every_variant(small: SyntheticRun) -> None:
    evidence = read_evidence(small)
    cells = [arm.cell_id for arm in evidence.arms]
    top = Headline(sentence="", test=cells[2], anchor=cells[4])
    figure = glance(small, None, evidence, Analysis(), top, recommended=cells[1]).figure
    assert figure is not None
    assert re.findall(r' data-cell="([^"]*)"', figure.svg) == cells  # each can be hovered
    assert set(re.findall(r'id="glance-arm\d+-steps-(\d+)"', figure.svg)) == {"1", "2", "4"}
    assert re.findall(r'id="glance-arm\d+-ring-(\d+)"', figure.svg) == ["1"]
    assert {int(n) for n in re.findall(r'id="glance-arm(\d+)-name-', figure.svg)} | dict(figure.legend).keys() == {
        evidence.series(variant) for variant in evidence.variants()
    }
    without = glance(small, None, evidence, Analysis(), Headline(sentence="")).figure
    assert without is not None
    assert "-ring-" not in without.svg
    assert without.caption == ""


def test_a_gate_shows_baseline_and_candidate(small: SyntheticRun) -> None:
    evidence = read_evidence(small)
    top = Headline(sentence="", test="tiny-teacher-012")
    seen = glance(small, small, evidence, Analysis(), top)
    assert [image.label for image in seen.images] == ["baseline", "candidate"]
    assert {image.cell_id for image in seen.images} == {"tiny-teacher-012"}
    assert seen.images[0].uri == seen.images[1].uri


def test_the_pair_of_a_gate_names_its_cell_and_the_joules_of_both_runs(small: SyntheticRun) -> None:
    energies = [name for name in small.points.columns if name.startswith("energy_") and name != "energy_method"]
    points = small.points.with_columns(pl.col(name) / 2 for name in energies if small.points[name].dtype.is_float())
    before = replace(small, points=points)
    top = Headline(sentence="", test="tiny-teacher-012")
    seen = glance(small, before, read_evidence(small), Analysis(), top)
    found = re.match(
        r"tiny-teacher at 12 steps, ([\d.]+) → ([\d.]+) (\w+) est\. per image; the median of ", seen.remark
    )
    assert found, seen.remark
    assert [image.lines[0] for image in seen.images] == [f"{found[i]} {found[3]} est. per image" for i in (1, 2)]
    assert float(found[2]) == pytest.approx(2 * float(found[1]), rel=0.01)


def test_without_images_there_is_no_pair(small: SyntheticRun, tmp_path: Path) -> None:
    evidence = read_evidence(small)
    top = Headline(sentence="", test="tiny-teacher-012", anchor="tiny-teacher-050")
    assert glance(replace(small, path=tmp_path), None, evidence, Analysis(), top).images == ()
    assert glance(small, None, evidence, Analysis(), Headline(sentence="")).images == ()
