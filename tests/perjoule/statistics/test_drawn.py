"""What the report adds to the frontier, on one draw: contrasts, sensitivity, attainment, single prompts, noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from perjoule.runs.directory import Run
from perjoule.statistics.attainment import attainment
from perjoule.statistics.contrasts import contrasts
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.frontier import frontier, frontier_of, read_frontier
from perjoule.statistics.multiplicity import benjamini_hochberg
from perjoule.statistics.noise import drift, sources
from perjoule.statistics.per_prompt import per_prompt, slices
from perjoule.statistics.points import operating_points
from perjoule.statistics.sensitivity import bd_by_metric
from tests.support.tables_of_runs import imported, table

DRAWS = 400


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The arm `quick` needs 20 % less at every rung; a second metric counts backwards."""
    frame = table(prompts=40, noise=0.02).with_columns((-pl.col("quality:q")).alias("quality:loss"))
    return imported(frame, tmp_path_factory.mktemp("drawn"), lower=["loss"])


def test_the_frontier_of_shared_draws_is_the_frontier(run: Run) -> None:
    drawn = draw(run, ["q", "loss"], DRAWS)
    assert frontier_of(run, drawn, "q") == read_frontier(run, "q", resamples=DRAWS)


def test_contrasts_know_the_factor_between_two_arms(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], DRAWS), "q")
    found = contrasts(evidence, "ladder-064")
    assert "ladder-064" not in found
    same = found["quick-064"]
    assert same.energy_ratio.value == pytest.approx(0.8, abs=0.01)
    assert same.energy_ratio.low < 0.8 < same.energy_ratio.high
    assert same.quality.low < 0 < same.quality.high
    assert found["ladder-002"].quality.high < 0
    assert found["ladder-002"].quadrants.cheaper_and_worse == 1.0
    assert contrasts(evidence, "nobody") == {}


def test_contrasts_of_a_falling_metric_keep_its_sign(run: Run) -> None:
    up = contrasts(evidence_of(run, draw(run, ["q"], DRAWS), "q"), "ladder-064")["ladder-002"]
    down = contrasts(evidence_of(run, draw(run, ["loss"], DRAWS), "loss"), "ladder-064")["ladder-002"]
    assert down.quality.value == pytest.approx(-up.quality.value)
    assert (down.quality.low, down.quality.high) == pytest.approx((-up.quality.high, -up.quality.low))
    assert down.quadrants == up.quadrants


def test_full_reference_scores_are_not_contrasted_between_families(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], 50), "q")
    inside = replace(evidence, spec=replace(evidence.spec, track="fidelity"))
    assert {cell.split("-")[0] for cell in contrasts(inside, "ladder-064")} == {"ladder"}


def test_cells_of_one_window_have_no_interval_of_energy(tmp_path: Path) -> None:
    whole = imported(table(prompts=12, seeds=1, ladder=(4, 16), variants=(("ladder", 1.0),)), tmp_path)
    lists = ("prompts", "prompt_ids", "seeds", "steps", "image_sha256")
    sums = ("energy_j", "image_count")
    rest = [c for c in whole.trials.columns if c not in {*lists, *sums, "cell_id"}]
    trials = whole.trials.group_by("cell_id", maintain_order=True).agg(
        *(pl.col(c).explode() for c in lists), *(pl.col(c).sum() for c in sums), *(pl.col(c).first() for c in rest)
    )
    trials.select(whole.trials.columns).write_parquet(whole.path / "trials.parquet")
    run = Run(path=whole.path)
    assert operating_points(run)["energy_low"].null_count() == 2
    found = contrasts(evidence_of(run, draw(run, ["q"], DRAWS), "q"), "ladder-016")["ladder-004"]
    assert found.energy_ratio.value is not None
    assert found.energy_ratio.low is found.energy_ratio.high is None
    assert found.quality.low is not None


def test_bd_energy_is_the_same_under_a_metric_turned_over(run: Run) -> None:
    up, down = bd_by_metric(run, draw(run, ["q", "loss"], DRAWS))
    assert (up.metric, down.metric) == ("q", "loss")
    assert up.bd_energy.value == pytest.approx(-0.2, abs=0.02)
    assert down.bd_energy.value == pytest.approx(up.bd_energy.value)
    assert up.resolved
    assert up.akima == pytest.approx(up.bd_energy.value, abs=0.02)


def test_what_the_frontier_knows_is_not_worked_out_again(run: Run) -> None:
    drawn = draw(run, ["q", "loss"], DRAWS)
    assert bd_by_metric(run, drawn, frontier_of(run, drawn, "q")) == bd_by_metric(run, drawn)


