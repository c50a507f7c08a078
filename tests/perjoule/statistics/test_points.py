from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from perjoule.errors import UnknownNameError
from perjoule.files import write_parquet
from perjoule.runs.columns import POINT_COLUMNS
from perjoule.runs.directory import Run, load_run, write_scores
from perjoule.statistics.frontier import frontier
from perjoule.statistics.grid import Grid
from perjoule.statistics.points import energy_estimates, operating_points
from perjoule.types import MetricSpec, Score
from tests.perjoule.running.test_execute import POWER_W, STEP_S, do, fresh, make_suite


def spec(name: str = "lsnr", direction: str = "higher", track: str = "sharpness") -> MetricSpec:
    return MetricSpec(
        name=name,
        direction=direction,  # type: ignore[arg-type]
        track=track,  # type: ignore[arg-type]
        needs_reference=False,
        unit="",
        weights_digest="none",
        licence="Apache-2.0",
        description="",
        advisory=False,
        bounds=(None, None),
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite))
    return load_run(tmp_path / "run")


def score(run: Run, value_of: dict[str, float | None], metric: MetricSpec | None = None) -> Run:
    """Every image of a cell gets the cell's value, spread by prompt so that the mean is exact."""
    spread = dict(zip(sorted(run.images["prompt_id"].unique()), (-0.1, 0.0, 0.1), strict=True))
    scores = []
    for row in run.images.iter_rows(named=True):
        value = value_of[row["cell_id"]]
        reason = "told so" if value is None else None
        shifted = None if value is None else value + spread[row["prompt_id"]]
        scores.append(Score(image_id=row["image_id"], metric="lsnr", value=shifted, reason_unscored=reason))
    write_scores(run, scores, [metric or spec()])
    scored = load_run(run.path)
    write_parquet(operating_points(scored), run.path / "points.parquet")
    return load_run(run.path)


def test_energy_and_quality_are_the_closed_forms(run: Run) -> None:
    points = score(run, {"v-001": 0.5, "v-004": 0.9}).points
    assert list(points.columns) == list(POINT_COLUMNS)
    by_cell = {row["cell_id"]: row for row in points.iter_rows(named=True)}
    for cell, steps, quality in (("v-001", 1, 0.5), ("v-004", 4, 0.9)):
        row = by_cell[cell]
        assert row["energy_j_per_image"] == pytest.approx(POWER_W * STEP_S * steps)
        assert row["energy_low"] == pytest.approx(row["energy_high"])  # the fake's power does not vary
        assert row["quality"] == pytest.approx(quality)
        assert row["quality_low"] < quality < row["quality_high"]
        assert (row["n_prompts"], row["n_seeds"], row["steps_mean"]) == (3, 2, steps)
        assert row["on_frontier"]
        assert row["provenance"] == "simulated"


def test_a_dearer_and_worse_cell_is_off_the_frontier(run: Run) -> None:
    worse = score(run, {"v-001": 0.9, "v-004": 0.5})
    found = frontier(worse)
    assert found["frontier"] == ["v-001"]
    # prompts are resampled together, so the difference of the cells is certain although each alone is not
    assert {p["cell_id"]: p["p_on_frontier"] for p in found["points"]} == {"v-001": 1.0, "v-004": 0.0}


def test_direction_lower_turns_the_frontier_round(run: Run) -> None:
    found = frontier(score(run, {"v-001": 0.9, "v-004": 0.5}, spec(direction="lower")))
    assert found["frontier"] == ["v-001", "v-004"]
    assert found["hypervolume"]["reference"]["quality"] == pytest.approx(0.9)
    # one rung 0.4 better than the worst, one octave below twice its own energy
    assert found["hypervolume"]["value"] == pytest.approx(0.4 * 1.0)


def test_unscored_is_absent_with_a_count_not_zero(run: Run) -> None:
    points = score(run, {"v-001": None, "v-004": 0.5}).points
    row = points.filter(pl.col("cell_id") == "v-001").row(0, named=True)
    assert row["quality"] is None
    assert row["unscored_count"] == 6
    assert not row["on_frontier"]


