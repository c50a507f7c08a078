from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.perjoule_suites.router.conftest import known_router
from tests.support.routes import route_run

from perjoule.errors import EvidenceError, SuiteError, UnknownNameError, UsageError
from perjoule.runs.directory import Run
from perjoule.types import Variant
from perjoule_suites.router import Router
from perjoule_suites.router.arms import read_arms
from perjoule_suites.router.router import Choice, require_prompts
from perjoule_suites.router.storage import read_router

EASY, HARD = "a plain red circle on the left", "a striped red circle on the left"


def test_an_easy_prompt_gets_the_cheap_arm(router: Router) -> None:
    easy, hard = router(EASY), router(HARD)
    assert (easy.cell_id, easy.steps, easy.safe) == ("student-002", 2, True)
    assert (hard.cell_id, hard.steps, hard.safe) == ("teacher-008", 8, True)
    assert easy.quality == pytest.approx(0.9)
    assert easy.energy_j == pytest.approx(1, rel=0.01)
    assert router.choices([]) == []


def test_without_a_safe_arm_the_best_is_used(router: Router) -> None:
    high = router.with_rule("quality-floor", 0.88, 0.6)
    assert high(HARD).cell_id == "teacher-008"


def test_a_price_buys_what_it_is_worth(router: Router) -> None:
    # a hard prompt gains .5 for 7 J: 14 J per unit
    assert router.with_rule("equal-marginal", 13.0)(HARD).cell_id == "student-002"
    dear = router.with_rule("equal-marginal", 15.0)(HARD)
    assert (dear.cell_id, dear.safe) == ("teacher-008", None)
    assert router.with_rule("equal-marginal", 1e6)(EASY).cell_id == "student-002"


def test_other_prices_change_the_order(router: Router) -> None:
    turned = router.with_prices(np.array([9.0, 2.0, 1.0]), "Board C")
    assert turned(EASY).cell_id == "teacher-008"
    assert (turned(EASY).energy_j, turned.config.device) == (1.0, "Board C")


def test_the_call_of_an_arm() -> None:
    variant = Variant(name="v", model="builtin:sd-tiny", guidance=3.0, width_px=64, negative_prompt="blur")
    choice = Choice(cell_id="v-004", variant=variant, steps=4, energy_j=1.0, quality=0.5, safe=True)
    assert choice.arguments == {
        "num_inference_steps": 4, "guidance_scale": 3.0, "width": 64, "negative_prompt": "blur"
    }  # fmt: skip
    assert "num_inference_steps=4, guidance_scale=3.0" in choice.code
    timed = replace(choice, variant=replace(variant, timesteps=(999, 500), call_args={"eta": 0.5}))
    assert timed.arguments["timesteps"] == [999, 500]
    assert timed.arguments["eta"] == 0.5
    assert "num_inference_steps" not in timed.arguments


class TestBadInput:
    def test_too_few_prompts_for_a_promise(self, dev: Run, router: Router) -> None:
        scores = read_arms(dev)
        few = replace(scores, prompts=scores.prompts[:15], quality=scores.quality[:15])
        assert known_router(few).config.miss_rate == 0.1
        with pytest.raises(EvidenceError, match=r"15 calibration prompts are too few to promise at most 5\.0% .*: 19"):
            known_router(few, miss_rate=0.05)
        with pytest.raises(EvidenceError, match=r"99 are needed"):
            require_prompts(98, 0.01)
        require_prompts(99, 0.01)

    def test_a_floor_that_nobody_reaches(self, router: Router) -> None:
        with pytest.raises(EvidenceError, match=r"no image .* reaches the floor q = 5 .*teacher-008, mean 0\.9\)"):
            router.with_rule("quality-floor", 5.0)

    def test_a_floor_that_is_often_missed(self, router: Router) -> None:
        with pytest.raises(EvidenceError, match=r"teacher-008\) misses the floor q = 0\.9 in 4.*: 10\.0% cannot be"):
            router.with_rule("quality-floor", 0.9)

    def test_it_says_how_many_prompts_would_do(self, dev: Run) -> None:
        scores = read_arms(dev)
        few = replace(scores, prompts=scores.prompts[:19], quality=np.full((19, 2, 3), 0.9))
        quality = few.quality.copy()
        quality[0, 0] = 0.1  # one of 38 images
        with pytest.raises(EvidenceError, match=r"or calibrate on 41 prompts or more"):
            known_router(replace(few, quality=quality), miss_rate=0.05)

    @pytest.mark.parametrize(
        ("rule", "level", "rate", "error", "words"),
        [
            ("floor", 0.8, 0.1, UnknownNameError, "quality-floor"),
            ("equal-marginal", -1.0, 0.1, SuiteError, "positive number of joules per unit"),
            ("quality-floor", float("nan"), 0.1, SuiteError, "finite quality"),
            ("quality-floor", 0.8, 10, SuiteError, "write 0.1 for 10 %"),
        ],
    )
    def test_rules(
        self, router: Router, rule: str, level: float, rate: float, error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            router.with_rule(rule, level, rate)

    def test_a_folder_without_a_router(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"cannot read a router from this folder"):
            read_router(tmp_path)
        (tmp_path / "router.json").write_text('{"schema": 9}')
        with pytest.raises(UsageError, match=r"schema = 9: this version reads 1"):
            read_router(tmp_path)


def test_a_world_without_noise_keeps_every_promise(tmp_path: Path, router: Router) -> None:
    scores = read_arms(route_run(tmp_path, "clean", 60, 0, noise=0.0))
    clean = known_router(scores, level=0.9)
    assert clean(EASY).cell_id == "student-002"
    assert clean(HARD).cell_id == "teacher-008"
