"""Every check that stands between a run and a verdict: remove one, and a test here fails.

`tests/benchmarks/gate_mutants.py` removes each of them once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import polars as pl
import pytest

from perjoule.errors import UsageError
from perjoule.files import write_json
from perjoule.gating import GateConfig, gate, render
from perjoule.gating.decide import IDENTICAL
from perjoule.gating.disturbances import INVALIDATING
from perjoule.gating.pairing import pair_runs
from perjoule.gating.records import Verdict
from perjoule.runs.directory import Run, load_run
from perjoule.runs.environment import describe
from perjoule.suite.reading import write_suite
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.types import Cache, Denoiser, Lora, MetricSpec, Protocol, Runtime, Suite, Variant
from perjoule.warnings import WARNINGS
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, rewrite, rewrite_table, table, with_margin

# 50 prompts × 1 seed × 2 rungs: 100 windows, so that 5 % of them are 5
HUNDRED: dict[str, Any] = {"ladder": (4, 16), "variants": (("ladder", 1.0),), "prompts": 50, "seeds": 1}
WIDE = GateConfig(margin_energy=0.3, margin_quality=0.3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two comparable runs that pass."""
    folder = tmp_path_factory.mktemp("made")
    base = imported(table(**HUNDRED), folder, "base")
    candidate = imported(table(**HUNDRED, seed=1), folder, "candidate")
    assert gate(base, candidate, config=WIDE).verdict == "pass"
    return base, candidate


@pytest.fixture
def pair(made: tuple[Run, Run], tmp_path: Path) -> tuple[Run, Run]:
    """The same, to be edited."""
    base, candidate = (load_run(shutil.copytree(run.path, tmp_path / run.path.name)) for run in made)
    return base, candidate


def of(pair: tuple[Run, Run], side: str, edit: Callable[[Run], Run]) -> tuple[Run, Run]:
    """The pair with one side edited."""
    base, candidate = pair
    return (edit(base), candidate) if side == "baseline" else (base, edit(candidate))


def marked(run: Run, text: str, count: int) -> Run:
    """The run with a warning on its first windows."""
    row = pl.int_range(pl.len())
    words = pl.when(row < count).then(pl.lit([text])).otherwise(pl.lit([], pl.List(pl.String)))
    return rewrite_table(run, "trials", words.alias("warnings"))


def refused(pair: tuple[Run, Run], *words: str) -> Verdict:
    found = gate(*pair, config=WIDE)
    assert (found.verdict, found.exit_code) == ("invalid", 4)
    text = "\n".join(found.reasons)
    assert all(word in text for word in words), text
    assert (found.energy.outcome, found.energy.change.value) == ("invalid", None)
    return found


