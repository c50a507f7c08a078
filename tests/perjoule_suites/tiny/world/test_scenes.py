from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path

from perjoule_suites.tiny.world.captions import SHAPES, Caption, Wish, draw_caption
from perjoule_suites.tiny.world.scenes import (
    BOX_PX,
    CORNERS,
    DARK_PERCENT,
    GROUND_RGB,
    RGB,
    SECOND_RGB,
    SIDE_PX,
    UNITS,
    Scene,
    Thing,
    coverage,
    draw_scene,
    ground_image,
    render,
    stripes,
)
from perjoule_suites.tiny.world.score import holds, shown_by

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_a_scene_satisfies_its_caption(seed: int) -> None:
    rng = np.random.default_rng(seed)
    caption = draw_caption(rng)
    scene = draw_scene(caption, rng)
    assert len(scene.things) == caption.count
    assert holds(shown_by(scene), caption)


@given(SEEDS)
def test_things_lie_inside_and_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(draw_caption(rng), rng)
    masks = []
    for thing in scene.things:
        alone = render(Scene(things=(thing,), ground="white", pattern="plain"))
        masks.append((alone != 245).any(-1))
        assert not masks[-1][[0, -1]].any()
        assert not masks[-1][:, [0, -1]].any()
    grown = [np.pad(mask, 1) for mask in masks]
    for i, mask in enumerate(grown):
        wide = mask.copy()
        for axis in (0, 1):
            wide |= np.roll(wide, 1, axis) | np.roll(wide, -1, axis)
        assert not any((wide & other).any() for other in grown[i + 1 :])


def test_open_slots_follow_their_stated_distribution() -> None:
    caption = Caption(kind="single", count=1, wishes=(Wish(shape="star"),))
    rng = np.random.default_rng(0)
    scenes = [draw_scene(caption, rng) for _ in range(4_000)]
    share = {
        "striped": np.mean([scene.things[0].texture == "striped" for scene in scenes]),
        "red": np.mean([scene.things[0].colour == "red" for scene in scenes]),
        "large": np.mean([scene.things[0].size == "large" for scene in scenes]),
        "beige": np.mean([scene.ground == "beige" for scene in scenes]),
        "dotted": np.mean([scene.pattern == "dotted" for scene in scenes]),
    }
    wanted = {"striped": 0.30, "red": 0.125, "large": 0.5, "beige": 0.25, "dotted": 0.15}
    for name, p in wanted.items():
        assert share[name] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4_000)), name


