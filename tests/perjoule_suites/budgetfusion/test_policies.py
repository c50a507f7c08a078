from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perjoule.errors import PerjouleError, SuiteError, UnknownNameError
from perjoule.running.policies import load_policy
from perjoule.testing import FakeGenerator
from perjoule.types import Cell, Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.budgetfusion import StepPredictor, peek
from perjoule_suites.diffusers_generator import DiffusersGenerator

pytestmark = pytest.mark.slow

TINY = Variant(name="tiny", model="builtin:sd-tiny", guidance=3.0)
PROMPTS = [
    "a large red circle on a white ground",
    "a large striped red circle on a white ground",
    "a striped blue star above a striped pink ring on a checkered grey ground",
    "a small green cross at the left on a black ground",
]
SEEDS = [1, 1, 2, 2]


def where(variant: Variant) -> str:
    return f"s.toml: variants[{variant.name}]"


@pytest.fixture(scope="module")
def folder(trained: StepPredictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictor")
    trained.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ddim() -> DiffusersGenerator:
    return diffusers_generator.load(TINY, where="s")


def cell(policy: str, level: float, **arguments: Any) -> Cell:
    variant = replace(TINY, policy=policy, policy_args=arguments, levels=(level,))
    return Cell(cell_id="c", variant=variant, level=level)


def test_the_images_are_those_of_the_fixed_steps(
    folder: Path, ddim: DiffusersGenerator, trained: StepPredictor
) -> None:
    policy = load_policy(cell("budgetfusion", 12.0, predictor=str(folder), metric="quality"), where)
    policy.prepare(ddim, PROMPTS)
    drawn = policy.draw(ddim, PROMPTS, SEEDS)
    assert list(drawn.steps) == trained.steps_for(PROMPTS)
    assert len(set(drawn.steps)) > 1
    for i, (prompt, seed, steps) in enumerate(zip(PROMPTS, SEEDS, drawn.steps, strict=True)):
        alone = ddim.generate([prompt], [seed], steps).images[0]
        # another batch size may round the last bit otherwise
        assert np.abs(alone.astype(int) - drawn.images[i]).max() <= 1
    assert drawn.nfe_per_image * len(PROMPTS) == 2 * sum(drawn.steps)
    assert drawn.phases_s["predictor"] > 0


def test_a_window_fills_its_batches_with_equal_steps(folder: Path, ddim: DiffusersGenerator) -> None:
    prompts, seeds = PROMPTS * 2, [*SEEDS, 3, 3, 4, 4]
    whole = cell("budgetfusion", 12.0, predictor=str(folder), metric="quality")
    policy = load_policy(replace(whole, batch_size=2), where)
    policy.prepare(ddim, prompts)
    sizes: dict[int, list[int]] = {}
    draw = ddim.call

    def watched(arguments: dict[str, Any]) -> Any:
        sizes.setdefault(arguments["num_inference_steps"], []).append(len(arguments["generator"]))
        return draw(arguments)

    ddim.call = watched  # type: ignore[method-assign]
    try:
        drawn = policy.draw(ddim, prompts, seeds)
    finally:
        del ddim.call
    for steps, calls in sizes.items():
        assert calls == [2] * (drawn.steps.count(steps) // 2) + [1] * (drawn.steps.count(steps) % 2)
    for i in (0, 5):
        alone = ddim.generate([prompts[i]], [seeds[i]], drawn.steps[i]).images[0]
        assert np.abs(alone.astype(int) - drawn.images[i]).max() <= 1
    assert drawn.nfe_per_image * len(prompts) == 2 * sum(drawn.steps)


def test_shuffling_keeps_the_histogram_and_not_the_prompt(
    folder: Path, ddim: DiffusersGenerator, trained: StepPredictor
) -> None:
    prompts = [f"a large {t}{c} circle on a white ground" for t in ("", "striped ") for c in ("red", "blue", "green")]
    steps = {
        level: trained.with_rule("equal-marginal", "quality", level).steps_for(prompts) for level in (4, 6, 8, 12, 20)
    }
    level = max(steps, key=lambda level: len(set(steps[level])))
    taken = []
    for arguments in ({}, {"control": "shuffled", "control_seed": 2}):
        policy = load_policy(cell("budgetfusion", level, predictor=str(folder), metric="quality", **arguments), where)
        policy.prepare(ddim, prompts)
        taken.append(list(policy.draw(ddim, prompts, [1] * len(prompts)).steps))
    assert taken[0] == steps[level]
    assert sorted(taken[0]) == sorted(taken[1])
    assert taken[0] != taken[1]


def test_the_steps_of_a_named_schedule_are_those_of_the_fixed_steps(folder: Path) -> None:
    short = replace(TINY, schedule="short-first")
    generator = diffusers_generator.load(short, where="s")
    predicted = cell("budgetfusion", 12.0, predictor=str(folder), metric="quality")
    peeking = cell("budgetfusion-peek", 20.0, predictor="builtin:steps-tiny-peek2", metric="iclip")
    for chosen in (predicted, peeking):
        policy = load_policy(replace(chosen, variant=replace(chosen.variant, schedule="short-first")), where)
        policy.prepare(generator, PROMPTS)
        drawn = policy.draw(generator, PROMPTS, SEEDS)
        for i, steps in enumerate(drawn.steps):
            alone = generator.generate([PROMPTS[i]], [SEEDS[i]], steps).images[0]
            assert np.abs(alone.astype(int) - drawn.images[i]).max() <= 1
        assert drawn.nfe_per_image * len(PROMPTS) == 2 * sum(drawn.steps)


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_a_peek_in_batches(generator: DiffusersGenerator, batch_size: int | None) -> None:
    peeking = cell("budgetfusion-peek", 20.0, predictor="builtin:steps-tiny-peek2", metric="iclip")
    policy = load_policy(replace(peeking, batch_size=batch_size), where)
    policy.prepare(generator, PROMPTS)
    drawn = policy.draw(generator, PROMPTS, SEEDS)
    for i, steps in enumerate(drawn.steps):
        alone = peek.draw_shared(generator, [PROMPTS[i]], [SEEDS[i]], steps, 2)[0]
        assert np.abs(alone.astype(int) - drawn.images[i]).max() <= 1
    assert drawn.nfe_per_image * len(PROMPTS) == 2 * sum(drawn.steps)


def test_the_mean_curve_treats_all_alike(folder: Path, ddim: DiffusersGenerator) -> None:
    policy = load_policy(cell("budgetfusion", 12.0, predictor=str(folder), metric="quality", control="mean"), where)
    policy.prepare(ddim, PROMPTS)
    assert len(set(policy.draw(ddim, PROMPTS, SEEDS).steps)) == 1


def test_shared_start_is_its_schedule(generator: DiffusersGenerator) -> None:
    policy = load_policy(cell("shared-start", 3, shared=2), where)
    policy.prepare(generator, PROMPTS)
    drawn = policy.draw(generator, PROMPTS, SEEDS)
    assert np.array_equal(drawn.images, peek.draw_shared(generator, PROMPTS, SEEDS, 3, 2))
    assert drawn.steps == (3,) * 4
    assert drawn.nfe_per_image == 6


def test_the_prompt_alone_decides_on_schedules_with_a_shared_start(folder: Path, generator: DiffusersGenerator) -> None:
    policy = load_policy(cell("budgetfusion", 12.0, predictor=str(folder), metric="quality", shared=2), where)
    policy.prepare(generator, PROMPTS)
    drawn = policy.draw(generator, PROMPTS, SEEDS)
    for i, steps in enumerate(drawn.steps):
        alone = peek.draw_shared(generator, [PROMPTS[i]], [SEEDS[i]], max(steps, 2), 2)[0]
        assert np.abs(alone.astype(int) - drawn.images[i]).max() <= 1


@pytest.mark.parametrize(
    ("policy", "level", "arguments", "error", "words"),
    [
        ("budgetfuson", 1.0, {}, UnknownNameError, "budgetfusion"),
        ("budgetfusion", 1.0, {}, SuiteError, "predictor"),
        ("budgetfusion", 1.0, {"predicter": "x"}, UnknownNameError, "predictor"),
        ("budgetfusion", 1.0, {"predictor": "x", "control": "shufled"}, UnknownNameError, "shuffled"),
        ("budgetfusion-peek", 1.0, {"predictor": "x", "control": "shuffled"}, SuiteError, "per image"),
        ("budgetfusion", 1.0, {"predictor": "x", "rule": "plateau", "metric": "q"}, SuiteError, "reads metrics = "),
        ("budgetfusion", 1.0, {"predictor": "x", "shared": 3}, SuiteError, "0, 1 or 2"),
        ("budgetfusion-peek", 1.0, {"predictor": "x", "shared": 2}, SuiteError, "remove the key"),
        ("shared-start", 1, {"shared": 2}, SuiteError, "from 2 to 1000"),
        ("shared-start", 2.5, {"shared": 2}, SuiteError, "a number of steps"),
        ("shared-start", 2, {"shared": 3}, SuiteError, "1 or 2"),
        ("shared-start", 2, {"share": 2}, SuiteError, "unknown key"),
    ],
)
def test_arguments_that_cannot_be(
    policy: str, level: float, arguments: dict[str, Any], error: type[PerjouleError], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_policy(cell(policy, level, **arguments), where)


def test_a_generator_that_is_no_pipeline(folder: Path) -> None:
    policy = load_policy(cell("budgetfusion", 12.0, predictor=str(folder), metric="quality"), where)
    with pytest.raises(SuiteError, match="needs a diffusers pipeline, not a FakeGenerator"):
        policy.prepare(FakeGenerator(), PROMPTS)


def test_a_prompt_predictor_does_not_peek(folder: Path, generator: DiffusersGenerator) -> None:
    policy = load_policy(cell("budgetfusion-peek", 12.0, predictor=str(folder), metric="quality"), where)
    with pytest.raises(SuiteError, match="set policy = 'budgetfusion'"):
        policy.prepare(generator, PROMPTS)