class TestInvalidWindows:
    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    @pytest.mark.parametrize("code", ["W202", "W212", "W213", "W215", "W251", "W260", "W263"])
    def test_each_code(self, pair: tuple[Run, Run], code: str, side: str) -> None:
        """The joules are there: another meter, or an older perjoule, may have kept them."""
        text = f"{code}: so it was"
        refused(of(pair, side, lambda run: marked(run, text, 100)), f"{side}: 100 of 100 windows", text)

    @pytest.mark.parametrize(
        "name",
        ["hardware slowdown", "thermal slowdown", "hardware thermal slowdown", "power brake", "sync boost"],
    )
    def test_a_board_that_was_held_back(self, pair: tuple[Run, Run], name: str) -> None:
        text = f"W261: the board was slowed down: power cap, {name}"
        refused(of(pair, "candidate", lambda run: marked(run, text, 100)), text)

    @pytest.mark.parametrize(
        "text",
        [
            "W261: the board was slowed down: power cap",
            "W201: the bound is 5 % of the energy",
            "W203: no driver counter; see W260 for other causes, or heat",
        ],
    )
    def test_what_forbids_nothing(self, pair: tuple[Run, Run], text: str) -> None:
        assert gate(*of(pair, "candidate", lambda run: marked(run, text, 100)), config=WIDE).verdict == "pass"

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_one_window_in_twenty_is_tolerated_and_named(self, pair: tuple[Run, Run], side: str) -> None:
        text = "W260: 1 other compute process on the board"
        found = gate(*of(pair, side, lambda run: marked(run, text, 5)), config=WIDE)
        assert found.verdict == "pass"
        assert f"{side}: 5 of 100 windows were disturbed but are included, e.g. {text}" in found.notes
        refused(of(pair, side, lambda run: marked(run, text, 6)), f"{side}: 6 of 100 windows")

    def test_every_code_was_considered(self) -> None:
        """A new code is put into one of the two sets, or this fails."""
        bearable = {
            # the bound says it, or both sides share it
            "W201", "W203", "W204", "W205", "W206", "W207", "W208", "W209", "W210", "W211", "W214", "W216", "W223",
            "W230", "W232", "W262", "W264", "W265",
            # there are no joules, which is refused as such
            "W220", "W221", "W231", "W240", "W250", "W299",
            # by its text: `test_a_board_that_was_held_back`
            "W261",
            # of pictures and prompts, and of tables
            "W270", "W271", "W272", "W280", "W281",
        }  # fmt: skip
        assert not bearable & set(INVALIDATING)
        assert set(WARNINGS) <= bearable | set(INVALIDATING)


class TestMissing:
    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_energy(self, pair: tuple[Run, Run], side: str) -> None:
        blank = pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise(pl.col("energy_j")).alias("energy_j")
        refused(
            of(pair, side, lambda run: rewrite_table(run, "trials", blank)), f"{side} lacks energy", "1 windows have no"
        )

    @pytest.mark.parametrize("energy", [0.0, -1.0])
    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_no_energy_is_zero(self, pair: tuple[Run, Run], side: str, energy: float) -> None:
        low = pl.when(pl.int_range(pl.len()) == 3).then(energy).otherwise(pl.col("energy_j")).alias("energy_j")
        refused(
            of(pair, side, lambda run: rewrite_table(run, "trials", low)), f"{side}: 1 windows have zero or negative"
        )

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_a_failed_trial(self, pair: tuple[Run, Run], side: str) -> None:
        failure = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("ValueError: x")).alias("failure")
        refused(
            of(pair, side, lambda run: rewrite_table(run, "trials", failure)),
            f"{side} lacks trial", "1 trials failed: ValueError: x",
        )  # fmt: skip

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_all_trials_failed(self, pair: tuple[Run, Run], side: str) -> None:
        failed = of(pair, side, lambda run: rewrite_table(run, "trials", pl.lit("out of memory").alias("failure")))
        refused(failed, f"the {side} has no finished trial")

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    @pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
    def test_a_score(self, pair: tuple[Run, Run], side: str, value: float | None) -> None:
        row = pl.int_range(pl.len()) == 3
        edited = of(
            pair,
            side,
            lambda run: rewrite_table(
                run,
                "scores",
                pl.when(row).then(pl.lit(value, pl.Float64)).otherwise(pl.col("value")).alias("value"),
                pl.when(row).then(pl.lit("no memory")).otherwise(pl.col("reason_unscored")).alias("reason_unscored"),
            ),
        )
        refused(edited, f"{side} lacks score q: 1 images have no score; most frequent reason: no memory")

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_an_image_without_a_row_of_scores(self, pair: tuple[Run, Run], side: str) -> None:
        def drop(run: Run) -> Run:
            file = run.path / "scores.parquet"
            pl.read_parquet(file)[1:].write_parquet(file)
            return load_run(run.path)

        refused(of(pair, side, drop), f"{side} lacks score q: 1 images have no score")

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_the_metric(self, pair: tuple[Run, Run], side: str) -> None:
        other = pl.lit("other").alias("metric")
        refused(of(pair, side, lambda run: rewrite_table(run, "scores", other)), f"{side} lacks metric q")
        unknown = of(pair, side, lambda run: rewrite(run, "metrics.json", lambda m: m.update(metrics=[])))
        refused(unknown, f"{side} lacks metric q: scored metrics: none")

    def test_a_cell_and_a_prompt(self, tmp_path: Path) -> None:
        base = imported(table(**HUNDRED), tmp_path, "base")
        cell = imported(table(**HUNDRED | {"ladder": (4,)}), tmp_path, "cell")
        refused((base, cell), "candidate lacks cell ladder-016")
        prompts = imported(table(**HUNDRED | {"prompts": 49}), tmp_path, "prompts")
        refused((base, prompts), "candidate lacks prompt p049: cell ladder-004: 1 images of 1 prompts")
        seeds = imported(table(**HUNDRED).with_columns(seed=pl.col("seed") + 1), tmp_path, "seeds")
        refused((base, seeds), "50 images of 50 prompts are in the baseline only")

    def test_more_than_the_baseline_has_is_noted_not_judged(self, tmp_path: Path) -> None:
        base = imported(table(**HUNDRED), tmp_path, "base")
        more = imported(table(**HUNDRED | {"ladder": (4, 16, 32), "prompts": 60}), tmp_path, "more")
        found = gate(base, more, config=WIDE)
        assert found.verdict == "pass"
        assert "cells that only the candidate has are not judged: ladder-032" in found.notes
        assert [cell.cell_id for cell in found.cells] == ["ladder-004", "ladder-016"]

    def test_one_prompt_is_too_few(self, tmp_path: Path) -> None:
        one = imported(table(**HUNDRED | {"prompts": 1}), tmp_path, "one")
        refused((one, one), "needs at least 2 pairs", "quality has 1 (prompts)")