def test_free_places_are_uniform_among_those_without_overlap() -> None:
    """Two things of one size: the distances have the same distribution as those of a plain rejection sampler."""
    caption = Caption(kind="many", count=2, wishes=(Wish(size="small"),))
    rng = np.random.default_rng(5)
    things = [draw_scene(caption, rng).things for _ in range(1_500)]
    found = np.array([np.hypot(a.x - b.x, a.y - b.y) for a, b in things])
    radii = np.array([(a.radius, b.radius) for a, b in things])
    plain = []
    for first, second in radii:
        while True:
            margins = -(-np.array([first, second]) * 115 // 100) + UNITS
            (ax, bx), (ay, by) = (rng.integers(margins, SIDE_PX * UNITS + 1 - margins) for _ in range(2))
            if np.hypot(ax - bx, ay - by) >= (first + second) * 115 // 100 + 10:
                plain.append(np.hypot(ax - bx, ay - by))
                break
    grid = np.quantile(plain, np.linspace(0.05, 0.95, 19))
    assert np.abs((found[:, None] <= grid).mean(0) - np.linspace(0.05, 0.95, 19)).max() < 0.06


@pytest.mark.parametrize("shape", ["circle", "cross"])
@pytest.mark.parametrize("radius", [32, 47])
def test_coverage_agrees_with_a_signed_distance(shape: str, radius: int) -> None:
    """Signed distances in closed form cover the same area."""
    y, x = np.mgrid[0:BOX_PX, 0:BOX_PX] + 0.5
    r = radius / UNITS
    ours = coverage(shape, radius, 1, 2) / 64
    at = (x - 16.25, y - 16.5)
    if shape == "circle":
        distance = np.hypot(*at) - r
    else:
        ax, ay = np.abs(at[0]), np.abs(at[1])
        distance = np.minimum(np.maximum(ax - 1.02 * r, ay - 0.36 * r), np.maximum(ax - 0.36 * r, ay - 1.02 * r))
    assert np.abs(ours - np.clip(0.5 - distance, 0, 1)).max() < 0.25
    assert ours.sum() == pytest.approx(np.clip(0.5 - distance, 0, 1).sum(), rel=0.02)


@pytest.mark.parametrize("shape", ["triangle", "star"])
def test_coverage_of_polygons_agrees_with_matplotlib(shape: str) -> None:
    corners = np.array(CORNERS[shape]) / 1000 * 9.5 + [16.75, 16.25]
    at = (np.arange(BOX_PX * 8) + 0.5) / 8
    points = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    inside = Path(corners).contains_points(points).reshape(BOX_PX, 8, BOX_PX, 8).sum((1, 3))
    assert np.abs(coverage(shape, 38, 3, 1).astype(int) - inside).max() <= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stay_within_their_reach_and_are_centred(shape: str) -> None:
    mask = coverage(shape, 40, 0, 0) / 64
    y, x = np.mgrid[0:BOX_PX, 0:BOX_PX] + 0.5 - 16
    assert np.hypot(x, y)[mask > 0].max() <= 1.15 * 10 + 0.75
    assert abs((mask * x).sum() / mask.sum()) < 0.05
    assert abs((mask * y).sum() / mask.sum()) < 0.1
    # a sample exactly on an edge belongs to one side only
    assert np.abs(mask - mask[:, ::-1]).max() <= 2 / 64


def test_half_of_the_rows_of_a_striped_thing_are_dark() -> None:
    assert stripes(0).reshape(4, 8).sum(1).tolist() == [32] * 4
    thing = Thing(colour="red", shape="square", texture="striped", size="large", x=128, y=128, radius=48)
    column = render(Scene(things=(thing,), ground="white", pattern="plain"))[:, 32]
    assert column[32].tolist() == list(RGB["red"])
    assert column[36].tolist() == [round(v * DARK_PERCENT / 100) for v in RGB["red"]]


def test_colours_are_far_from_every_ground() -> None:
    surfaces = [np.array(rgb) * share / 100 for rgb in RGB.values() for share in (100, DARK_PERCENT)]
    grounds = [np.array(rgb) for rgb in (*GROUND_RGB.values(), *SECOND_RGB.values())]
    assert min(np.linalg.norm(a - b) for a in surfaces for b in grounds) > 50


def test_grounds_are_patterned_as_they_say() -> None:
    assert len(np.unique(ground_image("grey", "plain"))) == 1
    checkered = ground_image("white", "checkered")
    assert checkered[0, 0].tolist() != checkered[0, 8].tolist()
    assert checkered[0, 0].tolist() == checkered[8, 8].tolist()
    dotted = ground_image("black", "dotted")
    assert dotted[4, 4].tolist() == list(SECOND_RGB["black"])
    assert dotted[0, 0].tolist() == list(GROUND_RGB["black"])


def test_seeds_give_the_same_bytes_everywhere() -> None:
    """Golden digest: draws, coverage and blends are integers, so it holds on every CPU."""
    rng = np.random.default_rng(7)
    images = np.stack([render(draw_scene(draw_caption(rng), rng)) for _ in range(40)])
    assert hashlib.sha256(images.tobytes()).hexdigest() == DIGEST


DIGEST = "d10566691c7d178f7794a0dad2f0370aead23f60e972a4db58f346a37cbe13ab"
