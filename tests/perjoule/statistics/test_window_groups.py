"""Which prompts are one unit of energy, and what is drawn by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.gating.recommend import recommend
from perjoule.runs.directory import Run
from perjoule.statistics.contrasts import contrasts
from perjoule.statistics.curves import pair
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.frontier import frontier
from perjoule.statistics.grid import read_grid
from perjoule.statistics.per_prompt import per_prompt, slices
from perjoule.statistics.resampling import STUDENT_BELOW
from perjoule.statistics.window_groups import among, common_groups, linked
from perjoule.suite.reading import find_suite, load_suite
from perjoule.suite.schedule import make_plan
from perjoule.types import Prompt, Protocol
from tests.benchmarks.statistics.window_coverage import WORLDS, coverage
from tests.support.tables_of_runs import imported, table
from tests.support.worlds import WindowWorld


def windowed(run: Run, size: int) -> Run:
    """The run with its trials of one image put together into windows of `size` prompts, seed by seed."""
    lists = ("prompts", "prompt_ids", "seeds", "steps", "image_sha256")
    sums = ("energy_j", "image_count")
    trials = run.trials.with_columns(
        window=(pl.col("prompt_ids").list.first().rank("dense") - 1) // size, seed=pl.col("seeds").list.first()
    )
    rest = [c for c in run.trials.columns if c not in {*lists, *sums, "cell_id"}]
    grouped = trials.group_by("cell_id", "window", "seed", maintain_order=True).agg(
        *(pl.col(c).explode() for c in lists), *(pl.col(c).sum() for c in sums), *(pl.col(c).first() for c in rest)
    )
    grouped.select(run.trials.columns).write_parquet(run.path / "trials.parquet")
    return Run(path=run.path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two arms, 48 prompts × 2 seeds in windows of 4 prompts: 12 groups."""
    return windowed(imported(table(prompts=48, noise=0.02), tmp_path_factory.mktemp("windows")), 4)


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_linked_prompts_are_connected_components(prompts: int, pairs: list[tuple[int, int]]) -> None:
    edges = [(a % prompts, b % prompts) for a, b in pairs]
    found = linked(prompts, np.array([a for a, _ in edges], np.intp), np.array([b for _, b in edges], np.intp))
    sets = [{p} for p in range(prompts)]
    for a, b in edges:
        merged = set.union(*(part for part in sets if part & {a, b}))
        sets = [part for part in sets if not part & merged] + [merged]
    for part in sets:
        assert {int(found[p]) for p in part} == {min(part)}


def test_a_cell_of_one_window_does_not_link_the_prompts_of_others() -> None:
    own = np.array([[0, 0, 0], [0, 1, 0], [2, 2, 0], [2, 3, 0]])
    groups, lone = common_groups(own, np.ones_like(own, bool))
    assert groups.tolist() == [0, 0, 2, 2]
    assert lone.tolist() == [False, False, True]


def test_groups_are_those_of_the_windows(run: Run) -> None:
    grid = read_grid(run, ["q"])
    assert (grid.groups == 4 * (np.arange(48) // 4)[:, None]).all()
    assert grid.group_counts().tolist() == [12] * 12
    assert not grid.images_apart


def test_n_counts_window_groups_of_energy_and_prompts_of_quality(run: Run) -> None:
    found = frontier(run, "q", resamples=400)
    for point in found["points"]:
        assert (point["energy_j_per_image"]["n"], point["quality"]["n"], point["n_prompts"]) == (12, 48, 48)
        assert point["energy_j_per_image"]["method"].endswith("Student's t over 12 window groups")
        assert point["quality"]["method"].endswith("paired bootstrap over prompts with their seeds; BCa")
    (compared,) = found["comparisons"]
    assert (compared["n_prompts"], compared["n_window_groups"]) == (48, 12)
    for name in ("bd_energy", "iso_quality_saving", "gain_per_joule"):
        assert compared[name]["n"] == 12
        assert compared[name]["method"].endswith("Student's t over 12 window groups")
    assert compared["bd_energy"]["low"] < -0.2 < compared["bd_energy"]["high"]
    chosen = recommend(run, "q", min_quality=0.5, resamples=400)
    assert (chosen["n_prompts"], chosen["n_window_groups"]) == (48, 12)


def test_contrasts_draw_energy_by_groups_and_quality_by_prompts(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], 400), "q")
    found = contrasts(evidence, "ladder-064")["quick-064"]
    assert (found.energy_ratio.n, found.quality.n) == (12, 48)
    assert found.energy_ratio.low is not None
    assert found.energy_ratio.low < 0.8 < (found.energy_ratio.high or 0)