# another value of each field of a variant
OTHER: dict[str, Any] = {
    "model": "other", "role": "control", "policy": "other", "policy_args": {"a": 1}, "revision": "abc",
    "file_variant": "fp16", "denoiser": Denoiser(model="m", file="f"), "lora": Lora(model="m", file="f"),
    "scheduler": "DDIMScheduler", "scheduler_args": {"timestep_spacing": "trailing"}, "timesteps": (4, 3),
    "guidance": 3.0, "guidance_mode": "embedded", "call_args": {"eta": 1.0}, "negative_prompt": "ugly",
    "dtype": "float16", "width_px": 512, "height_px": 768, "batch_size": 4, "cache": Cache(kind="deepcache"),
    "runtime": Runtime(compile="default"), "safety_checker": True, "family": "other",
}  # fmt: skip
NOT_COMPARED = ("name", "steps", "levels")


class TestComparability:
    def with_suite(self, run: Run, edit: Callable[[Suite], Suite]) -> Run:
        write_suite(edit(run.suite), run.path / "suite.toml")
        fresh = load_run(run.path)
        # parsing would refuse some combinations; the gate must not rely on that
        fresh.__dict__["suite"] = edit(run.suite)
        return fresh

    def differs(self, pair: tuple[Run, Run], key: str, change: str) -> Verdict:
        found = gate(*pair, config=WIDE)
        assert found.verdict == "invalid"
        assert [difference.key for difference in found.incomparable] == [key]
        declared = gate(*pair, config=replace(WIDE, change=(change,)))
        assert declared.verdict == "pass"
        return found

    @pytest.mark.parametrize("key", [field.name for field in fields(Variant)])
    def test_each_key_of_a_variant(self, pair: tuple[Run, Run], key: str) -> None:
        if key in NOT_COMPARED:
            return
        edited = of(
            pair,
            "candidate",
            lambda run: self.with_suite(
                run, lambda s: replace(s, variants=(replace(s.variants[0], **{key: OTHER[key]}),))
            ),
        )
        found = self.differs(edited, f"variants.ladder.{key}", key)
        value = OTHER[key]
        shown = asdict(value) if hasattr(value, "__dataclass_fields__") else value
        assert found.incomparable[0].candidate == shown
        assert repr(shown) in found.reasons[0]

    @pytest.mark.parametrize("key", ["batch_size", "images_per_window", "iterations"])
    def test_each_key_of_the_protocol(self, pair: tuple[Run, Run], key: str) -> None:
        edited = of(
            pair,
            "candidate",
            lambda run: self.with_suite(run, lambda s: replace(s, protocol=replace(s.protocol, **{key: 7}))),
        )
        self.differs(edited, f"protocol.{key}", key)

    @pytest.mark.parametrize("key", ["weights_digest", "direction", "track", "unit"])
    def test_each_key_of_the_metric(self, pair: tuple[Run, Run], key: str) -> None:
        other = {"weights_digest": "beef", "direction": "lower", "track": "alignment", "unit": "JOD"}[key]
        edited = of(
            pair,
            "candidate",
            lambda run: rewrite(run, "metrics.json", lambda m: m["metrics"][0].update({key: other})),
        )
        self.differs(edited, f"metrics.q.{key}", key)

    def test_options_of_the_metric(self, pair: tuple[Run, Run]) -> None:
        edited = of(
            pair,
            "candidate",
            lambda run: self.with_suite(
                run, lambda s: replace(s, metrics=replace(s.metrics, options={"q": {"model": "other"}}))
            ),
        )
        self.differs(edited, "metrics.q.options", "options")

    @pytest.mark.parametrize(("key", "value"), [("boundary", "cpu-package"), ("provenance", "estimated")])
    def test_each_column_of_the_trials(self, pair: tuple[Run, Run], key: str, value: str) -> None:
        edited = of(pair, "candidate", lambda run: rewrite_table(run, "trials", pl.lit(value).alias(key)))
        self.differs(edited, key, key)

    @pytest.mark.slow
    def test_each_key_of_the_system(self, pair: tuple[Run, Run]) -> None:
        """All that a run records as its comparability, whatever the keys are."""
        suite = pair[0].suite
        with SyntheticMeter(50.0, VirtualClock(), uncertainty_j=0.05) as meter:
            recorded = describe(suite, meter, {"m": "abc"}, [])["comparability"]
        assert {"device", "meter", "driver", "power_limit_w", "models"} <= set(recorded)
        both = [rewrite(run, "environment.json", lambda e: e.update(comparability=recorded)) for run in pair]
        assert gate(both[0], both[1], config=WIDE).verdict == "pass"
        for key in recorded:
            environment = json.loads((pair[1].path / "environment.json").read_text())
            another = {"m": "another"} if isinstance(recorded[key], dict) else "another"
            for other in ({**recorded, key: another}, {k: v for k, v in recorded.items() if k != key}):
                write_json(pair[1].path / "environment.json", environment | {"comparability": other})
                self.differs((both[0], load_run(pair[1].path)), key, key)
                # and a key that only the candidate has
                self.differs((load_run(pair[1].path), both[0]), key, key)
            write_json(pair[1].path / "environment.json", environment)

    def test_the_protocol_keys_that_do_not_count(self, pair: tuple[Run, Run]) -> None:
        """More blocks or rest change how well something is known, not what."""
        edited = of(
            pair,
            "candidate",
            lambda run: self.with_suite(
                run, lambda s: replace(s, protocol=Protocol(seeds=s.protocol.seeds, blocks=3, cooldown_s=1.0))
            ),
        )
        assert gate(*edited, config=WIDE).verdict == "pass"


