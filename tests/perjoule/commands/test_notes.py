"""Faults while running: the rest of the plan goes on, and the end of the run says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.support.boards import QUALITY, traced_run

from perjoule.commands.notes import notes_of
from perjoule.errors import MeterError
from perjoule.gating import gate
from perjoule.runs.directory import load_run, write_scores
from perjoule.runs.trial_counts import trial_counts
from perjoule.testing import nvml_simulator
from perjoule.types import Score

pytestmark = [pytest.mark.slow, pytest.mark.skipif(nvml_simulator.compiler() is None, reason="no C compiler")]

THERMAL_SLOWDOWN = 0x40


def test_a_throttle_marks_its_windows_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = traced_run(tmp_path / "run", board={"throttle": THERMAL_SLOWDOWN, "throttle_until_s": 1010.0})
    assert len(run.windows) == 9
    assert run.trials["energy_j"].null_count() == 0
    throttled = run.trials["warnings"].list.eval(pl.element().str.starts_with("W261")).list.any()
    assert 0 < throttled.sum() < 9
    (words,) = notes_of(run, trial_counts(run))
    assert words.startswith(f"{throttled.sum()} of 9 windows are not valid for a verdict, e.g. W261: ")
    found = gate(run, run)
    assert found.verdict == "invalid"
    assert any("windows are not valid for a verdict" in reason for reason in found.reasons)


def test_a_lost_board_keeps_the_joules_before_and_ends_the_run_in_words(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="the source of energy failed in 5 windows in succession"):
        traced_run(tmp_path / "run", board={"lost_at_s": 1008.0})
    run = load_run(tmp_path / "run")
    known = run.trials["energy_j"].is_not_null()
    assert 0 < known.sum() < len(run.trials)
    assert known.to_list() == sorted(known.to_list(), reverse=True)
    assert all(texts for texts in run.trials.filter(~known)["warnings"].to_list())


def test_a_metric_that_raises_leaves_gaps_that_are_counted(tmp_path: Path) -> None:
    run = traced_run(tmp_path / "run")
    assert list(notes_of(run, trial_counts(run))) == []
    broken = replace(QUALITY, name="broken")
    images = run.images["image_id"].to_list()
    scores = [Score(image_id=image, metric="broken", value=None, reason_unscored="ValueError: x") for image in images]
    write_scores(run, scores, [broken])
    again = load_run(run.path)
    assert list(notes_of(again, trial_counts(again))) == ["9 of 9 scores of broken are missing: ValueError: x (9)"]
