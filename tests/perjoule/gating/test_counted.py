"""A gate between runs of counted work: energy has no noise, and one prompt is enough for it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from perjoule.gating import GateConfig, gate, render
from perjoule.gating.decide import EXACT
from perjoule.gating.records import Verdict
from perjoule.runs.directory import Run
from tests.support.tables_of_runs import imported, rewrite_table, table, with_margin

COUNTED = pl.lit("counted work, profile 'cpu'").alias("method")


def counted(folder: Path, name: str, *, factor: float = 1.0, prompts: int = 1, shift: float = 0.0) -> Run:
    """A run of counted joules, whose quality has no noise."""
    frame = table(prompts=prompts, seeds=1, ladder=(4, 16), variants=(("ladder", 1.0),), noise=0.0, shift=shift)
    longer = pl.col("prompt_id").str.slice(1).cast(pl.Float64) / 100  # as if steps were predicted per prompt
    frame = frame.with_columns(energy_j=factor * (1.0 + pl.col("steps") + longer))
    return with_margin(rewrite_table(imported(frame, folder, name), "trials", COUNTED))


def with_images(run: Run, digest: str) -> Run:
    """The run with these digests of images."""
    return rewrite_table(run, "images", pl.lit(digest).alias("sha256"))


def verdict(folder: Path, config: GateConfig | None = None, *, images: str | None = None, **changes: float) -> Verdict:
    base, candidate = counted(folder, "base"), counted(folder, "candidate", **changes)  # type: ignore[arg-type]
    if images:
        base, candidate = with_images(base, "a"), with_images(candidate, images)
    return gate(base, candidate, config=config)


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (1.0 + 1e-6, "fail"), (1.1, "fail"), (0.9, "pass")])
def test_every_change_of_energy_is_real(tmp_path: Path, factor: float, outcome: str) -> None:
    found = verdict(tmp_path, factor=factor, images="a")
    assert (found.verdict, found.energy.outcome) == (outcome, outcome)
    assert found.energy.change.value == pytest.approx(factor - 1, abs=1e-12)
    assert found.energy.change.low == found.energy.change.high == found.energy.change.value
    assert (found.energy.margin_origin, found.energy.mde) == ("default of counted work", 0.0)
    assert EXACT in found.notes


def test_the_margin_for_rounding_is_shown_as_none(tmp_path: Path) -> None:
    found = verdict(tmp_path, images="a")
    assert "margin 0 % (default of counted work)" in render.terminal(found)
    assert "| 0 % (default of counted work) |" in render.markdown(found)


def test_a_margin_may_still_be_given(tmp_path: Path) -> None:
    assert verdict(tmp_path, GateConfig(margin_energy=0.2), factor=1.1, images="a").verdict == "pass"


def test_a_baseline_of_another_session_is_as_good(tmp_path: Path) -> None:
    assert verdict(tmp_path, GateConfig(mode="stored"), factor=1.1, images="a").verdict == "fail"
    (tmp_path / "same").mkdir()
    assert verdict(tmp_path / "same", GateConfig(mode="stored"), images="a").verdict == "pass"


def test_one_prompt_says_nothing_of_quality_if_images_differ(tmp_path: Path) -> None:
    found = verdict(tmp_path, images="b")
    assert (found.verdict, found.energy.outcome, found.quality.outcome) == ("inconclusive", "pass", "inconclusive")
    assert (found.quality.change.low, found.quality.change.n) == (None, 1)
    assert "q: one prompt has no interval; at least 2 are needed" in found.reasons


def test_one_prompt_is_enough_to_fail_on_energy(tmp_path: Path) -> None:
    assert verdict(tmp_path, factor=1.1, images="b").verdict == "fail"


def test_quality_is_judged_as_always_if_there_are_prompts(tmp_path: Path) -> None:
    for shift, outcome in ((0.0, "pass"), (-0.5, "fail")):
        folder = tmp_path / str(shift)
        folder.mkdir()
        runs = (counted(folder, "base", prompts=4), counted(folder, "candidate", prompts=4, shift=shift))
        assert gate(*runs).verdict == outcome


def test_a_price_of_quality_needs_prompts(tmp_path: Path) -> None:
    found = verdict(tmp_path, GateConfig(joules_per_quality=1.0), images="b")
    assert (found.verdict, "at least 2 pairs" in found.reasons[0]) == ("invalid", True)


def test_measured_joules_against_counted_ones_are_judged_with_noise(tmp_path: Path) -> None:
    base = counted(tmp_path, "base")
    measured = rewrite_table(counted(tmp_path, "candidate"), "trials", pl.lit("nvml energy counter").alias("method"))
    found = gate(base, measured)
    assert found.verdict == "invalid"
    assert "at least 2 pairs" in found.reasons[0]


def test_every_output_can_show_a_quality_without_an_interval(tmp_path: Path) -> None:
    from perjoule.gating import render

    found = verdict(tmp_path, images="b")
    assert all(text for text in (render.terminal(found), render.markdown(found), render.junit(found)))
    assert found.as_json()["quality"]["change"]["low"] is None
