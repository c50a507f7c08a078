from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from perjoule.statistics.frontier import frontier
from perjoule.statistics.preference import predicted_preference
from tests.support.tables_of_runs import imported, table

SCORES = arrays(float, (6, 2), elements=st.integers(-40, 40).map(float))


def test_three_wins_in_four_are_one_unit() -> None:
    test = np.array([[1.0], [1.0], [1.0], [-1.0]] * 10)
    found = predicted_preference(test, np.zeros_like(test), resamples=500)
    assert found.win_rate.value == pytest.approx(0.75)
    assert found.gain.value == pytest.approx(1.0)
    assert found.native.value == pytest.approx(0.5)
    assert found.gain.low is not None
    assert found.gain.high is not None
    assert found.gain.low < 1 < found.gain.high
    assert "metric-predicted" in found.gain.method
    assert "metric-predicted" in found.unit


def test_with_a_temperature_a_constant_gap_is_the_closed_form() -> None:
    anchor = np.random.default_rng(0).normal(size=(30, 3))
    found = predicted_preference(anchor + 0.4, anchor, temperature=0.2, resamples=200)
    assert found.gain.value == pytest.approx(norm.ppf(1 / (1 + np.exp(-2))) / norm.ppf(0.75))
    assert found.gain.low == pytest.approx(found.gain.high)


def test_winning_always_is_clipped_by_the_number_of_prompts() -> None:
    found = predicted_preference(np.ones((25, 2)), np.zeros((25, 2)), resamples=100)
    assert found.gain.value == pytest.approx(norm.ppf(1 - 1 / 50) / norm.ppf(0.75))


def test_images_that_one_side_lacks_do_not_count() -> None:
    test, anchor = np.ones((4, 1)), np.zeros((4, 1))
    test[0], anchor[1] = np.nan, np.nan
    found = predicted_preference(test, anchor, resamples=50)
    assert (found.gain.n, found.win_rate.value) == (2, 1.0)
    nothing = predicted_preference(np.full((3, 1), np.nan), np.zeros((3, 1)), resamples=50)
    assert nothing.gain.value is None


@given(SCORES, SCORES, st.sampled_from([None, 0.5, 7.0]))
@settings(max_examples=40, deadline=None)
def test_swapping_the_arms_turns_the_sign(one: np.ndarray, other: np.ndarray, temperature: float | None) -> None:
    there = predicted_preference(one, other, temperature=temperature, resamples=20)
    back = predicted_preference(other, one, temperature=temperature, resamples=20)
    assert there.gain.value == pytest.approx(-back.gain.value, abs=1e-9)
    assert predicted_preference(one, one, temperature=temperature, resamples=20).gain.value == pytest.approx(0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        predicted_preference(np.ones((2, 1)), np.ones((2, 1)), temperature=temperature)


def test_unlike_shapes() -> None:
    with pytest.raises(ValueError, match="paired"):
        predicted_preference(np.ones((2, 1)), np.ones((3, 1)))


def test_frontier_compares_the_dearest_cells(tmp_path: Path) -> None:
    found = frontier(imported(table(prompts=12), tmp_path), resamples=200, temperature=0.1)
    (record,) = found["comparisons"]
    preferred = record["preference"]
    assert preferred["temperature"] == 0.1
    assert abs(preferred["gain"]["value"]) < 0.2  # both ladders draw from one distribution
    assert preferred["gain"]["low"] < preferred["gain"]["value"] < preferred["gain"]["high"]


def test_a_metric_that_declares_its_temperature_is_asked_by_it(tmp_path: Path) -> None:
    run = imported(table(prompts=8, seeds=1, variants=(("ladder", 1.0), ("quick", 0.8))), tmp_path)
    counted = frontier(run, "q", resamples=50)["comparisons"][0]["preference"]
    assert counted["temperature"] is None
    run.__dict__["metrics"] = {"q": replace(run.metrics["q"], temperature=0.1)}
    declared = frontier(run, "q", resamples=50)["comparisons"][0]["preference"]
    assert declared["temperature"] == 0.1
    assert declared["gain"]["value"] != counted["gain"]["value"]
    assert frontier(run, "q", temperature=5.0, resamples=50)["comparisons"][0]["preference"]["temperature"] == 5.0