def test_slices_count_the_groups_of_their_prompts(run: Run) -> None:
    found = per_prompt(evidence_of(run, draw(run, ["q"], 50), "q"), "quick-064", "ladder-064")
    assert found is not None
    kinds = {prompt: "ab"[i >= 24] for i, prompt in enumerate(found.prompts)}
    for part in slices(found, kinds):
        assert (part.n, part.quality.n, part.energy_change.n) == (24, 24, 6)


def test_prompts_of_one_window_are_what_they_were(tmp_path: Path) -> None:
    """Where every window holds one prompt, energy and quality are on one draw of prompts."""
    drawn = draw(imported(table(prompts=STUDENT_BELOW, ladder=(4, 16)), tmp_path), ["q"], 100)
    assert (drawn.draws.joint.unit, drawn.draws.joint.student) == ("prompts", False)
    quality = drawn.draws.quality("q").resamples
    np.testing.assert_array_equal(quality, drawn.draws.quality_alone("q").resamples)


def test_all_prompts_in_one_window_leave_quality_its_interval(tmp_path: Path) -> None:
    found = frontier(windowed(imported(table(prompts=12, ladder=(4, 16)), tmp_path), 12), "q", resamples=200)
    for point in found["points"]:
        energy = point["energy_j_per_image"]
        assert (energy["low"], energy["high"], energy["n"]) == (None, None, 1)
        assert energy["method"].endswith("no interval: all prompts share one window group")
        assert point["quality"]["low"] < point["quality"]["value"] < point["quality"]["high"]
        assert point["p_on_frontier"] is None


def test_one_scored_prompt_has_no_chance_on_the_frontier(tmp_path: Path) -> None:
    whole = imported(table(prompts=8, ladder=(4, 16)), tmp_path)
    kept = whole.scores["prompt_id"].min()
    scores = whole.scores.with_columns(
        value=pl.when((pl.col("prompt_id") == kept) | pl.col("cell_id").str.starts_with("quick")).then(pl.col("value"))
    )
    scores.write_parquet(whole.path / "scores.parquet")
    points = {p["cell_id"]: p for p in frontier(Run(path=whole.path), "q", resamples=200)["points"]}
    for cell, point in points.items():
        single = cell.startswith("ladder")
        assert (point["n_prompts"], point["p_on_frontier"] is None) == ((1, True) if single else (8, False))


def test_a_cell_without_scores_has_no_chance_on_the_frontier(tmp_path: Path) -> None:
    whole = imported(table(prompts=8, ladder=(4, 16)), tmp_path)
    scores = whole.scores.with_columns(value=pl.when(pl.col("cell_id").str.starts_with("quick")).then(pl.col("value")))
    scores.write_parquet(whole.path / "scores.parquet")
    for point in frontier(Run(path=whole.path), "q", resamples=200)["points"]:
        assert (point["p_on_frontier"] is None) == point["cell_id"].startswith("ladder")


