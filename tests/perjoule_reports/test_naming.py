"""Labels for readers: those of the suite, else derived from names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.synthetic import SyntheticRun

from perjoule_reports import build_report
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


def test_a_name_keeps_its_small_letter() -> None:
    assert capitalised("sd15 at 25 steps costs", "sd15") == "sd15 at 25 steps costs"
    assert capitalised("the student at 2 steps costs", "sd15") == "The student at 2 steps costs"
