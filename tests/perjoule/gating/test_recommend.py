"""`recommend`: the safe cell by default, and the cheapest of equals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.commands.schemas import schemas
from perjoule.errors import RunError
from perjoule.gating.recommend import _best, recommend
from perjoule.runs.directory import Run
from perjoule.statistics.drawn import drawn_once
from perjoule.statistics.frontier import frontier
from perjoule.statistics.safe import least_kept
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.types import Variant
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, table, with_margin

# cells `one-001`, `one-002`, …: (mean joules, mean quality) of 20 prompts
SPREAD = 0.1


def run_of(
    folder: Path, *cells: tuple[float, float], lower: bool = False, spread: float = SPREAD, apart: bool = False
) -> Run:
    """Cells of one variant, or with `apart` of variants of their own."""
    chance = np.random.default_rng(0)
    noise = chance.normal(size=20)
    noise = spread * (noise - noise.mean()) / noise.std()
    rows = [
        {
            "variant": f"v{step}" if apart else "one", "steps": step, "prompt_id": f"p{i}", "seed": 1,
            "energy_j": energy * (1 + x), "quality:q": quality + x, "provenance": "measured",
        }
        for step, (energy, quality) in enumerate(cells, start=1)
        for i, x in enumerate(noise)
    ]  # fmt: skip
    return imported(pl.DataFrame(rows), folder, lower=["q"] if lower else [])


def point(run: Run, cell_id: str) -> dict[str, Any]:
    return next(p for p in frontier(run)["points"] if p["cell_id"] == cell_id)


class TestSafe:
    def test_a_point_estimate_just_above_the_demand_is_not_enough(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.91), (4.0, 0.99))
        found = recommend(run, min_quality=0.9)
        assert (found["chosen"]["cell_id"], found["point"]["cell_id"], found["by"]) == ("one-003", "one-002", "limit")
        assert found["chosen"]["p_meets"] >= 0.9 > found["point"]["p_meets"] > 0.5
        by_point = recommend(run, min_quality=0.9, by_point=True)
        assert (by_point["chosen"]["cell_id"], by_point["safe"]["cell_id"]) == ("one-002", "one-003")
        assert by_point["by"] == "point"

    def test_a_budget_goes_by_its_resamples(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.7), (4.0, 0.9))
        assert recommend(run, max_joules=4.05)["chosen"]["cell_id"] == "one-002"
        assert recommend(run, max_joules=4.05, by_point=True)["chosen"]["cell_id"] == "one-003"
        found = recommend(run, max_joules=4.3)["chosen"]
        assert found["cell_id"] == "one-003"
        assert found["p_meets"] >= 0.9

    @pytest.mark.parametrize("lower", [False, True])
    def test_nine_in_ten_resamples_are_enough_and_no_fewer(self, tmp_path: Path, lower: bool) -> None:
        """The floor that `least_kept` returns is the last one for which the cell is recommended."""
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.7), lower=lower)
        drawn = drawn_once(run)
        sign = -1 if lower else 1
        floor = sign * least_kept(sign * drawn.draws.quality_alone("q").resamples)[0]
        assert recommend(run, min_quality=floor)["safe"]["cell_id"] == "one-001"
        found = recommend(run, min_quality=floor + sign * 1e-6)
        assert found["safe"] is None or found["safe"]["cell_id"] == "one-002"
        wider = recommend(run, min_quality=floor + sign * 1e-6, confidence=0.5)
        assert wider["safe"]["cell_id"] == "one-001"
        assert wider["confidence"] == 0.5

    def test_where_lower_is_better_the_upper_limit_counts(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.29), (4.0, 0.2), lower=True)
        found = recommend(run, min_quality=0.3)
        assert (found["chosen"]["cell_id"], found["point"]["cell_id"]) == ("one-003", "one-002")
        assert found["chosen"]["p_meets"] >= 0.9 > found["point"]["p_meets"]

    def test_a_confidence_is_a_share(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = str(run_of(tmp_path, (1.0, 0.5)).path)
        for value in ("90", "0", "100%", "sure"):
            code, _, err = call("recommend", path, "--min-quality", "0.1", "--confidence", value, capsys=capsys)
            assert code == 2
            assert "confidence = " in err
        assert call("recommend", path, "--min-quality", "0.1", "--confidence", "97.5%", capsys=capsys)[0] == 0

    def test_none_is_safe(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.91))
        path = str(run.path)
        code, out, err = call("recommend", path, "--min-quality", "0.9", capsys=capsys)
        assert (code, out) == (4, "")
        assert "no cell meets q 0.9 in 90 % of the resamples" in err
        assert re.search(r"one-002 does with its point estimate and in \d\d\.\d% of them", err)
        code, out, _ = call("recommend", path, "--min-quality", "0.9", "--by-point", capsys=capsys)
        assert code == 0
        assert "no point keeps it in 90 % of the resamples" in out
        code, _, err = call("recommend", path, "--max-joules", "1.01", capsys=capsys)
        assert code == 4
        assert "no cell meets 1.01 J in 90 % of the resamples" in err

    def test_without_a_demand_the_floor_is_what_the_longest_run_keeps(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.895), (3.0, 0.91), (4.0, 0.9))
        found = recommend(run)
        assert found["floor_from"] == "what the longest run, one-004, keeps in 90 %"
        assert found["min_quality"] == pytest.approx(0.9 - 1.2816 * SPREAD / np.sqrt(20), abs=0.005)
        assert found["chosen"] == recommend(run, min_quality=found["min_quality"])["chosen"]
        assert found["chosen"]["cell_id"] == "one-003"
        code, out, _ = call("recommend", str(run.path), capsys=capsys)
        assert code == 0
        assert f"for q of at least {found['min_quality']:.4g}: what the longest run, one-004, keeps in 90 %" in out

    def test_a_margin_lowers_the_floor(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = with_margin(run_of(tmp_path, (1.0, 0.5), (2.0, 0.8), (3.0, 0.9)), 0.2)
        found = recommend(run)
        assert found["min_quality"] == pytest.approx(0.7)
        assert found["chosen"]["cell_id"] == "one-002"
        assert (
            "that of the longest run, one-003, less the margin 0.2"
            in call("recommend", str(run.path), capsys=capsys)[1]
        )

    def test_one_prompt_has_no_interval(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = imported(table(prompts=1, seeds=1), tmp_path)
        code, _, err = call("recommend", str(run.path), "--min-quality", "0.5", capsys=capsys)
        assert code == 4
        assert "has no interval" in err
        assert call("recommend", str(run.path), "--min-quality", "0.5", "--by-point", capsys=capsys)[0] == 0

    @pytest.mark.parametrize(("prompts", "is_noted"), [(7, True), (8, False)])
    def test_few_prompts_are_noted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompts: int, is_noted: bool
    ) -> None:
        run = imported(table(prompts=prompts), tmp_path)
        _, out, _ = call("recommend", str(run.path), "--min-quality", "0.1", capsys=capsys)
        assert ("that is too sure: resamples of fewer than 8 prompts" in out) == is_noted

    def test_the_text_names_both(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = run_of(tmp_path, (1.0, 0.5), (2.0, 0.91), (4.0, 0.99))
        code, out, _ = call("recommend", str(run.path), "--min-quality", "0.9", capsys=capsys)
        assert code == 0
        assert out.startswith("one-003: 4 [")
        assert "by its point estimate alone, which --by-point takes: one-002: 2 [" in out
        found = json.loads(call("recommend", str(run.path), "--min-quality", "0.9", "--json", capsys=capsys)[1])
        assert found["chosen"]["cell_id"] == "one-003"


class TestEquals:
    def test_of_equally_good_cells_the_cheapest(self, tmp_path: Path) -> None:
        """Whatever their order in the suite."""
        for number, cells in enumerate((((4.0, 0.9), (2.0, 0.9), (3.0, 0.9)), ((2.0, 0.9), (4.0, 0.9), (3.0, 0.9)))):
            folder = tmp_path / str(number)
            folder.mkdir()
            found = recommend(run_of(folder, *cells, apart=True), max_joules=100.0)
            assert found["chosen"]["energy_j_per_image"] == pytest.approx(2.0)
            assert found["point"] == found["chosen"]

    def test_saturated_scores(self, tmp_path: Path) -> None:
        """Every image of the longer rungs scores 1: they are equal without scatter."""
        run = run_of(tmp_path, (4.0, 1.0), (2.0, 1.0), (1.0, 0.6), spread=0.0, apart=True)
        assert recommend(run, max_joules=100.0, by_point=True)["chosen"]["cell_id"] == "v2-002"
        assert recommend(run, min_quality=1.0, by_point=True)["chosen"]["cell_id"] == "v2-002"

    def test_of_equally_cheap_cells_the_best(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, (2.0, 0.8), (2.0, 0.9), (2.0, 0.7))
        assert recommend(run, min_quality=0.5)["chosen"]["cell_id"] == "one-002"

    @given(
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
        st.booleans(),
    )
    def test_the_best_is_not_dominated(self, cells: list[tuple[int, int, bool]], cheapest: bool) -> None:
        energy = np.array([[c[0] for c in cells]], float)
        quality = np.array([[c[1] / 3 for c in cells]])
        quality = quality + np.linspace(0, 1e-15, len(cells))  # means of equal scores differ in their last bits
        meets = np.array([[c[2] for c in cells]])
        best = int(_best(energy, quality, meets, cheapest)[0])
        able = [c for c in cells if c[2]]
        if not able:
            assert best == -1
            return
        order = (lambda c: (c[0], -c[1])) if cheapest else (lambda c: (-c[1], c[0]))
        assert order(cells[best]) == min(map(order, able))
        assert cells[best][2]


def test_a_run_without_a_trial_has_nothing_to_recommend(tmp_path: Path) -> None:
    run = run_of(tmp_path, (1.0, 0.5))
    for name in ("trials", "images", "scores", "points"):
        file = run.path / f"{name}.parquet"
        pl.read_parquet(file).clear().write_parquet(file)
    with pytest.raises(RunError, match="has no trials"):
        recommend(Run(path=run.path), min_quality=0.5)


class TestRecommend:
    def test_the_cheapest_good_enough_and_the_best_affordable(self, tmp_path: Path) -> None:
        run = imported(table(), tmp_path)
        cheapest = recommend(run, min_quality=0.8)["chosen"]
        assert cheapest["cell_id"] == "quick-016"
        assert cheapest["p_meets"] == 1.0
        best = recommend(run, max_joules=8.0)["chosen"]
        assert best["cell_id"] == "quick-008"

    def test_the_schema_names_every_key(self, tmp_path: Path) -> None:
        schema = schemas()["recommend"]
        run = imported(table(prompts=8), tmp_path)
        for budget in (8.0, 1e-9):
            found = recommend(run, max_joules=budget, resamples=50)
            assert set(found) == set(schema["properties"]) == set(schema["required"])
            choice = schema["$defs"]["Choice"]
            for name in ("chosen", "safe", "point"):
                if found[name] is not None:
                    assert set(found[name]) == set(choice["properties"]) == set(choice["required"])
        assert found["chosen"] is None

    def test_it_says_how_sure_it_is(self, tmp_path: Path) -> None:
        run = imported(table(), tmp_path)
        point = next(p for p in frontier(run)["points"] if p["cell_id"] == "quick-016")
        found = recommend(run, min_quality=point["quality"]["value"] - 1e-6)
        assert found["point"]["cell_id"] == "quick-016"
        assert found["point"]["p_meets"] == pytest.approx(0.5, abs=0.05)
        assert found["chosen"] == found["safe"]
        assert found["safe"]["cell_id"] == "quick-032"

    def test_nothing_will_do(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = imported(table(prompts=8), tmp_path)
        code, out, err = call("recommend", str(run.path), "--min-quality", "9", capsys=capsys)
        assert (code, out) == (4, "")
        assert "no cell reaches q 9: the values lie between" in err
        assert call("recommend", str(run.path), "--max-joules", "1", "--min-quality", "1", capsys=capsys)[0] == 2

    def test_the_call_can_be_pasted(self) -> None:
        variant = Variant(
            name="v", model="org/model", steps=(4, 8), scheduler="DDIMScheduler", guidance=3.0, dtype="float16"
        )
        text = diffusers_code(variant, 8.0)
        compile(text, "call", "exec")
        assert "DDIMScheduler.from_config(pipe.scheduler.config)" in text
        assert "num_inference_steps=8, guidance_scale=3.0" in text
