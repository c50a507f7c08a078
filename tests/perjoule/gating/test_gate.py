from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from perjoule.errors import UsageError
from perjoule.gating import GateConfig, examine, gate, render
from perjoule.gating.pairing import pair_runs
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.frontier import frontier
from perjoule.statistics.resampling import Array
from tests.perjoule.statistics.test_window_groups import windowed
from tests.perjoule.test_cli import call
from tests.support.gating import SMALL, runs
from tests.support.tables_of_runs import imported, rewrite, rewrite_table, table, with_margin


def without(run: Run, keep: pl.Expr, *tables: str) -> Run:
    for name in tables:
        path = run.path / f"{name}.parquet"
        pl.read_parquet(path).filter(keep).write_parquet(path)
    return load_run(run.path)


def test_no_change_passes(tmp_path: Path) -> None:
    found = gate(*runs(tmp_path))
    assert (found.verdict, found.exit_code) == ("pass", 0)
    assert found.energy.change.value == pytest.approx(0, abs=0.01)
    assert found.energy.mde is not None
    assert found.energy.mde < found.energy.margin


@pytest.mark.parametrize(
    ("changes", "energy", "quality"),
    [({"factor": 1.1}, "fail", "pass"), ({"shift": -0.3}, "pass", "fail"), ({"factor": 0.7}, "pass", "pass")],
)
def test_each_axis_is_judged(tmp_path: Path, changes: dict[str, float], energy: str, quality: str) -> None:
    found = gate(*runs(tmp_path, **changes))
    assert (found.energy.outcome, found.quality.outcome) == (energy, quality)
    assert found.verdict == ("fail" if "fail" in (energy, quality) else "pass")
    assert found.energy.change.value == pytest.approx(changes.get("factor", 1) - 1, abs=0.01)
    assert found.quality.change.value == pytest.approx(changes.get("shift", 0), abs=0.02)
    if "factor" in changes and changes["factor"] < 1:
        assert found.energy.label == "improved"


def test_limits_are_students_t_of_the_log_ratios(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path, ladder=(4,))
    found = gate(with_margin(imported(table(**{**SMALL, "ladder": (4,)}), tmp_path, "one")), candidate).energy
    one, other = (
        load_run(tmp_path / n).trials.explode("prompt_ids").group_by("prompt_ids").agg(pl.col("energy_j").mean())
        for n in ("one", "candidate")
    )
    both = one.join(other, on="prompt_ids", suffix="_c")
    d = np.log(both["energy_j_c"] / both["energy_j"])
    low, high = stats.t.interval(0.9, 63, d.mean(), stats.sem(d))
    assert (found.change.low, found.change.high) == pytest.approx((np.expm1(low), np.expm1(high)), rel=1e-9)
    _ = base


def test_between_the_margins_is_inconclusive_with_a_number_of_prompts(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path, shift=-0.135, noise=0.3)
    found = gate(base, candidate)
    assert (found.verdict, found.exit_code) == ("inconclusive", 3)
    assert "would decide" in " ".join(found.reasons)


def test_one_bad_cell_fails_although_the_mean_is_fine(tmp_path: Path) -> None:
    base = with_margin(imported(table(), tmp_path, "base"))
    worse = table(seed=1).with_columns(
        energy_j=pl.when((pl.col("variant") == "quick") & (pl.col("steps") == 64))
        .then(pl.col("energy_j") * 1.3)
        .otherwise(pl.col("energy_j"))
    )
    found = gate(base, imported(worse, tmp_path, "candidate"))
    assert found.energy.outcome == "pass"
    assert found.verdict == "fail"
    assert "cells worse than the margin in energy: quick-064" in found.reasons


def log_ratios(base: Run, candidate: Run) -> Array:
    return pair_runs(base, candidate, "q").log_energy.mean(1)


def test_an_interval_beyond_the_margin_is_not_said_to_contain_it(tmp_path: Path) -> None:
    """Worse at 5 %, but not at the 2.5 % that Holm's correction asks of one of two tests."""
    base, candidate = runs(tmp_path, ladder=(4,))
    base = with_margin(imported(table(**{**SMALL, "ladder": (4,)}), tmp_path, "one"))
    d = log_ratios(base, candidate)
    factor = 1.05 * np.exp(1.8 * d.std(ddof=1) / np.sqrt(len(d)) - d.mean())
    candidate = rewrite_table(candidate, "trials", pl.col("energy_j") * factor)
    found = gate(base, candidate)
    assert (found.verdict, found.energy.outcome) == ("inconclusive", "inconclusive")
    assert (found.energy.change.low or 0) > 0.05
    (reason,) = found.reasons
    assert reason.startswith("energy: the whole interval is worse than the margin, but each of 2 tests")


