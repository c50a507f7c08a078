from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule_suites.tiny.clip import swap_one_word
from perjoule_suites.tiny.evaluate import held_out_scenes
from perjoule_suites.tiny.recogniser import Recogniser, asked, by_attribute
from perjoule_suites.tiny.scenes import caption, parse_caption, render, sample_scene

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_every_paraphrase_says_the_same_scene(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    assert parse_caption(caption(scene, rng)) == scene


@given(SEEDS)
def test_a_swap_changes_the_caption_and_stays_in_the_world(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    other = swap_one_word(scene, rng, "shape")
    assert other != scene
    assert parse_caption(caption(other)) == other


def test_words_of_another_world_are_no_scene() -> None:
    for text in (
        "",
        "a cat",
        "a red circle on a white ground",
        "a large mauve circle on a white ground",
        "on a  ground",
    ):
        assert parse_caption(text) is None


def test_the_split_is_a_tenth_and_never_crossed() -> None:
    rng = np.random.default_rng(0)
    assert all(sample_scene(rng, held_out=True).held_out for _ in range(50))
    assert not any(sample_scene(rng).held_out for _ in range(50))


def test_renders_repeat_and_show_their_ground() -> None:
    scene = parse_caption("a small blue star at the left on a white ground")
    assert scene is not None
    picture = render(scene, np.random.default_rng(3))
    assert np.array_equal(picture, render(scene, np.random.default_rng(3)))
    assert picture.shape == (64, 64, 3)
    assert picture[0, 63].min() > 230  # the far corner is ground
    blue = (picture[..., 2].astype(int) - picture[..., 0]) > 60
    assert blue[:, :32].sum() > 50
    assert blue[:, 40:].sum() == 0


@pytest.mark.slow
def test_the_recogniser_reads_held_out_renders() -> None:
    from perjoule_suites.tiny import recogniser_tiny

    rng = np.random.default_rng(17)
    scenes = held_out_scenes(150, seed=31)
    images = np.stack([render(scene, rng) for scene in scenes])
    found = by_attribute(Recogniser.from_pretrained(recogniser_tiny()).recognise(images), scenes)
    assert min(found.values()) >= 0.95
    assert asked(scenes[0]).keys() <= {k.split(".")[1] for k in found}
