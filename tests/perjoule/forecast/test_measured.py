from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm, sem, t

from perjoule.forecast.measured import Windows, calibration_plan, measured_price
from perjoule.forecast.records import Price
from perjoule.runs.directory import Run
from perjoule.suite.reading import cells_of
from perjoule.types import Suite, Variant
from tests.perjoule.forecast.worlds import J_PER_STEP, MODEL, STEP_S, named, noisy_power, run_of, suite_of


def prices(run: Run, suite: Suite, device: str | None = None) -> dict[str, Price]:
    windows = Windows.of(run)
    return {cell.cell_id: measured_price(cell, windows, suite.protocol, device) for cell in cells_of(suite)}


def test_own_windows_and_the_line_through_them_tell_the_truth(tmp_path: Path) -> None:
    run = run_of(suite_of(), tmp_path / "run", noisy_power())
    found = prices(run, suite_of(replace(MODEL, steps=(1, 2, 4, 50))))
    for steps in (1, 2, 4, 50):
        price = found[f"v-{steps:03d}"]
        assert price.energy_j is not None
        assert price.duration_s is not None
        assert price.energy_j.low < J_PER_STEP * steps < price.energy_j.high
        assert price.duration_s.value == pytest.approx(STEP_S * steps)
        assert (price.energy_j.level, price.energy_j.provenance) == (0.95, "estimated")
        assert (price.rests_on, price.boundary) == ("simulated", "gpu-board")
    assert "the cell's own windows" in found["v-004"].source
    assert "line through 16 windows of 2 step counts" in found["v-050"].source
    assert str(run.path) in found["v-050"].source


def test_windows_of_the_same_prompts_are_one_unit(tmp_path: Path) -> None:
    """Three blocks and two seeds of four prompts: 24 windows, but 4 units."""
    run = run_of(suite_of(blocks=3), tmp_path / "run", noisy_power())
    price = prices(run, suite_of())["v-004"].energy_j
    assert price is not None
    windows = run.trials.filter(pl.col("cell_id") == "v-004").with_columns(prompt=pl.col("prompt_ids").list.first())
    assert len(windows) == 24
    units = windows.group_by("prompt").agg((pl.col("energy_j") / pl.col("image_count")).mean())["energy_j"].to_numpy()
    session = norm.ppf(0.975) * 0.03 * units.mean()
    assert price.value == pytest.approx(units.mean())
    assert price.high == pytest.approx(units.mean() + np.hypot(t.ppf(0.975, 3) * sem(units), session))


def test_an_interval_is_never_below_the_scatter_between_sessions(tmp_path: Path) -> None:
    price = prices(run_of(suite_of(), tmp_path / "run"), suite_of())["v-004"].energy_j
    assert price is not None
    assert price.high / price.value - 1 == pytest.approx(1.96 * 0.03, rel=0.01)


def test_the_sampler_of_the_plan_comes_before_others(tmp_path: Path) -> None:
    dear = named(MODEL, "dear", scheduler="HeunDiscreteScheduler", steps=(2, 8))
    run = run_of(suite_of(MODEL, dear), tmp_path / "run")
    asked = named(MODEL, "mine", steps=(3,))
    other = named(MODEL, "other", scheduler="EulerDiscreteScheduler", steps=(3,))
    found = prices(run, suite_of(asked, other))
    assert "line through 16 windows of 2" in found["mine-003"].source
    assert "line through 32 windows of 4" in found["other-003"].source


def test_another_batch_widens_in_its_own_direction(tmp_path: Path) -> None:
    run = run_of(suite_of(batch_size=2), tmp_path / "run")
    asked = replace(MODEL, steps=(2,))
    same, fuller, emptier = (prices(run, suite_of(asked, batch_size=n))["v-002"].energy_j for n in (2, 4, 1))
    assert same is not None
    assert fuller is not None
    assert emptier is not None
    assert (fuller.low, fuller.high) == pytest.approx((same.low * 0.39, same.high))
    assert (emptier.low, emptier.high) == pytest.approx((same.low, same.high / 0.39))
    assert (same.level, fuller.level, emptier.level) == (0.95, None, None)


def test_another_model_size_or_dtype_is_another_price(tmp_path: Path) -> None:
    run = run_of(suite_of(), tmp_path / "run")
    others: list[Variant] = [
        named(MODEL, "a", model="n"),
        named(MODEL, "b", dtype="float16"),
        named(MODEL, "c", width_px=64),
        named(MODEL, "d", guidance=1.0),
    ]
    for price in prices(run, suite_of(*others)).values():
        assert price.energy_j is None
        assert "has no windows of" in price.reason
    # the height of the guidance, names and roles cost nothing
    same = named(MODEL, "e", guidance=3.0, role="distilled", family="f", negative_prompt="blurred")
    assert prices(run, suite_of(same))["e-004"].energy_j is not None


def test_one_step_count_is_scaled_only_where_the_base_is_small(tmp_path: Path) -> None:
    long = run_of(suite_of(replace(MODEL, steps=(40,))), tmp_path / "long")
    scaled = prices(long, suite_of(replace(MODEL, steps=(20,))))["v-020"].energy_j
    assert scaled is not None
    assert scaled.low < 20 * J_PER_STEP < scaled.high
    assert scaled.level is None
    short = run_of(suite_of(replace(MODEL, steps=(4,))), tmp_path / "short")
    for steps in (2, 40):
        refused = prices(short, suite_of(replace(MODEL, steps=(steps,))))[f"v-{steps:03d}"]
        assert refused.energy_j is None
        assert "at 4 steps only: a line needs two" in refused.reason


def test_adaptive_cells_are_known_by_their_own_windows_only(tmp_path: Path) -> None:
    run = run_of(suite_of(), tmp_path / "run")
    adaptive = named(MODEL, "w", steps=(), policy="budgetfusion", levels=(2.0,), role="predicted")
    price = prices(run, suite_of(adaptive))["w-2"]
    assert price.energy_j is None
    assert "decides when it sees the prompt" in price.reason


def test_another_board_widens_the_range(tmp_path: Path) -> None:
    run = run_of(suite_of(), tmp_path / "run")
    here, there = (prices(run, suite_of(), device)["v-004"].energy_j for device in ("board", "another board"))
    assert here is not None
    assert there is not None
    assert (here.level, there.level) == (0.95, None)
    assert there.low == pytest.approx(here.low / 2)
    assert there.high == pytest.approx(here.high * 2)


def test_repeats_are_those_of_a_run_under_the_same_bound(tmp_path: Path) -> None:
    bound = suite_of(max_uncertainty=0.02, iterations=3)
    run = run_of(bound, tmp_path / "run")
    repeats = prices(run, bound)["v-004"].repeats
    assert repeats is not None
    assert repeats.low >= 3
    assert prices(run, suite_of(max_uncertainty=0.01, iterations=3))["v-004"].repeats is None


def test_a_calibration_meters_both_ends_of_each_ladder_and_adaptive_cells() -> None:
    ladder = replace(MODEL, steps=(1, 4, 9))
    euler = named(ladder, "euler", scheduler="EulerDiscreteScheduler")
    again = named(ladder, "again", role="control", steps=(4,))
    single = named(MODEL, "single", model="n", steps=(4,))
    adaptive = named(MODEL, "w", steps=(), policy="budgetfusion", levels=(2.0, 3.0))
    chosen = [cell.cell_id for cell in calibration_plan(cells_of(suite_of(ladder, euler, again, single, adaptive)))]
    assert sorted(chosen) == ["euler-001", "euler-009", "single-004", "v-001", "v-009", "w-2", "w-3"]
