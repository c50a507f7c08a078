from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.ladders import drawn_run
from tests.support.routers import STUDENT, TEACHER, undecided_router
from tests.support.routes import route_run

from perjoule.errors import EvidenceError, PerjouleError, SuiteError, UnknownNameError
from perjoule.gating.recommend import recommend
from perjoule.running.policies import load_policy
from perjoule.testing import FakeGenerator
from perjoule.types import Cell, Metrics, Prompt, PromptSource, Protocol, Suite, Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.router.as_run import SWITCH
from perjoule_suites.router.models import Models
from perjoule_suites.router.policy import RoutedArms
from perjoule_suites.router.router import Router
from perjoule_suites.router.training import RouterFit

pytestmark = pytest.mark.slow

PROMPTS = ["a red circle", "a blue star", "a green ring", "a pink cross"]
SEEDS = [1, 2, 3, 4]
PLACES = np.array([2, 0, 1, 0])  # of the arms below, in the order of prices


def where(variant: Variant) -> str:
    return f"s.toml: variants[{variant.name}]"


def cell(level: float = 0.5, batch_size: int | None = 2, variant: Variant = TEACHER, **arguments: Any) -> Cell:
    routed = replace(variant, name="routed", policy="router", policy_args=arguments, steps=(), levels=(level,))
    return Cell(cell_id="routed-0.5", variant=routed, level=level, batch_size=batch_size)


@pytest.fixture(scope="module")
def teacher() -> DiffusersGenerator:
    return diffusers_generator.load(TEACHER, where="s")


@pytest.fixture(scope="module")
def student() -> DiffusersGenerator:
    return diffusers_generator.load(STUDENT, where="s")


@pytest.fixture(scope="module")
def router(teacher: DiffusersGenerator, student: DiffusersGenerator) -> Router:
    """A router that was not trained: what it chooses is set by each test."""
    return undecided_router(teacher, student)


@pytest.fixture(scope="module")
def folder(router: Router, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("router")
    router.save_pretrained(folder)
    return folder


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Router, "choose", lambda self, qualities: PLACES[: len(qualities)])


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("resident", [None, []])
def test_the_images_are_those_of_the_arms(
    folder: Path, teacher: DiffusersGenerator, student: DiffusersGenerator, resident: list[str] | None
) -> None:
    arguments: dict[str, Any] = {} if resident is None else {"resident": resident}
    policy = load_policy(cell(router=str(folder), **arguments), where)
    policy.prepare(teacher, PROMPTS)
    drawn = policy.draw(teacher, PROMPTS, SEEDS)
    assert drawn.steps == (3, 1, 1, 1)
    # the teacher's two arms with guidance, the student's two images without
    assert drawn.nfe_per_image * 4 == 2 * 3 + 2 * 1 + 2 * 1
    for i, (place, prompt, seed) in enumerate(zip(PLACES, PROMPTS, SEEDS, strict=True)):
        generator, steps = ((student, 1), (teacher, 1), (teacher, 3))[place]
        alone = generator.generate([prompt], [seed], steps).images[0]
        # another batch size may round the last bit otherwise
        assert np.abs(alone.astype(int) - drawn.images[i]).max() <= 1
    assert drawn.phases_s["predictor"] > 0
    assert all(seconds >= 0 for seconds in drawn.phases_s.values())
    assert (SWITCH in drawn.phases_s) == (resident == [])
    again = policy.draw(teacher, PROMPTS, SEEDS)
    assert SWITCH not in again.phases_s  # the model of the last turn is still loaded
    assert np.array_equal(again.images, drawn.images)
    assert set(policy.sources) == {"builtin:sd-tiny", "builtin:sd-tiny-lcm"}  # type: ignore[attr-defined]


def test_prompts_are_encoded_once_for_pipelines_of_one_encoder(router: Router, teacher: DiffusersGenerator) -> None:
    models = Models(router.config.arms, TEACHER, teacher, resident=None, batch_size=1, where="s")
    assert all(models.shares_encoding(arm) for arm in router.config.arms)
    assert models.of(router.config.arms[1]) is teacher
    assert models.of(router.config.arms[0]) is not teacher
    order = [arm.cell_id for arm in models.in_turn(router.config.arms[::-1])]
    assert order == ["student-001", "teacher-001", "teacher-003"]


def test_a_reloaded_router_makes_the_same_choices(folder: Path, router: Router, teacher: DiffusersGenerator) -> None:
    again = Router.from_pretrained(folder)
    assert again.config == router.config
    assert [choice.cell_id for choice in again.choices(PROMPTS)] == [c.cell_id for c in router.choices(PROMPTS)]
    shared = Router.from_pretrained(folder, pipeline=teacher.pipeline)
    states = shared.reader.states(PROMPTS)
    assert np.allclose(shared.forecast(states), again.forecast(again.reader.states(PROMPTS)), atol=1e-6)
    choice = again(PROMPTS[0])
    picture = again.pipeline(choice)(PROMPTS[0], **choice.arguments, output_type="np").images[0]
    assert picture.shape == (64, 64, 3)
    assert again.pipeline(choice) is again.pipeline(choice)


