"""Every check between a run and a verdict: remove one, and a test here fails (`tests/benchmarks/mutants.py`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perjoule.errors import UsageError
from perjoule.files import write_json
from perjoule.gating import gate, render
from perjoule.gating.disturbances import INVALIDATING
from perjoule.gating.records import Verdict
from perjoule.runs.directory import Run, load_run
from perjoule.runs.environment import describe
from perjoule.suite.reading import write_suite
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.types import Cache, Denoiser, Lora, MetricSpec, Protocol, Runtime, Suite, Variant
from perjoule.warnings import WARNINGS
from tests.support.gating import HUNDRED, WIDE, of, refused
from tests.support.tables_of_runs import imported, rewrite, rewrite_table, table


def marked(run: Run, text: str, count: int) -> Run:
    """The run with a warning on its first windows."""
    row = pl.int_range(pl.len())
    words = pl.when(row < count).then(pl.lit([text])).otherwise(pl.lit([], pl.List(pl.String)))
    return rewrite_table(run, "trials", words.alias("warnings"))


class TestInvalidWindows:
    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    @pytest.mark.parametrize("code", ["W202", "W212", "W213", "W215", "W225", "W251", "W260", "W263"])
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
            "W201", "W203", "W204", "W205", "W206", "W207", "W208", "W209", "W210", "W211", "W214", "W216", "W217",
            "W218", "W223", "W224",
            "W230", "W232", "W235", "W236", "W262", "W264", "W265", "W266",
            # there are no joules, which is refused as such
            "W220", "W221", "W231", "W233", "W234", "W240", "W250", "W299",
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
            of(pair, side, lambda run: rewrite_table(run, "trials", blank)), f"{side} lacks energy", "1 window has no"
        )

    @pytest.mark.parametrize("energy", [0.0, -1.0])
    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_no_energy_is_zero(self, pair: tuple[Run, Run], side: str, energy: float) -> None:
        low = pl.when(pl.int_range(pl.len()) == 3).then(energy).otherwise(pl.col("energy_j")).alias("energy_j")
        refused(of(pair, side, lambda run: rewrite_table(run, "trials", low)), f"{side}: 1 window has zero or negative")

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_a_failed_trial(self, pair: tuple[Run, Run], side: str) -> None:
        failure = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("ValueError: x")).alias("failure")
        refused(
            of(pair, side, lambda run: rewrite_table(run, "trials", failure)),
            f"{side} lacks trial", "1 trial failed: ValueError: x",
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
        refused(edited, f"{side} lacks score q: 1 image has no score; most frequent reason: no memory")

    @pytest.mark.parametrize("side", ["baseline", "candidate"])
    def test_an_image_without_a_row_of_scores(self, pair: tuple[Run, Run], side: str) -> None:
        def drop(run: Run) -> Run:
            file = run.path / "scores.parquet"
            pl.read_parquet(file)[1:].write_parquet(file)
            return load_run(run.path)

        refused(of(pair, side, drop), f"{side} lacks score q: 1 image has no score")

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
        refused((base, prompts), "candidate lacks prompt p049: cell ladder-004: 1 image of 1 prompt is in")
        seeds = imported(table(**HUNDRED).with_columns(seed=pl.col("seed") + 1), tmp_path, "seeds")
        refused((base, seeds), "50 images of 50 prompts are in the baseline only")

    def test_more_than_the_baseline_has_is_noted_not_judged(self, tmp_path: Path) -> None:
        base = imported(table(**HUNDRED), tmp_path, "base")
        more = imported(table(**HUNDRED | {"ladder": (4, 16, 32), "prompts": 60}), tmp_path, "more")
        found = gate(base, more, config=WIDE)
        assert found.verdict == "pass"
        assert "cells that only the candidate has are not judged: ladder-032" in found.notes
        assert "10 new prompts are not judged until there is a baseline with them" in found.notes
        assert found.quality.n_prompts == 50
        assert [cell.cell_id for cell in found.cells] == ["ladder-004", "ladder-016"]

    def test_prompts_and_seeds_that_only_the_candidate_has_are_named(self, tmp_path: Path) -> None:
        def texts(run: Run) -> Run:
            rows = [{"prompt_id": f"p{i:03d}", "text": f"prompt number {i} " + "x" * 60} for i in range(51)]
            (run.path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            return load_run(run.path)

        base = imported(table(**HUNDRED), tmp_path, "base")
        one = texts(imported(table(**HUNDRED | {"prompts": 51}), tmp_path, "one"))
        (note,) = [note for note in gate(base, one, config=WIDE).notes if "new prompt" in note]
        words = "1 new prompt is not judged until there is a baseline with it"
        assert note == f'{words}: "prompt number 50 {"x" * 43}…"'
        refused((one, base), '1 image of 1 prompt is in the baseline only: "prompt number 50')
        fewer = imported(table(**HUNDRED | {"prompts": 47}), tmp_path, "fewer")
        refused((one, fewer), '4 images of 4 prompts are in the baseline only: "prompt number 47', '" and 2 more')
        seeds = imported(table(**HUNDRED | {"seeds": 2}), tmp_path, "seeds")
        notes = gate(base, seeds, config=WIDE).notes
        assert (
            "candidate: 100 images have seeds that the baseline lacks; the means of the same prompts include them"
            in notes
        )
        assert not any("new prompt" in note or "seed" in note for note in gate(base, base, config=WIDE).notes)

    def test_windows_of_a_smaller_batch_are_other_cells(self, pair: tuple[Run, Run]) -> None:
        def edit(run: Run) -> Run:
            for name in ("scores", "images", "points"):
                run = rewrite_table(run, name, pl.col("cell_id").str.replace("ladder-", "ladder@b2-"))
            words = pl.lit(["W266: 4 images per pipeline call did not fit into memory: drawn with 2"])
            renamed = pl.col("cell_id", "variant").str.replace("ladder", "ladder@b2")
            return rewrite_table(run, "trials", renamed, words.alias("warnings"))

        note = (
            "candidate: W266: windows that did not fit into memory were drawn with smaller batches, as other cells: "
            "ladder@b2-004, ladder@b2-016"
        )
        found = refused(of(pair, "candidate", edit), "candidate lacks cell ladder-004", "has ladder@b2-004")
        assert note in found.notes
        # two runs of the same smaller batch may be compared
        both = gate(edit(pair[0]), load_run(pair[1].path), config=WIDE)
        assert both.verdict == "pass"
        assert note in both.notes

    def test_one_prompt_is_too_few(self, tmp_path: Path) -> None:
        one = imported(table(**HUNDRED | {"prompts": 1}), tmp_path, "one")
        refused((one, one), "needs at least 2 pairs", "quality has 1 (prompts)")


# another value of each field of a variant
OTHER: dict[str, Any] = {
    "model": "other", "role": "control", "policy": "other", "policy_args": {"a": 1}, "revision": "abc",
    "file_variant": "fp16", "pickled_weights": True, "denoiser": Denoiser(model="m", file="f"),
    "lora": Lora(model="m", file="f"),
    "scheduler": "DDIMScheduler", "scheduler_args": {"timestep_spacing": "trailing"}, "timesteps": (4, 3),
    "schedule": "short-first",
    "guidance": 3.0, "guidance_mode": "embedded", "guidance_share": 0.5, "call_args": {"eta": 1.0},
    "negative_prompt": "ugly",
    "dtype": "float16", "width_px": 512, "height_px": 768, "batch_size": 4, "cache": Cache(kind="deepcache"),
    "runtime": Runtime(compile="default"), "safety_checker": True, "family": "other",
}  # fmt: skip
NOT_COMPARED = ("name", "label", "steps", "levels")


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
            lambda run: self.with_suite(
                run, lambda s: replace(s, protocol=replace(s.protocol, **dict[str, Any]({key: 7})))
            ),
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


def test_other_devices_are_named_by_their_column(pair: tuple[Run, Run]) -> None:
    """Each run on one device, and not the same one."""
    base, candidate = (rewrite_table(r, "trials", pl.lit(d).alias("device")) for r, d in zip(pair, "AB", strict=True))
    (difference,) = gate(base, candidate, config=WIDE).incomparable
    assert (difference.key, difference.baseline, difference.candidate) == ("trials.device", ["A"], ["B"])
