"""The gate where windows hold several prompts: energy is paired by window group, quality by prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from perjoule.gating import GateConfig, gate
from perjoule.gating.pairing import energy_by_unit, pair_runs, window_units
from perjoule.runs.directory import Run
from tests.perjoule.statistics.test_window_groups import windowed
from tests.support.tables_of_runs import imported, table

CONFIG = GateConfig(margin_quality=0.15)
ONE_CELL = {"ladder": (4,), "variants": (("ladder", 1.0),)}


def runs(folder: Path, sizes: tuple[int, int], prompts: int = 64) -> tuple[Run, Run]:
    """Baseline and candidate with windows of so many prompts."""
    one, other = (
        windowed(imported(table(prompts=prompts, seed=seed, **ONE_CELL), folder, f"run{seed}"), size)
        for seed, size in enumerate(sizes)
    )
    return one, other


def test_energy_is_judged_over_window_groups_and_quality_over_prompts(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path, (4, 4))
    found = gate(base, candidate, config=CONFIG)
    assert (found.energy.change.n, found.quality.change.n) == (16, 64)
    # Student's t of the 16 groups' log ratios, each the mean of its two windows
    logs = []
    for run in (base, candidate):
        frame = run.trials.with_columns(
            key=pl.col("prompt_ids").list.first(), j=pl.col("energy_j") / pl.col("image_count")
        )
        logs.append(np.log(frame.group_by("key").agg(pl.col("j").mean()).sort("key")["j"].to_numpy()))
    d = logs[1] - logs[0]
    low, high = stats.t.interval(0.9, 15, d.mean(), stats.sem(d))
    assert (found.energy.change.low, found.energy.change.high) == pytest.approx((np.expm1(low), np.expm1(high)))
    assert found.energy.change.method.endswith("Student's t over 16 window groups")


@pytest.mark.parametrize(("sizes", "groups"), [((4, 8), 8), ((4, 6), 5), ((1, 16), 4)])
def test_windows_put_together_differently_have_coarser_groups(
    tmp_path: Path, sizes: tuple[int, int], groups: int
) -> None:
    """Windows of 4 and of 6 prompts have common borders every 12 prompts: 64 prompts are 5 groups and 4 over."""
    pairs = pair_runs(*runs(tmp_path, sizes), "q")
    assert len(pairs.log_energy) == len(pairs.energy_units) == groups + (sizes == (4, 6))
    assert sum(len(unit.split("\x1f")) for unit in pairs.energy_units) == 64
    by_group = pairs.quality_by_group()
    assert by_group.shape == (len(pairs.energy_units), 1)
    weights = [len(unit.split("\x1f")) for unit in pairs.energy_units]
    assert np.average(by_group[:, 0], weights=weights) == pytest.approx(pairs.quality.mean())


def test_all_prompts_in_one_window_group_are_no_evidence_on_energy(tmp_path: Path) -> None:
    found = gate(*runs(tmp_path, (64, 64)), config=CONFIG)
    assert (found.verdict, found.exit_code) == ("invalid", 4)
    assert "energy has 1 (prompts, or groups of prompts that share windows)" in found.reasons[0]
    assert "protocol.images_per_window" in found.reasons[0]


def test_net_benefit_is_over_window_groups(tmp_path: Path) -> None:
    found = gate(*runs(tmp_path, (4, 4)), config=GateConfig(joules_per_quality=100.0, margin_quality=0.15))
    assert found.net_benefit_j is not None
    assert found.net_benefit_j.n == 16


def test_the_units_of_a_run_are_named_by_their_first_prompt(tmp_path: Path) -> None:
    base, _ = runs(tmp_path, (4, 4), prompts=8)
    units = window_units(base)
    assert dict(units.iter_rows()) == {f"p{i:03d}": f"p{4 * (i // 4):03d}" for i in range(8)}
    energy = energy_by_unit(base)
    assert set(energy["unit"]) == {"p000", "p004"}
    assert energy["energy"].to_list() == pytest.approx([5.0, 5.0], rel=0.03)