def test_another_text_encoder_is_named_with_both_digests(
    router: Router, tmp_path: Path, teacher: DiffusersGenerator
) -> None:
    own = router.config.text_encoder_digest[:12]
    replace(router, config=replace(router.config, text_encoder_digest="cd" * 32)).save_pretrained(tmp_path)
    for pipeline in (teacher.pipeline, None):
        with pytest.raises(EvidenceError, match=f"text encoder cdcdcdcdcdcd of builtin:sd-tiny, but .* is {own}"):
            Router.from_pretrained(tmp_path, pipeline=pipeline)


def test_levels_in_joules_do_not_carry_over(folder: Path, teacher: DiffusersGenerator) -> None:
    policy = load_policy(cell(20.0, router=str(folder), rule="equal-marginal"), where)
    with pytest.raises(
        SuiteError, match=r"J per unit of quality are those of Board A, .* this machine is .*: joules do"
    ):
        policy.prepare(teacher, PROMPTS)


def test_prices_of_a_run_must_have_the_arms(folder: Path, tmp_path: Path, teacher: DiffusersGenerator) -> None:
    run = route_run(tmp_path, "prices", 30)
    policy = load_policy(cell(20.0, router=str(folder), rule="equal-marginal", prices=str(run.path)), where)
    with pytest.raises(EvidenceError, match=r"other arms than the router: student-001, teacher-001, teacher-003"):
        policy.prepare(teacher, PROMPTS)


def test_other_weights_are_named(router: Router, teacher: DiffusersGenerator) -> None:
    arms = [replace(arm, digest="f" * 64) for arm in router.config.arms]
    with pytest.raises(SuiteError, match=r"weights of builtin:sd-tiny\S* are \w{12}, but the router .* ffffffffffff"):
        Models(arms, TEACHER, teacher, resident=None, batch_size=1, where="s")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, SuiteError, "policy_args.router: "),
        ({"rooter": "x"}, UnknownNameError, "router"),
        ({"router": "x", "rule": "floor"}, UnknownNameError, "quality-floor"),
        ({"router": "x", "miss_rate": 10.0}, SuiteError, "write 0.1 for 10 %"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], error: type[PerjouleError], words: str) -> None:
    with pytest.raises(error, match=words):
        load_policy(cell(**arguments), where)


def test_a_resident_that_is_no_arm(router: Router, teacher: DiffusersGenerator) -> None:
    with pytest.raises(UnknownNameError, match=r"policy_args.resident: unknown variant of the router 'studnt'"):
        Models(router.config.arms, TEACHER, teacher, resident=["studnt"], batch_size=1, where="s")


def test_a_generator_that_is_no_pipeline(folder: Path) -> None:
    policy = RoutedArms(cell(router=str(folder)), "s.toml")
    with pytest.raises(SuiteError, match=r"needs a diffusers pipeline, not a FakeGenerator"):
        policy.prepare(FakeGenerator(), PROMPTS)


def test_recommend_prints_model_and_steps_of_each_arm(trained: tuple[Path, RouterFit], tmp_path: Path) -> None:
    """Not only a number of steps, which says nothing about the model."""
    folder = shutil.copytree(trained[0], tmp_path / "router")
    routed = Variant(
        name="routed", model="m", role="predicted", policy="router", levels=(0.75,),
        policy_args={"router": str(folder), "miss_rate": 0.2},
    )  # fmt: skip
    suite = Suite(
        name="routes",
        title="Routes",
        description="",
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="q", names=("q",)),
        protocol=Protocol(seeds=(1,), batch_size=1, idle_s=0.0),
        variants=(Variant(name="ladder", model="m", steps=(2,)), routed),
    )
    run = drawn_run(
        tmp_path / "run", suite, [Prompt(prompt_id=f"{i}", text=f"prompt {i}") for i in range(6)],
        steps_of=lambda cell, prompt: 8, energy_j=float, qualities={"q": lambda prompt, seed, steps: 0.1 * steps},
        digests={},
    )  # fmt: skip
    advice = recommend(run, max_joules=100, by_point=True)
    assert advice["chosen"]["cell_id"].startswith("routed")
    call = advice["chosen"]["call"]
    arms = Router.from_pretrained(folder).config.arms
    assert [line for line in call.splitlines() if line.startswith("#")] == [
        f"# {arm.cell_id}: {arm.variant.model}, {arm.steps} steps" for arm in arms
    ]
    assert "router.with_rule('quality-floor', 0.75, 0.2)" in call
    # the code chooses as the policy does; only its last line draws
    names: dict[str, Any] = {"prompt": "a striped red circle on the left"}
    exec("\n".join(call.splitlines()[:-1]), names)
    assert names["arm"].cell_id in {arm.cell_id for arm in arms}
    shutil.rmtree(folder)
    assert "the choice of policy 'router'" in recommend(run, max_joules=100, by_point=True)["chosen"]["call"]