def test_a_cell_with_finer_windows_keeps_its_own_groups(tmp_path: Path) -> None:
    whole = imported(table(prompts=48, ladder=(4, 16)), tmp_path, "one")
    single = whole.trials.filter(pl.col("variant") == "quick")
    shared = windowed(whole, 4).trials.filter(pl.col("variant") == "ladder")
    pl.concat([single, shared]).write_parquet(whole.path / "trials.parquet")
    found = {
        p["cell_id"]: p["energy_j_per_image"] for p in frontier(Run(path=whole.path), "q", resamples=200)["points"]
    }
    assert {cell: e["n"] for cell, e in found.items()} == {
        "ladder-004": 12, "ladder-016": 12, "quick-004": 48, "quick-016": 48,
    }  # fmt: skip
    assert "prompts with their seeds" in found["quick-004"]["method"]


@pytest.mark.slow
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4))
def test_a_plan_keeps_the_prompts_of_a_window_together(prompts: int, size: int, seeds: int) -> None:
    demo = load_suite(find_suite("demo"))
    suite = replace(demo, protocol=Protocol(seeds=tuple(range(seeds)), batch_size=size), variants=demo.variants[:1])
    texts = [Prompt(prompt_id=f"{i:02d}", text=str(i)) for i in range(prompts)]
    plan = make_plan(suite, texts)
    first = plan[0].cell.cell_id
    windows = [[int(p.prompt_id) for p in a.prompts] for a in plan if a.cell.cell_id == first]
    assert sum(map(len, windows)) == prompts * seeds
    assert len(windows) == -(-prompts * seeds // size)  # as few as can be
    pairs = np.array([(p, window[0]) for window in windows for p in window])
    groups = linked(prompts, pairs[:, 0], pairs[:, 1])
    assert len(np.unique(groups)) == prompts // size + bool(prompts % size)
    assert np.bincount(groups).max() <= max(size, prompts % size)


def test_a_bound_and_the_shuffled_arm_keep_the_groups() -> None:
    from perjoule.statistics.allocation import bound, shuffled

    test, anchor = WindowWorld(groups=6).sample(np.random.default_rng(0))
    for arm in (bound(anchor, "per-image bound"), shuffled(anchor, np.zeros(24, np.intp))):
        paired = pair(test, arm, resamples=50)
        assert (paired.means.n, paired.by_prompt.n) == (6, 24)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(("size", "groups"), [(4, 5), (60, 6)])
def test_intervals_cover_in_worlds_with_shared_windows(name: str, size: int, groups: int) -> None:
    """A small part of tests/benchmarks/statistics/window_coverage.py, whose table is in docs/method.md.

    120 draws of a world with a fixed seed. Of intervals that cover 95 %, fewer than 106 hold the truth once in 1,000
    times; of those that cover 75 %, as many as that never do.
    """
    held = coverage(replace(WORLDS[name], groups=groups, prompts_per_window=size), 120, 120, 300)
    assert min(held.values()) >= 106 / 120, held


def test_a_cell_with_few_prompts_in_a_large_run_is_drawn_by_student(tmp_path: Path) -> None:
    frame = table(prompts=40, ladder=(4, 16), variants=(("ladder", 1.0),))
    run = imported(frame.filter((pl.col("steps") == 4) | (pl.col("prompt_id") < "p006")), tmp_path)
    few, many = (p["energy_j_per_image"] for p in reversed(frontier(run, "q", resamples=400)["points"]))
    assert few["method"].endswith("Student's t over 6 prompts")
    assert many["method"].endswith("paired bootstrap over prompts with their seeds; BCa")


def test_groups_of_some_prompts_are_labelled_by_the_first_that_is_left() -> None:
    groups = np.array([[0, 0], [0, 1], [2, 1], [2, 3], [0, 0]])
    found = among(groups, np.array([1, 2, 3, 4]))
    assert found.tolist() == [[0, 0], [1, 0], [1, 2], [0, 3]]
    assert groups[1].tolist() == [0, 1]  # the others are as they were
    assert common_groups(found, np.ones((4, 2), bool))[0].tolist() == [0, 0, 0, 0]
