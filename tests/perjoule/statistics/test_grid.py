from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.errors import RunError
from perjoule.runs.directory import Run
from perjoule.runs.trial_counts import trial_counts
from perjoule.statistics.frontier import frontier
from perjoule.statistics.grid import _arrays, _coded, _prompts_of, prompts_known, read_grid
from tests.support.tables_of_runs import imported, rewrite_table, table


def test_arrays_are_the_table_by_prompt_seed_and_cell(tmp_path: Path) -> None:
    frame = table(prompts=5, seeds=3, ladder=(4, 16)).filter(~((pl.col("seed") == 2) & (pl.col("steps") == 16)))
    grid = read_grid(imported(frame, tmp_path), ["q"])
    assert grid.cells == ("ladder-004", "ladder-016", "quick-004", "quick-016")
    assert grid.prompts == tuple(f"p{i:03d}" for i in range(5))
    assert grid.energy_j.shape == grid.quality["q"].shape == (5, 3, 4)
    for row in frame.iter_rows(named=True):
        at = (int(row["prompt_id"][1:]), row["seed"], grid.cells.index(f"{row['variant']}-{row['steps']:03d}"))
        assert (grid.energy_j[at], grid.quality["q"][at]) == (row["energy_j"], row["quality:q"])
    assert np.isfinite(grid.energy_j).sum() == len(frame)
    assert prompts_known(grid.energy_j).tolist() == [5] * 4


def test_joules_that_are_not_positive_are_refused_with_the_trial(tmp_path: Path) -> None:
    run = imported(table(prompts=3, ladder=(4,)), tmp_path)
    last = run.trials["trial_id"][-1]
    zero = pl.when(pl.col("trial_id") == last).then(0.0).otherwise(pl.col("energy_j")).alias("energy_j")
    with pytest.raises(RunError, match=rf"trial {last}: energy_j = 0.0: joules are positive"):
        read_grid(rewrite_table(run, "trials", zero), ["q"])


@pytest.mark.parametrize(
    ("value", "bounds", "is_stated"),
    [(0.5, (0.0, 1.0), True), (1.0, (0.0, 1.0), False), (0.0, (0.0, None), False), (1.0, (0.0, None), True)],
)
def test_one_value_for_all_prompts_is_that_of_the_cell_unless_it_is_a_bound(
    tmp_path: Path, value: float, bounds: tuple[float | None, float | None], is_stated: bool
) -> None:
    same = pl.when(pl.col("steps") == 4).then(value).otherwise(pl.col("quality:q")).alias("quality:q")
    run = imported(table(prompts=4, ladder=(4, 16)).with_columns(same), tmp_path, bounds={"q": bounds})
    grid = read_grid(run, ["q"])
    assert grid.is_cell_value("q").tolist() == [is_stated, False, is_stated, False]


def test_one_energy_for_all_prompts_is_one_window(tmp_path: Path) -> None:
    same = pl.when(pl.col("steps") == 4).then(7.0).otherwise(pl.col("energy_j")).alias("energy_j")
    grid = read_grid(imported(table(prompts=4, ladder=(4, 16)).with_columns(same), tmp_path), ["q"])
    assert grid.groups[:, 0].tolist() == grid.groups[:, 2].tolist() == [0] * 4
    assert grid.groups[:, 1].tolist() == grid.groups[:, 3].tolist() == [0, 1, 2, 3]


def test_a_run_without_trials_has_empty_arrays(run: Run) -> None:
    empty = Run(path=run.path)
    vars(empty).update(trials=run.trials.clear(), scores=run.scores.clear(), images=run.images.clear())
    assert read_grid(empty, ["q"]).energy_j.size == 0


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 2)),
        min_size=1,
        max_size=40,
    ),
    numbers=st.randoms(use_true_random=False),
)
def test_coded_arrays_are_those_of_joins_by_name(rows: list[tuple[int, int, int | None]], numbers: Random) -> None:
    """Ranks of seeds in both ways of `_ranks`, several windows of an image, and absent values."""
    values = [numbers.choice([None, math.nan, numbers.lognormvariate(0, 3)]) for _ in rows]
    names = [(f"p{prompt}", f"c{cell}", seed, value) for (prompt, cell, seed), value in zip(rows, values, strict=True)]
    schema = {"prompt_id": pl.String, "cell_id": pl.String, "seed": pl.UInt64, "value": pl.Float64}
    whole = pl.DataFrame(names, schema, orient="row")
    tables, cells = [whole, whole.filter(pl.col("cell_id") == "c0")], ["c0", "c1", "c2"]
    prompts = _prompts_of(tables)
    arrays = _arrays([_coded(part, cells, prompts) for part in tables], len(prompts), len(cells))
    units = sorted({(prompt, seed is not None, seed or 0) for prompt, _, seed, _ in names})
    for part, array in zip(tables, arrays, strict=True):
        expected = (
            part.filter(pl.col("value").is_finite())
            .group_by("prompt_id", "seed", "cell_id")
            .agg(pl.col("value").mean())
        )
        # the mean of numbers near the largest one is infinite on both sides
        assert np.isfinite(array).sum() == expected["value"].is_finite().sum()
        for prompt, seed, cell, value in expected.select("prompt_id", "seed", "cell_id", "value").iter_rows():
            of_prompt = [unit for unit in units if unit[0] == prompt]
            place = of_prompt.index((prompt, seed is not None, seed or 0))
            assert array[prompts.index(prompt), place, cells.index(cell)] == value


def test_a_run_of_one_metric_has_the_same_numbers(tmp_path: Path) -> None:
    frame = table(prompts=6, seeds=2, ladder=(4, 16)).with_columns((pl.col("quality:q") * 2).alias("quality:r"))
    run = imported(frame, tmp_path)
    lean = run.of_metric("r")
    assert set(lean.scores["metric"]) == {"r"}
    assert "net_energy_j" not in lean.trials.columns
    assert frontier(lean, "r") == frontier(run, "r")
    assert trial_counts(lean) == trial_counts(run)
