"""Labels for readers: those of the suite, else derived from names."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.support.synthetic import SyntheticRun

from perjoule_reports import build_report
from perjoule_reports.evidence import read_evidence
from perjoule_reports.naming import capitalised, metric_label, variant_label


def test_labels_of_the_suite_come_first(small: SyntheticRun) -> None:
    name = small.suite.variants[0].name
    assert variant_label(small.suite, name, "fixed") == name
    assert variant_label(small.suite, name, "distilled") == f"distilled {name}"
    assert variant_label(small.suite, "distilled-x", "distilled") == "distilled-x"
    labelled = replace(small.suite.variants[0], label="the full\u202e model")
    suite = replace(
        small.suite,
        variants=(labelled, *small.suite.variants[1:]),
        metrics=replace(small.suite.metrics, labels={"scene": "things seen"}),
    )
    assert variant_label(suite, name, "fixed") == "the full model"
    assert variant_label(suite, f"{name}@b4", "fixed") == "the full model with 4 images per call"
    assert variant_label(suite, f"{name}@b1", "fixed") == "the full model with 1 image per call"
    assert metric_label(suite, "scene") == "things seen"
    assert metric_label(small.suite, "scene") == "attributes drawn"
    assert metric_label(small.suite, "my_own") == "my own"
    table = replace(small.suite, prompts=replace(small.suite.prompts, source="imported"))
    assert metric_label(table, "lpips") == "lpips"  # of a table it is not known what the name means


@pytest.mark.slow
def test_labels_are_in_the_headline(small: SyntheticRun) -> None:
    variants = tuple(replace(variant, label=f"the model {variant.name[-7:]}") for variant in small.suite.variants)
    metrics = replace(small.suite.metrics, labels={"scene": "things seen"})
    report = build_report(replace(small, suite=replace(small.suite, variants=variants, metrics=metrics)))
    assert "the model " in report.headline.sentence
    assert "things seen" in report.headline.sentence


@pytest.mark.slow
def test_the_whole_page_uses_the_labels(small: SyntheticRun) -> None:
    """Names in the suite are only in the tables of arms, below the labels, and in code."""
    names = [variant.name for variant in small.suite.variants]
    labels = {name: f"the {place} model" for name, place in zip(names, ("big", "small"), strict=True)}
    variants = tuple(replace(variant, label=labels[variant.name]) for variant in small.suite.variants)
    metrics = replace(small.suite.metrics, labels={"scene": "things seen"})
    report = build_report(replace(small, suite=replace(small.suite, variants=variants, metrics=metrics)))
    sections = {one.anchor: one for one in report.sections}
    (drawn,) = sections["frontier"].figures
    assert drawn.title == "Things seen against energy per image"
    assert {name for _, name in drawn.legend} == set(labels.values())
    assert re.search(r">things seen( \(\w+\))?</text>", drawn.svg)
    assert any(f"{label}, 50 steps" in drawn.svg for label in labels.values())
    cells = sections["arms"].tables[0]
    assert {row[0].text.lower().partition(" at ")[0] for row in cells.rows} == set(labels.values())
    assert any(row[0].detail == f"{names[0]}-050" for row in cells.rows)
    assert "things seen ↑" in [column.title for column in cells.columns]
    shown = [thumb for album in sections["pictures"].albums for strip in album.strips for thumb in strip.thumbs]
    assert any("things seen " in line for thumb in shown for line in thumb.lines)
    said = [*report.headline.deploy, *report.headline.support, *report.headline.beware]
    said += [text for one in report.sections if not one.deep for text in (*one.paragraphs, one.small_title)]
    said += [album.note for album in sections["pictures"].albums]
    for name in (*names, "scene"):
        found = [text for text in said if re.search(rf"(?<![(/]){name}(?!\.)", text)]
        assert not found, found


@pytest.mark.slow
def test_equal_labels_are_told_apart(small: SyntheticRun) -> None:
    variants = tuple(replace(variant, label="the model") for variant in small.suite.variants)
    labels = {"scene": "seen", "clip_text": "seen"}
    suite = replace(small.suite, variants=variants, metrics=replace(small.suite.metrics, labels=labels))
    evidence = read_evidence(replace(small, suite=suite, metrics=small.metrics | {"clip_text": small.metrics["scene"]}))
    assert {arm.label for arm in evidence.arms} == {f"the model ({variant.name})" for variant in variants}
    assert {axis.label for axis in evidence.axes} == {"seen (scene)", "seen (clip_text)"}


def test_a_name_keeps_its_small_letter() -> None:
    assert capitalised("sd15 at 25 steps costs", "sd15") == "sd15 at 25 steps costs"
    assert capitalised("the student at 2 steps costs", "sd15") == "The student at 2 steps costs"