def test_a_margin_below_the_detectable_effect_is_a_config_error(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    with pytest.raises(UsageError, match=r"below the minimal detectable effect .* Use about \d+ prompts"):
        gate(base, candidate, config=GateConfig(margin_quality=1e-4))


def test_a_stored_baseline_cannot_fail_on_energy_without_the_scatter_of_sessions(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path, factor=1.1)
    unknown = gate(base, candidate, config=GateConfig(mode="stored"))
    assert unknown.verdict == "inconclusive"
    (reason,) = unknown.reasons
    assert reason.startswith("energy is worse than the margin, but the baseline is from another session")
    known = gate(base, candidate, config=GateConfig(mode="stored", session_sd=0.005))
    assert known.verdict == "fail"
    paired = gate(base, candidate)
    assert (known.energy.change.high or 0) > (paired.energy.change.high or 1)


def test_prompts_do_not_make_up_for_the_scatter_between_sessions(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    for session_sd in (0.03, 0.04):
        with pytest.raises(UsageError, match="More prompts do not reduce the variation between sessions"):
            gate(base, candidate, config=GateConfig(mode="stored", session_sd=session_sd))


def test_the_number_of_prompts_asked_for_resolves_the_margin(tmp_path: Path) -> None:
    base = with_margin(imported(table(**SMALL, prompts=16), tmp_path, "base"))
    candidate = with_margin(imported(table(**SMALL, prompts=16, seed=1, factor=1.02), tmp_path, "candidate"))
    sd = log_ratios(base, candidate).std(ddof=1)
    # sessions alone leave 4 % of the margin's square to the prompts
    margin, z = 0.03, stats.norm.ppf(0.95) + stats.norm.ppf(0.8)
    between = 0.96 * (np.log1p(margin) / z) ** 2
    config = GateConfig(mode="stored", session_sd=np.sqrt(between / 2), margin_energy=margin)
    with pytest.raises(UsageError) as caught:
        gate(base, candidate, config=config)
    asked = int(re.findall(r"Use about (\d+) prompts", str(caught.value))[0])
    effect, one_less = (np.expm1(z * np.sqrt(sd**2 / n + between)) for n in (asked, asked - 1))
    assert effect <= margin < one_less


def test_the_bill_counts_images_and_not_window_groups(tmp_path: Path) -> None:
    """Windows of 4 over 10 prompts: the last group has 2 of them."""
    base, candidate = (
        windowed(imported(table(**SMALL, prompts=10, seed=seed, factor=1 + seed / 10), tmp_path, f"run{seed}"), 4)
        for seed in (0, 1)
    )
    dear = pl.col("prompt_ids").list.contains("p009")
    candidate = rewrite_table(candidate, "trials", pl.when(dear).then(pl.col("energy_j") * 5).otherwise("energy_j"))
    sums = [float(run.trials["energy_j"].sum()) for run in (candidate, base)]
    assert pair_runs(base, candidate, "q").total_energy_change == pytest.approx(sums[0] / sums[1] - 1)


class TestProvenance:
    """A verdict is only as good as the weaker of the two runs."""

    def test_of_both_runs_is_named(self, tmp_path: Path) -> None:
        base, candidate = runs(tmp_path)
        base = rewrite_table(base, "trials", pl.lit("simulated").alias("provenance"))
        found = gate(base, candidate, config=GateConfig(change=("provenance",)))
        assert found.provenance == ("measured", "simulated")
        assert "SIMULATED" in render.terminal(found).splitlines()[0]
        assert "the joules are SIMULATED, not measured" in " ".join(found.notes)

    def test_that_a_window_does_not_state_is_not_taken_for_measured(self, tmp_path: Path) -> None:
        first = pl.int_range(pl.len()) == 0
        base, candidate = (
            rewrite_table(run, "trials", pl.when(~first).then("provenance").alias("provenance"))
            for run in runs(tmp_path)
        )
        found = gate(base, candidate)
        assert found.provenance == ("measured", "not stated")
        assert {p["provenance"] for p in frontier(base, resamples=10)["points"]} == {"measured", "not stated"}


def test_identical_images_have_no_quality_difference(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    for run in (base, candidate):
        file = run.path / "images.parquet"
        pl.read_parquet(file).with_columns(sha256=pl.col("image_id")).write_parquet(file)
    found = gate(load_run(base.path), load_run(candidate.path))
    assert (found.quality.change.value, found.quality.mde) == (0.0, 0.0)


def test_a_trade_is_judged_by_net_benefit_if_a_price_is_declared(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path, factor=1.1, shift=0.2)
    assert gate(base, candidate).verdict == "fail"
    found = gate(base, candidate, config=GateConfig(joules_per_quality=100.0))
    assert found.verdict == "pass"
    assert found.net_benefit_j is not None
    # 0.2 × 100 J less a tenth of the mean of 5 and 17 J
    assert found.net_benefit_j.value == pytest.approx(20 - 1.1, abs=0.5)


class TestNeverExitZero:
    """The eight ways in which other gates let things through."""

    def check(self, base: Run, candidate: Run, capsys: pytest.CaptureFixture[str], code: int, words: str) -> None:
        found, out, err = call("gate", "--baseline", str(base.path), "--candidate", str(candidate.path), capsys=capsys)
        assert found == code
        assert words in out + err
        assert "Traceback" not in err
        as_json = call(
            "gate", "--baseline", str(base.path), "--candidate", str(candidate.path), "--json", capsys=capsys
        )
        assert as_json[0] == code
        if code == 4 and as_json[1]:
            assert json.loads(as_json[1])["verdict"] == "invalid"

    def test_renamed_cell(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path, variants=(("ladder2", 1.0),))
        self.check(base, candidate, capsys, 4, "candidate lacks cell ladder-004: the candidate has ladder2-004")

    def test_deleted_cell(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path, ladder=(4,))
        self.check(base, candidate, capsys, 4, "candidate lacks cell ladder-016")

    def test_deleted_prompts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path, prompts=60)
        self.check(base, candidate, capsys, 4, "8 images of 4 prompts are in the baseline only")

    def test_other_gpu(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        base = rewrite(base, "environment.json", lambda e: e["comparability"].update(device=["H100"]))
        candidate = rewrite(candidate, "environment.json", lambda e: e["comparability"].update(device=["L4"]))
        self.check(base, candidate, capsys, 4, "device differs: baseline ['H100'], candidate ['L4']")

    def test_other_driver(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        base = rewrite(base, "environment.json", lambda e: e["comparability"].update(driver="580"))
        candidate = rewrite(candidate, "environment.json", lambda e: e["comparability"].update(driver="590"))
        self.check(base, candidate, capsys, 4, "driver differs: baseline '580', candidate '590'")

    def test_other_metric_weights(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        candidate = rewrite(candidate, "metrics.json", lambda m: m["metrics"][0].update(weights_digest="beef"))
        self.check(
            base, candidate, capsys, 4, "metrics.q.weights_digest differs: baseline 'imported', candidate 'beef'"
        )

    def test_nan_scores(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        file = candidate.path / "scores.parquet"
        scores = pl.read_parquet(file).with_row_index()
        scores.with_columns(value=pl.when(pl.col("index") < 3).then(float("nan")).otherwise(pl.col("value"))).drop(
            "index"
        ).write_parquet(file)
        self.check(base, load_run(candidate.path), capsys, 4, "candidate lacks score q: 3 images have no score")

    def test_empty_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        empty = without(candidate, pl.lit(False), "trials", "scores", "images")
        self.check(base, empty, capsys, 4, "the candidate has no finished trial")

    def test_what_else_is_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        no_scores = without(candidate, pl.lit(False), "scores")
        self.check(base, no_scores, capsys, 4, "candidate lacks metric q")
        file = base.path / "trials.parquet"
        blank = pl.read_parquet(file).with_row_index().with_columns(
            energy_j=pl.when(pl.col("index") == 0).then(None).otherwise(pl.col("energy_j"))
        )  # fmt: skip
        blank.drop("index").write_parquet(file)
        self.check(load_run(base.path), candidate, capsys, 4, "baseline lacks energy")

    def test_unlike_provenance(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base = with_margin(imported(table(**SMALL), tmp_path, "base"))
        guessed = table(**SMALL).with_columns(provenance=pl.lit("estimated"))
        self.check(base, imported(guessed, tmp_path, "candidate"), capsys, 4, "provenance differs")

    def test_disturbed_windows(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        file = candidate.path / "trials.parquet"
        pl.read_parquet(file).with_columns(warnings=pl.lit(["W260: two strangers on the board"])).write_parquet(file)
        self.check(base, load_run(candidate.path), capsys, 4, "W260: two strangers on the board")

    def test_a_declared_change_is_no_difference(self, tmp_path: Path) -> None:
        base, candidate = runs(tmp_path)
        candidate = rewrite(candidate, "environment.json", lambda e: e["comparability"].update(torch="3"))
        assert gate(base, candidate).verdict == "invalid"
        assert gate(base, candidate, config=GateConfig(change=("torch",))).verdict == "pass"


def test_inconclusive_may_be_let_through_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, candidate = runs(tmp_path, shift=-0.135, noise=0.3)
    arguments = ["gate", "--baseline", str(base.path), "--candidate", str(candidate.path)]
    codes = [
        call(*arguments, *more, capsys=capsys)[0]
        for more in ([], ["--inconclusive", "warn"], ["--inconclusive", "fail"], ["--margin-energy", "much"])
    ]
    assert codes == [3, 0, 1, 2]


def test_readers_get_a_verdict_where_the_gate_refuses_to_guess(pair: tuple[Run, Run]) -> None:
    narrow = GateConfig(margin_energy=1e-6, margin_quality=1e-6)
    with pytest.raises(UsageError, match="below the minimal detectable effect"):
        gate(*pair, config=narrow)
    verdict, differences = examine(*pair, config=narrow)
    assert differences is not None
    assert verdict.verdict == "inconclusive"
    assert "below the minimal detectable effect" in verdict.reasons[0]
    assert any("below the minimal" not in reason for reason in verdict.reasons)  # those of the verdict follow
    wide = GateConfig(margin_energy=0.5, margin_quality=0.5)
    assert examine(*pair, config=wide)[0].as_json() == gate(*pair, config=wide).as_json()
    assert examine(pair[0], without(pair[1], pl.lit(False), "trials"))[1] is None
