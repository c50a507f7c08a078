from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from perjoule.runs.directory import Run
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.noise import Source, drift, sources


def _changed(run: Run, trials: pl.DataFrame, suite: object) -> Run:
    """A run with other trials, as if they had been measured here."""
    again = Run(path=run.path)
    vars(again).update(trials=trials, suite=suite, environment={})  # as if they had been read
    return again


def test_noise_names_its_sources_and_says_what_is_absent(run: Run) -> None:
    found = {s.name: s for s in sources(run, evidence_of(run, draw(run, ["q"], 50), "q"))}
    assert found["between seeds of one prompt"].quality == pytest.approx(0.02, rel=0.1)
    assert found["between prompts of one cell"].energy == pytest.approx(0.02, rel=0.1)
    repeats = found["between windows of the same prompts"]
    assert repeats.energy is None
    assert "a column `block`" in repeats.reason
    assert found["between sessions and machines"].reason
    assert found["the table's own uncertainty"].energy is None
    assert found["the table's own uncertainty"].reason == "the table states none"
    for source in found.values():
        assert (source.reason == "") == (source.energy is not None or source.quality is not None), source
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


def test_the_bound_of_the_meter_is_a_share_of_the_joules(run: Run) -> None:
    def bound(trials: pl.DataFrame) -> Source:
        own = _changed(run, trials, run.suite)
        return next(source for source in sources(own, None) if source.name == "the meter's own bound")

    assert bound(run.trials.with_columns(uncertainty_j=pl.col("energy_j") / 20)).energy == pytest.approx(0.05)
    unknown = bound(run.trials.with_columns(uncertainty_j=pl.lit(None, pl.Float64)))
    assert (unknown.energy, unknown.reason) == (None, "no window has a reading with a bound")
