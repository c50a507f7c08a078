from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import boards

from perjoule.runs.directory import Run
from perjoule.testing.nvml_simulator import compiler
from perjoule_reports import build_report
from perjoule_reports.evidence import read_evidence
from perjoule_reports.power import bands, phase_energies, power_windows, thinned

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(compiler() is None, reason="the NVML simulator needs a C compiler")


@needs_compiler
def test_joules_of_phases_are_those_of_the_board(traced):
    """The board's power is known in closed form: each phase within its bound, and the sum is what was metered."""
    windows = power_windows(traced, read_evidence(traced))
    assert len(windows) == 9
    for window in windows:
        costs = phase_energies(window)
        assert list(costs) == ["text_encoder", "denoise", "vae_decode"]
        seconds = boards.PHASES_S | {"denoise": boards.DENOISE_STEP_S * window.arm.steps}
        for phase, cost in costs.items():
            assert cost.seconds == pytest.approx(seconds[phase], rel=1e-3)
            assert cost.energy_j == pytest.approx(seconds[phase] * boards.PHASES_W[phase], abs=cost.bound_j)
            assert 0 < cost.bound_j < 0.1 * 320 + 0.1 * 210
        assert sum(c.energy_j for c in costs.values()) == pytest.approx(window.energy_j)


@needs_compiler
def test_samples_without_phases_stay_undivided(traced):
    run = replaced(traced, trials=traced.trials.with_columns(phases_s=pl.lit("{}")))
    section = next(s for s in build_report(run).sections if s.anchor == "power")
    assert section.paragraphs == ("No trial recorded how long its phases took, so the joules cannot be divided.",)
    assert section.tables == ()
    assert [row[0].text for row in section.figures[0].data.rows] == ["window", "of which idle"]


def test_absent_and_broken_samples_are_left_out(small):
    trial = small.trials["trial_id"][0]
    rows = [(trial, 0.0, 50.0), (trial, 0.1, float("nan")), (trial, None, 70.0), ("unknown", 0.0, 1.0)]
    power = pl.DataFrame(rows, schema={"trial_id": pl.String, "t_s": pl.Float64, "power_w": pl.Float64}, orient="row")
    run = replace(small, power=power)
    assert power_windows(run, read_evidence(run)) == []  # one good sample is no trace


@given(
    seconds=st.dictionaries(
        st.sampled_from(["text_encoder", "predictor", "denoise", "vae_decode", "host", "safety"]),
        st.floats(1e-4, 10.0),
        min_size=1,
    ),
    duration_s=st.floats(0.01, 100.0),
    calls=st.integers(1, 5),
)
def test_bands_tile_the_window_in_the_order_of_the_pipeline(seconds, duration_s, calls):
    found = bands(seconds, duration_s, calls)
    assert found[0].begin_s == 0
    assert found[-1].end_s == pytest.approx(duration_s)
    assert all(a.end_s == b.begin_s for a, b in pairwise(found))
    first = [band.phase for band in found[: len(found) // calls]]
    order = ["text_encoder", "predictor", "safety", "denoise", "vae_decode", "host", "rest"]
    assert first == sorted(first, key=order.index)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=5000))
def test_thinning_keeps_extremes_order_and_limit(powers):
    power_w = np.array(powers)
    t_s = np.arange(len(powers), dtype=float)
    kept_t, kept_w = thinned(t_s, power_w, 100)
    assert len(kept_t) <= max(100, min(len(powers), 100))
    assert (np.diff(kept_t) > 0).all()
    assert kept_w.max() == power_w.max()
    assert kept_w.min() == power_w.min()
    assert (power_w[kept_t.astype(int)] == kept_w).all()


def replaced(run: Run, **tables: Any) -> Run:
    """A run whose tables are others, as if they had been read."""
    again = Run(path=run.path)
    vars(again).update(tables)
    return again
