"""The gate where windows hold several prompts: energy is paired by window group, quality by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from perjoule.gating import GateConfig, gate, render
from perjoule.gating.decide import IDENTICAL
from perjoule.gating.pairing import energy_by_unit, pair_runs, window_units
from perjoule.runs.directory import Run, load_run
from tests.perjoule.statistics.test_window_groups import windowed
from tests.support.gating import HUNDRED, WIDE, of, refused
from tests.support.tables_of_runs import imported, rewrite_table, table

CONFIG = GateConfig(margin_quality=0.15)
ONE_CELL: dict[str, Any] = {"ladder": (4,), "variants": (("ladder", 1.0),)}


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


class TestIdenticalImages:
    @pytest.fixture
    def same(self, pair: tuple[Run, Run]) -> tuple[Run, Run]:
        base, candidate = (rewrite_table(run, "images", pl.col("image_id").alias("sha256")) for run in pair)
        return base, candidate

    def test_it_is_named_in_every_output(self, same: tuple[Run, Run]) -> None:
        found = gate(*same, config=WIDE)
        assert found.identical_images
        assert (found.quality.change.value, found.quality.label) == (0.0, "identical images")
        assert IDENTICAL.startswith("the images are the same, bit for bit: an A/A comparison")
        assert found.as_json()["identical_images"] is True
        assert IDENTICAL in render.terminal(found)
        assert IDENTICAL in render.markdown(found)
        assert "identical images" in render.markdown(found)

    @pytest.mark.parametrize("count", [1, 100])
    def test_one_other_image_is_enough(self, same: tuple[Run, Run], count: int) -> None:
        row = pl.int_range(pl.len()) < count
        other = pl.when(row).then(pl.lit("beef")).otherwise(pl.col("sha256")).alias("sha256")
        unlike = of(same, "candidate", lambda run: rewrite_table(run, "images", other))
        found = gate(*unlike, config=WIDE)
        assert not found.identical_images
        assert found.quality.change.value != 0.0
        assert IDENTICAL not in render.terminal(found)

    @pytest.mark.parametrize("count", [1, 100])
    def test_pictures_of_other_seeds_are_other_pictures(self, same: tuple[Run, Run], count: int) -> None:
        """As many images with the same digests, but not of the same prompt and seed."""
        seed = (pl.col("seed") + (pl.int_range(pl.len()) < count)).alias("seed")
        unlike = of(same, "candidate", lambda run: rewrite_table(run, "images", seed))
        assert not gate(*unlike, config=WIDE).identical_images

    def test_no_digests_are_no_identity(self, pair: tuple[Run, Run]) -> None:
        assert not gate(pair[0], pair[0], config=WIDE).identical_images


class TestCounts:
    """Prompts and windows are counted apart, in words and in JSON."""

    @staticmethod
    def windows(run: Run, size: int, start: int = 0) -> Run:
        """The run with the images of `size` prompts in each window; the first window takes `start`."""
        trials = run.trials.sort("cell_id", "trial_id").with_columns(
            window=(pl.int_range(pl.len()).over("cell_id") + (size - start) % size) // size
        )
        lists = [pl.col(c).explode() for c in ("prompts", "prompt_ids", "seeds", "steps")]
        merged = trials.group_by("cell_id", "window", maintain_order=True).agg(
            *lists,
            *(pl.col(c).sum() for c in ("energy_j", "duration_s", "image_count")),
            pl.exclude("energy_j", "duration_s", "image_count", "prompts", "prompt_ids", "seeds", "steps").first(),
        )
        merged.select(run.trials.columns).write_parquet(run.path / "trials.parquet")
        facts = json.loads((run.path / "environment.json").read_text())
        del facts["imported_from"]  # a table states images, not windows
        (run.path / "environment.json").write_text(json.dumps(facts))
        return load_run(run.path)

    def test_shared_windows(self, pair: tuple[Run, Run]) -> None:
        base, candidate = (self.windows(run, 5) for run in pair)
        found = gate(base, candidate, config=WIDE)
        assert (found.energy.change.n, found.energy.n_prompts) == (10, 50)
        assert (found.energy.n_windows_baseline, found.energy.n_windows_candidate) == (20, 20)
        assert (found.quality.change.n, found.quality.n_prompts, found.quality.n_windows_baseline) == (50, 50, 20)
        words = "50 prompts in 10 groups that share windows; 20 windows in the baseline, 20 in the candidate"
        assert words in render.terminal(found)
        assert words in render.markdown(found)
        assert "50 prompts; 20 windows in the baseline, 20 in the candidate" in render.terminal(found)
        record = found.as_json()
        assert (record["energy"]["n_prompts"], record["quality"]["n_windows_candidate"]) == (50, 20)

    def test_windows_put_together_otherwise_are_paired_by_whole_groups(self, pair: tuple[Run, Run]) -> None:
        """Windows of 5 against windows of 10: ten prompts are the smallest group that is whole in both."""
        base, candidate = self.windows(pair[0], 5), self.windows(pair[1], 10)
        pairs = pair_runs(base, candidate, "q")
        assert len(pairs.energy_units) == 5
        assert {len(unit.split("\x1f")) for unit in pairs.energy_units} == {10}
        mean = [run.trials.group_by("cell_id").agg(pl.col("energy_j").sum()).sort("cell_id") for run in pair]
        ratio = np.exp(pairs.log_energy).mean(0)
        assert ratio == pytest.approx((mean[1]["energy_j"] / mean[0]["energy_j"]).to_numpy(), rel=0.02)

    def test_one_group_is_no_sample(self, pair: tuple[Run, Run]) -> None:
        """All prompts in one window: 50 copies of one ratio are not 50 observations."""
        both = tuple(self.windows(run, 50) for run in pair)
        refused((both[0], both[1]), "energy has 1 ", "quality has 50 (prompts)")

    def test_n_needed_is_in_prompts(self, tmp_path: Path) -> None:
        base = imported(table(**HUNDRED, factor=1.0), tmp_path, "base")
        candidate = imported(table(**HUNDRED, seed=1, factor=1.03), tmp_path, "candidate")
        base, candidate = self.windows(base, 5), self.windows(candidate, 5)
        found = gate(base, candidate, config=GateConfig(margin_energy=0.05, margin_quality=0.3)).energy
        d = pair_runs(base, candidate, "q").log_energy.mean(1)
        from scipy.stats import norm

        groups = ((norm.ppf(0.95) + norm.ppf(0.8)) * d.std(ddof=1) / (np.log(1.05) - d.mean())) ** 2
        assert found.n_needed == pytest.approx(5 * max(2, np.ceil(groups)), abs=5)
