from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perjoule_suites.tiny.world.captions import Caption, draw_caption, parse
from perjoule_suites.tiny.world.checker import look
from perjoule_suites.tiny.world.scenes import Scene, draw_scene, ground_image, render
from perjoule_suites.tiny.world.score import holds, judge, shown_by, verdict
from perjoule_suites.tiny.world.validation import probes

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(SEEDS)
def test_the_checker_sees_in_a_render_what_is_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(draw_caption(rng), rng)
    seen = look(render(scene))

    def looks(things):
        return sorted((t.colour, t.shape, t.texture, t.size) for t in things)

    assert looks(seen.things) == looks(scene.things)
    assert (seen.ground, seen.pattern) == (scene.ground, scene.pattern)
    true = {(thing.colour, thing.shape): thing for thing in scene.things}
    if len(true) == len(scene.things):
        for thing in seen.things:
            there = true[thing.colour, thing.shape]
            assert np.hypot(thing.x - there.x / 4, thing.y - there.y / 4) < 1
            assert abs(thing.radius - there.radius / 4) <= 0.75


@example(801766773)  # dark green stripes on a black checkered ground
@example(23313)  # a star whose coarse fit is 1.5 px too large
@settings(max_examples=30)
@given(SEEDS)
def test_a_render_is_perfect_and_a_contradiction_is_not_satisfied(seed: int) -> None:
    from perjoule_suites.tiny.clip import contradict

    rng = np.random.default_rng(seed)
    caption = draw_caption(rng)
    scene = draw_scene(caption, rng)
    found = look(render(scene))
    assert verdict(found, caption).is_perfect
    assert verdict(found, caption).score > 0.95
    wrong = contradict(caption, shown_by(scene), rng)
    assert not verdict(found, wrong).is_satisfied
    assert not holds(shown_by(scene), wrong)
    assert verdict(found, wrong).satisfied < 1


def test_the_score_meets_its_limits_on_known_pictures() -> None:
    missed = [f"{probe.name}: {probe.score:.3f}" for probe in probes(15, 5) if not probe.is_met]
    assert not missed


def picture(text: str, seed: int = 0) -> tuple[np.ndarray, Scene]:
    scene = draw_scene(parse(text), np.random.default_rng(seed))
    return render(scene), scene


@pytest.mark.parametrize(
    ("shown", "asked", "satisfied"),
    [
        ("a large plain red star at the left on a plain grey ground", "a star", True),
        ("a large plain red star at the left on a plain grey ground", "a red thing at the left", True),
        ("a large plain red star at the left on a plain grey ground", "a red thing at the right", False),
        ("a large plain red star at the left on a plain grey ground", "two things", False),
        ("a large red star left of a small blue ring", "a blue thing right of a star", True),
        ("a large red star left of a small blue ring", "a star right of a blue thing", False),
        ("a large red star left of a small blue ring", "a star above a blue thing", False),
        ("a large red star left of a small blue ring", "a red ring and a blue star", False),
        ("a large red star left of a small blue ring", "a small thing and a thing", True),
        ("a row of three green circles", "three green things", True),
        ("a row of three green circles", "a row of three circles", True),
        ("a row of three green circles", "a column of three circles", False),
        ("a row of three green circles", "three green squares", False),
        ("a grid of four rings on a dotted ground", "four rings on a dotted ground", True),
        ("a grid of four rings on a dotted ground", "a grid of four things", True),
        ("a grid of four rings on a dotted ground", "four rings on a checkered ground", False),
    ],
)
def test_a_caption_is_satisfied_by_what_it_describes(shown: str, asked: str, satisfied: bool) -> None:
    image, _ = picture(shown)
    assert judge(image, parse(asked)).is_satisfied is satisfied


def test_all_things_of_a_group_must_be_as_the_caption_says() -> None:
    image, scene = picture("three green circles on a plain white ground")
    odd = replace(scene, things=(replace(scene.things[0], colour="red"), *scene.things[1:]))
    judged = judge(render(odd), parse("three green circles on a plain white ground"))
    assert not judged.is_satisfied
    # count, ground, pattern and shape hold, and two of three colours
    assert judged.satisfied == pytest.approx((4 + 2 / 3) / 5)
    assert judge(image, parse("three green circles on a plain white ground")).satisfied == 1


def test_touching_things_are_not_two_whole_things() -> None:
    _, scene = picture("two small plain blue circles on a plain white ground", 3)
    first, second = scene.things
    merged = replace(scene, things=(first, replace(second, x=first.x + first.radius, y=first.y)))
    assert not judge(render(merged), parse("two circles")).is_perfect


def test_nothing_and_noise_score_nothing() -> None:
    caption = Caption(kind="single", count=1, wishes=draw_caption(np.random.default_rng(0), kind="single").wishes)
    assert judge(ground_image("grey", "plain"), caption).score == 0
    assert judge(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), caption).score < 0.05