def test_the_band_rises_and_holds_the_frontier(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], DRAWS), "q")
    band = attainment(evidence, evidence.grid.cells)
    assert band is not None
    known = np.isfinite(band.low)
    assert (np.diff(band.energy_j) > 0).all()
    for line in (band.low[known], band.middle[known], band.high[known]):
        assert (np.diff(line) >= -1e-12).all()
    assert (band.low[known] <= band.middle[known]).all()
    assert (band.middle[known] <= band.high[known]).all()
    best = max(p["quality"]["value"] for p in frontier(run, "q", resamples=0)["points"])
    assert band.low[-1] <= best <= band.high[-1]


def test_single_prompts_average_to_the_contrast(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], DRAWS), "q")
    found = per_prompt(evidence, "ladder-004", "ladder-064")
    assert found is not None
    assert len(found.prompts) == 40
    assert found.quality.mean() == pytest.approx(contrasts(evidence, "ladder-064")["ladder-004"].quality.value)
    assert found.energy_change.mean() == pytest.approx(5 / 65 - 1, abs=0.01)
    worst = found.worst(3)
    assert sorted(found.quality[worst]) == sorted(found.quality)[:3]
    turned = replace(found, quality=-found.quality, higher=False)
    assert turned.worst(3) == worst


def test_slices_of_noise_discover_nothing_and_a_real_one_is_found(run: Run) -> None:
    found = per_prompt(evidence_of(run, draw(run, ["q"], 50), "q"), "quick-064", "ladder-064")
    assert found is not None
    kinds = {p: "abcd"[i % 4] for i, p in enumerate(found.prompts)}
    assert [s.name for s in slices(found, kinds)] == ["a", "b", "c", "d"]
    assert all(s.n == 10 and s.q_value is not None and s.q_value > 0.05 for s in slices(found, kinds))
    hurt = replace(found, quality=found.quality - np.array([kinds[p] == "b" for p in found.prompts]))
    rates = {s.name: s.q_value for s in slices(hurt, kinds)}
    assert min(rates, key=lambda name: rates[name] or 1) == "b"
    assert (rates["b"] or 1) < 0.01
    assert slices(found, {}) == ()
    lonely = {p: "one" if i else "two" for i, p in enumerate(found.prompts)}
    assert {s.name: s.q_value is None for s in slices(found, lonely)} == {"one": False, "two": True}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_false_discovery_rates_are_those_of_scipy(p: list[float]) -> None:
    found = benjamini_hochberg(dict(enumerate(p)))
    assert list(found) == list(range(len(p)))
    np.testing.assert_allclose(list(found.values()), false_discovery_control(p), rtol=1e-12)
    assert benjamini_hochberg({}) == {}


def test_noise_names_its_sources_and_says_what_is_absent(run: Run) -> None:
    found = {s.name: s for s in sources(run, evidence_of(run, draw(run, ["q"], 50), "q"))}
    assert found["between seeds of one prompt"].quality == pytest.approx(0.02, rel=0.1)
    assert found["between prompts of one cell"].energy == pytest.approx(0.02, rel=0.1)
    repeats = found["between windows of the same prompts"]
    assert repeats.energy is None
    assert "a column `block`" in repeats.reason
    assert found["between sessions and machines"].reason
    assert found["the table's own uncertainty"].energy is None
    estimate, why = drift(run)
    assert estimate is None
    assert "imported" in why


def test_repeated_blocks_and_a_drift_are_seen(run: Run) -> None:
    chance = np.random.default_rng(3)
    first = run.trials.with_columns(block=pl.lit(0))
    second = first.with_columns(
        block=pl.lit(1), energy_j=pl.col("energy_j") * pl.Series(np.exp(0.05 * chance.normal(size=len(first))))
    )
    trials = pl.concat([first, second]).sample(fraction=1.0, shuffle=True, seed=1)
    place = np.arange(len(trials)) / (len(trials) - 1)
    trials = trials.with_columns(energy_j=pl.col("energy_j") * pl.Series(np.exp(0.1 * place)))
    variants = tuple(replace(v, model="org/model") for v in run.suite.variants)
    again = _changed(run, trials, replace(run.suite, variants=variants))
    repeats = next(s for s in sources(again, None) if s.name == "between windows of the same prompts")
    # half of ln E differences of 0.05 between two windows, and the drift between them
    assert repeats.energy == pytest.approx(np.hypot(0.05 / np.sqrt(2), 0.1 * np.sqrt(1 / 12)), rel=0.15)
    estimate, _ = drift(again)
    assert estimate is not None
    assert estimate.low < np.expm1(0.1) < estimate.high
    assert estimate.high - estimate.low < 0.02


def _changed(run: Run, trials: pl.DataFrame, suite: object) -> Run:
    """A run with other trials, as if they had been measured here."""
    again = Run(path=run.path)
    vars(again).update(trials=trials, suite=suite, environment={})  # as if they had been read
    return again