def test_failed_trials_and_missing_joules_do_not_count(tmp_path: Path) -> None:
    suite = make_suite(batch_size=1)
    do(suite, fresh(tmp_path / "run", suite), fails_on="a dog")
    run = load_run(tmp_path / "run")
    write_scores(
        run,
        [Score(image_id=i, metric="lsnr", value=1.0) for i in run.images["image_id"]],
        [spec()],
    )
    points = operating_points(load_run(run.path))
    assert points["n_prompts"].to_list() == [2, 2]
    assert points["energy_n"].to_list() == [2, 2]
    assert np.isfinite(points["energy_j_per_image"].to_numpy()).all()


def shared(windows: np.ndarray, size: int) -> Grid:
    """A cell whose windows hold `size` prompts each."""
    count = size * len(windows)
    return Grid(
        cells=("c",),
        prompts=tuple(f"{i:03d}" for i in range(count)),
        energy_j=np.repeat(windows, size)[:, None, None],
        quality={},
        groups=(size * (np.arange(count) // size))[:, None],
    )


def test_joules_of_windows_with_an_outlier_stay_positive() -> None:
    # six windows of four prompts; something else ran during one of them
    windows = np.array([4.0, 4.2, 3.9, 4.1, 80.0, 4.0])
    grid = shared(windows, 4)
    (found,) = energy_estimates(grid, grid.drawn(2_000).energy)
    assert found.value == pytest.approx(windows.mean())
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 4 < 80 < found.high  # one window in six says that little


@pytest.mark.parametrize("size", [2, 4, 60])
def test_windows_and_not_prompts_are_the_units_of_energy(size: int) -> None:
    windows = 5 * np.exp(0.02 * np.random.default_rng(1).normal(size=8))
    grid = shared(windows, size)
    (found,) = energy_estimates(grid, grid.drawn(20_000).energy)
    # Student's t of the logarithms, by the delta method
    half = stats.t.ppf(0.975, 7) * stats.sem(windows) / windows.mean()
    assert (found.low, found.high) == pytest.approx(windows.mean() * np.exp([-half, half]), rel=1e-3)
    assert found.n == 8
    assert found.method.endswith("Student's t over 8 window groups")


def test_from_25_window_groups_up_intervals_are_those_of_the_groups_alone() -> None:
    windows = 5 * np.exp(0.02 * np.random.default_rng(2).normal(size=30))
    many, one = (
        energy_estimates(grid, grid.drawn(2_000).energy)[0] for grid in (shared(windows, 6), shared(windows, 1))
    )
    assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))
    assert (many.n, one.n) == (30, 30)
    assert many.method.endswith("paired bootstrap over 30 window groups; BCa")
    assert one.method.endswith("paired bootstrap over prompts with their seeds; BCa")


def test_one_window_group_has_no_interval_and_says_why() -> None:
    grid = shared(np.array([5.0]), 12)
    (found,) = energy_estimates(grid, grid.drawn(200).energy)
    assert (found.value, found.low, found.high, found.n) == (5.0, None, None, 1)
    assert found.method.endswith("no interval: all prompts share one window group")


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_window_groups_are_said_to_be_few(count: int) -> None:
    windows = np.linspace(4.9, 5.1, count)
    grid = shared(windows, 3)
    (found,) = energy_estimates(grid, grid.drawn(2_000).energy)
    assert found.low is not None
    assert found.high is not None
    assert found.low < windows.min() < windows.max() < found.high
    assert found.method.endswith(f"Student's t over {count} window groups, which are few")


def test_scoring_one_metric_again_keeps_the_others(run: Run) -> None:
    scored = score(run, {"v-001": 0.5, "v-004": 0.9})
    ids = scored.images["image_id"]
    write_scores(scored, [Score(image_id=i, metric="other", value=2.0) for i in ids], [spec("other")])
    again = load_run(run.path)
    assert set(again.scores["metric"]) == {"lsnr", "other"}
    assert set(again.metrics) == {"lsnr", "other"}
    write_scores(again, [Score(image_id=i, metric="other", value=3.0) for i in ids], [spec("other")])
    assert set(load_run(run.path).scores.filter(pl.col("metric") == "other")["value"]) == {3.0}


def test_an_unknown_metric_is_named(run: Run) -> None:
    scored = score(run, {"v-001": 0.5, "v-004": 0.9})
    with pytest.raises(UnknownNameError, match="did you mean 'lsnr'"):
        frontier(scored, "lsrn")