class TestPrice:
    """`--joules-per-quality`: the net benefit decides, in both directions and in every output."""

    @pytest.fixture
    def traded(self, tmp_path: Path) -> tuple[Run, Run]:
        base = with_margin(imported(table(**HUNDRED), tmp_path, "base"))
        return base, with_margin(imported(table(**HUNDRED, seed=1, factor=1.1, shift=0.2), tmp_path, "candidate"))

    def test_the_margins_alone_fail(self, traded: tuple[Run, Run]) -> None:
        assert gate(*traded).verdict == "fail"

    @pytest.mark.parametrize(
        ("price", "verdict"), [(100.0, "pass"), (1.0, "fail"), (5.5, "inconclusive"), (5.8, "inconclusive")]
    )
    def test_the_price_decides(
        self, traded: tuple[Run, Run], price: float, verdict: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        base, candidate = (str(run.path) for run in traded)
        junit = tmp_path / "j.xml"
        code, out, _ = call(
            "gate", "--baseline", base, "--candidate", candidate, "--joules-per-quality", str(price), "--json",
            "--junit", str(junit), capsys=capsys,
        )  # fmt: skip
        record = json.loads(out)
        assert (code, record["verdict"]) == ({"pass": 0, "fail": 1, "inconclusive": 3}[verdict], verdict)
        # 0.2 at the price, less a tenth of the mean of 5 and 17 J
        assert record["net_benefit_j"]["value"] == pytest.approx(0.2 * price - 1.1, abs=0.01 * price + 0.1)
        assert any("this price decides" in reason for reason in record["reasons"])
        suite = Xml.parse(junit).getroot()
        assert suite.get("failures") == str(int(verdict == "fail"))
        assert suite.get("skipped") == str(int(verdict == "inconclusive"))
        assert (suite.get("tests"), suite.get("errors")) == ("3", "0")

    def test_the_other_way_round(self, traded: tuple[Run, Run]) -> None:
        """Less energy, less quality: worth it at a low price of quality only."""
        back = (traded[1], traded[0])
        assert gate(*back, config=GateConfig(joules_per_quality=1.0)).verdict == "pass"
        assert gate(*back, config=GateConfig(joules_per_quality=100.0)).verdict == "fail"

    def test_no_margin_stands_in_the_way(self, traded: tuple[Run, Run]) -> None:
        """Margins below their detectable effect are an error only where margins decide."""
        priced = GateConfig(joules_per_quality=100.0, margin_quality=1e-6, margin_energy=1e-6)
        assert gate(*traded, config=priced).verdict == "pass"

    def test_open_margins_do_not_stand_in_the_way_either(self, pair: tuple[Run, Run]) -> None:
        narrow = GateConfig(margin_quality=1e-6, margin_energy=1e-6)
        with pytest.raises(UsageError, match="below the minimal detectable effect"):
            gate(*pair, config=narrow)
        assert gate(*pair, config=replace(narrow, joules_per_quality=100.0)).verdict == "inconclusive"

    def test_another_session_counts_here_too(self, traded: tuple[Run, Run]) -> None:
        priced = GateConfig(joules_per_quality=1.0)
        unknown = gate(*traded, config=replace(priced, mode="stored"))
        assert unknown.verdict == "inconclusive"
        assert "another session" in " ".join(unknown.reasons)
        paired = gate(*traded, config=priced).net_benefit_j
        known = gate(*traded, config=replace(priced, mode="stored", session_sd=0.03)).net_benefit_j
        assert paired is not None
        assert known is not None
        width = [(b.high or 0) - (b.low or 0) for b in (paired, known)]
        # 3 % of some 11 J in each of two sessions, at 5 % a side
        assert width[1] > width[0] + 0.5
        assert gate(*traded, config=replace(priced, mode="stored", session_sd=0.001)).verdict == "fail"


class TestIdenticalImages:
    @pytest.fixture
    def same(self, pair: tuple[Run, Run]) -> tuple[Run, Run]:
        base, candidate = (rewrite_table(run, "images", pl.col("image_id").alias("sha256")) for run in pair)
        return base, candidate

    def test_it_is_named_in_every_output(self, same: tuple[Run, Run]) -> None:
        found = gate(*same, config=WIDE)
        assert found.identical_images
        assert (found.quality.change.value, found.quality.label) == (0.0, "identical images")
        assert IDENTICAL == "the images are the same, bit for bit: quality cannot differ"
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


class TestSmallSamples:
    """Below the minimal detectable effect only an open verdict is an error."""

    @staticmethod
    def scattered(folder: Path, name: str, **changes: Any) -> Run:
        """Twelve prompts whose joules scatter by a tenth: margins of 5 % cannot be resolved."""
        seed = changes.pop("seed", 0)
        frame = table(**HUNDRED | {"prompts": 12} | changes, seed=seed)
        chance = np.random.default_rng(seed + 7)
        noise = pl.Series(np.exp(0.12 * chance.normal(size=len(frame))))
        return with_margin(imported(frame.with_columns(energy_j=pl.col("energy_j") * noise), folder, name))

    def decided(
        self, folder: Path, capsys: pytest.CaptureFixture[str], *more: str, **changes: Any
    ) -> tuple[int, dict[str, Any], str]:
        base = self.scattered(folder, "base")
        candidate = self.scattered(folder, "candidate", seed=1, **changes)
        code, out, err = call(
            "gate", "--baseline", str(base.path), "--candidate", str(candidate.path), "--json", *more, capsys=capsys
        )
        return code, json.loads(out) if out else {}, err

    def test_an_open_one_is_refused_with_both_counts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = self.decided(tmp_path, capsys)
        assert code == 2
        assert "the margin on energy (0.05) is below the minimal detectable effect" in err
        assert "12 prompts; 24 rows in the baseline, 24 in the candidate" in err

    @pytest.mark.parametrize(("factor", "code", "outcome"), [(0.28, 0, "pass"), (1.72, 1, "fail")])
    def test_a_change_far_outside_the_margin_stands(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, code: int, outcome: str
    ) -> None:
        found, record, _ = self.decided(tmp_path, capsys, factor=factor)
        assert (found, record["verdict"], record["energy"]["outcome"]) == (code, outcome, outcome)
        assert record["energy"]["mde"] > record["energy"]["margin"]
        assert record["energy"]["change"]["value"] == pytest.approx(factor - 1, abs=0.15)

    def test_a_run_that_fails_by_quality_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found, record, _ = self.decided(tmp_path, capsys, shift=-0.5)
        assert (found, record["energy"]["outcome"]) == (1, "inconclusive")

    def test_a_stored_baseline_that_cannot_fail_is_inconclusive(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found, record, _ = self.decided(tmp_path, capsys, "--mode", "stored", factor=1.72)
        assert (found, record["verdict"]) == (3, "inconclusive")
        assert "another session" in record["reasons"][0]


@pytest.mark.parametrize("changes", [{"factor": 1.2}, {"shift": -0.5}])
def test_a_single_cell_fails_by_the_axes(tmp_path: Path, changes: dict[str, float]) -> None:
    """There are no cells to fail by themselves."""
    one = HUNDRED | {"ladder": (4,)}
    base = imported(table(**one), tmp_path, "base")
    found = gate(
        base, imported(table(**one, seed=1, **changes), tmp_path, "candidate"), config=GateConfig(margin_quality=0.1)
    )
    assert (found.verdict, found.exit_code, len(found.cells)) == ("fail", 1, 1)


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


def test_an_advisory_metric_is_named_as_such(pair: tuple[Run, Run]) -> None:
    base = rewrite(pair[0], "metrics.json", lambda m: m["metrics"][0].update(advisory=True))
    assert "q is advisory" in " ".join(gate(base, pair[1], config=WIDE).notes)
    assert {field.name for field in fields(MetricSpec)} >= {"margin", "scale"}


def test_an_unknown_metric_is_missing_not_without_margin(pair: tuple[Run, Run]) -> None:
    found = gate(*pair, metric="other")
    assert found.verdict == "invalid"
    assert found.quality.margin is None
    assert "no number; margin none" in render.terminal(found)
    with pytest.raises(UsageError, match="declares no margin"):
        gate(*pair)
