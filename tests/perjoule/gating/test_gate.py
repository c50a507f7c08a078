from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import polars as pl
import pytest

from perjoule.errors import UsageError
from perjoule.gating import GateConfig, gate, render
from perjoule.gating.decide import minimal_detectable_effect, prompts_needed
from perjoule.run_directory import Run, load_run
from tests.perjoule.tables_of_runs import imported, rewrite, table, with_margin
from tests.perjoule.test_cli import call

SMALL: dict[str, Any] = {"ladder": (4, 16), "variants": (("ladder", 1.0),)}


def runs(folder: Path, **changes: Any) -> tuple[Run, Run]:
    baseline = with_margin(imported(table(**SMALL), folder, "base"))
    return baseline, with_margin(imported(table(**{"seed": 1, **SMALL, **changes}), folder, "candidate"))


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
    from scipy import stats

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


def test_a_margin_below_the_detectable_effect_is_a_config_error(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    with pytest.raises(UsageError, match=r"below the minimal detectable effect .* Take about \d+ prompts"):
        gate(base, candidate, config=GateConfig(margin_quality=1e-4))


@pytest.mark.parametrize(
    "bad", [{"margin_energy": 0.0}, {"alpha": 0.7}, {"looks": 4}, {"margin_quality": -1.0}, {"session_sd": -0.1}]
)
def test_bad_config(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        GateConfig(**bad)


def test_a_stored_baseline_cannot_fail_on_energy_without_the_scatter_of_sessions(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path, factor=1.1)
    unknown = gate(base, candidate, config=GateConfig(mode="stored"))
    assert unknown.verdict == "inconclusive"
    assert "another session" in " ".join(unknown.reasons)
    known = gate(base, candidate, config=GateConfig(mode="stored", session_sd=0.005))
    assert known.verdict == "fail"
    paired = gate(base, candidate)
    assert (known.energy.change.high or 0) > (paired.energy.change.high or 1)


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
        self.check(base, load_run(candidate.path), capsys, 4, "candidate lacks score q: 3 images have no number")

    def test_empty_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = runs(tmp_path)
        empty = without(candidate, pl.lit(False), "trials", "scores", "images")
        self.check(base, empty, capsys, 4, "the candidate holds no finished trial")

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


def test_every_output_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, candidate = runs(tmp_path, factor=1.2)
    found = gate(base, candidate)
    terminal = render.terminal(found)
    assert terminal.startswith("FAIL")
    assert len(terminal.splitlines()) <= 12
    assert "minimal detectable effect" in terminal
    assert "FAIL" in render.markdown(found)
    assert render.annotations(found).startswith("::error title=perjoule gate FAIL::")
    suite = Xml.fromstring(render.junit(found))
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    arguments = ["gate", "--baseline", str(base.path), "--candidate", str(candidate.path)]
    files = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md")]
    code, out, _ = call(*arguments, *files, "--json", capsys=capsys)
    record = json.loads(out)
    assert code == 1
    assert (record["verdict"], record["schema"]) == ("fail", 1)
    assert {"change", "margin", "mde", "outcome"} <= set(record["energy"])
    assert {"missing", "incomparable", "reasons"} <= set(record)
    assert (tmp_path / "j.xml").read_text() == render.junit(found)
    assert (tmp_path / "m.md").read_text() == render.markdown(found)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    hostile = rewrite(
        candidate, "environment.json", lambda e: e["comparability"].update(device="</td>|\n::error::<script>@all")
    )
    found = gate(base, hostile)
    assert "<script>" not in render.markdown(found)
    assert "\n::error::<script>" not in render.annotations(found)
    Xml.fromstring(render.junit(found))


def test_inconclusive_may_be_let_through_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, candidate = runs(tmp_path, shift=-0.135, noise=0.3)
    arguments = ["gate", "--baseline", str(base.path), "--candidate", str(candidate.path)]
    codes = [
        call(*arguments, *more, capsys=capsys)[0]
        for more in ([], ["--inconclusive", "warn"], ["--inconclusive", "fail"], ["--margin-energy", "much"])
    ]
    assert codes == [3, 0, 1, 2]


def test_detectable_effects_of_the_design() -> None:
    effects = [minimal_detectable_effect(0.25 / np.sqrt(n), 0.05) for n in (16, 32, 64, 128, 256)]
    assert effects == pytest.approx([0.155, 0.110, 0.078, 0.055, 0.039], abs=6e-4)
    assert prompts_needed(0.25, 0.15, 0.0, 0.05) == 18
    assert prompts_needed(0.25, 0.15, 0.2, 0.05) is None
