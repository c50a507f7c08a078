"""Scenes of the open world: drawn from a caption, rendered in integer arithmetic.

Lengths are in quarters of a pixel. Draws, places and coverage are integers (8 x 8 samples a pixel), and so are the
blends, so that a seed gives the same bytes on every CPU. `captions.Caption.open_bits` is the only figure here that
uses floating point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perjoule_suites.tiny.world.captions import (
    COLOURS,
    GROUNDS,
    PATTERNS,
    SHAPES,
    SIZES,
    TEXTURES,
    Caption,
    draw_one,
)

SIDE_PX = 64
UNITS = 4  # units of length in a pixel
RGB: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 220, 45),
    "green": (45, 160, 60),
    "cyan": (55, 200, 220),
    "blue": (40, 75, 215),
    "purple": (135, 55, 185),
    "pink": (245, 120, 185),
}
GROUND_RGB: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "grey": (150, 150, 150),
    "black": (22, 22, 22),
    "beige": (225, 200, 160),
}
# the second colour of a patterned ground, far from every colour and dark stripe of a thing
SECOND_RGB: dict[str, tuple[int, int, int]] = {
    "white": (205, 205, 205),
    "grey": (192, 192, 192),
    "black": (58, 58, 58),
    "beige": (185, 160, 120),
}
RADII = {"small": (32, 38), "large": (46, 52)}  # units, both ends included
STRIPE_PX, CELL_PX = 8, 8  # period of stripes; side of a check and distance of dots
DARK_PERCENT = 55  # brightness of the dark stripes
REACH_PERCENT = 115  # no shape reaches further from its centre than this share of its radius
GAP = 10  # least distance between two things, in units
BOX_PX = 32  # side of a box around any thing

_SAMPLES = 8
_FINE = 32 // UNITS  # thirty-seconds of a pixel in a unit
# corners in thousandths of the radius, y downwards
CORNERS = {
    "triangle": ((0, -1150), (996, 575), (-996, 575)),
    "star": tuple(
        zip(
            (0, 294, 1065, 475, 658, 0, -658, -475, -1065, -294),
            (-1120, -405, -346, 154, 906, 500, 906, 154, -346, -405),
            strict=True,
        )
    ),
}
_TRIES, _JITTER = 512, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A thing with its place. x, y, radius: units."""

    colour: str
    shape: str
    texture: str
    size: str
    x: int
    y: int
    radius: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Content of a picture; things are in the order of the caption's wishes."""

    things: tuple[Thing, ...]
    ground: str
    pattern: str


def draw_scene(caption: Caption, rng: np.random.Generator) -> Scene:
    """Draw a scene of a caption: open slots independently, then places uniformly among those without overlap."""
    looks: list[dict[str, Any]] = []
    for wish in caption.of_each_thing:
        size = (wish.size or SIZES[int(rng.integers(2))]) if caption.has_sizes else "small"
        low, high = RADII[size]
        if caption.count == 3 and caption.layout:
            high = 35  # three in a row need room
        looks.append(
            {
                "size": size,
                "texture": wish.texture or draw_one(rng, TEXTURES),
                "colour": wish.colour or COLOURS[int(rng.integers(len(COLOURS)))],
                "shape": wish.shape or SHAPES[int(rng.integers(len(SHAPES)))],
                "radius": int(rng.integers(low, high + 1)),
            }
        )
    radii = np.array([look["radius"] for look in looks])
    places = _named_places(caption, radii, rng) if caption.layout else _free_places(radii, rng)
    return Scene(
        things=tuple(Thing(**look, x=int(x), y=int(y)) for look, (x, y) in zip(looks, places, strict=True)),
        ground=caption.ground or GROUNDS[int(rng.integers(len(GROUNDS)))],
        pattern=caption.pattern or draw_one(rng, PATTERNS),
    )


def nominal_places(layout: str, count: int, radius: int) -> NDArray[np.int64]:
    """Centres of the things of a layout before jitter. radius: of a single thing. -> (count, 2) units, x and y."""
    middle = SIDE_PX * UNITS // 2
    side = middle - -(-radius * REACH_PERCENT // 100) - UNITS - _JITTER  # whole, with 1 px of ground
    single = {"centre": (0, 0), "left": (-side, 0), "right": (side, 0), "top": (0, -side), "bottom": (0, side)}
    if layout in single:
        return np.array([single[layout]]) + middle
    if layout == "grid":
        return np.array([(-60, -60), (60, -60), (-60, 60), (60, 60)]) + middle
    along = np.array([-84, 0, 84] if count == 3 else [-62, 62]) + middle
    across = np.full(count, middle)
    return np.stack([along, across] if layout in ("beside", "row") else [across, along], 1)


def _named_places(caption: Caption, radii: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    assert caption.layout is not None
    jitter = rng.integers(-_JITTER, _JITTER + 1, (caption.count, 2))
    along = 0 if caption.layout in ("beside", "row") else 1
    if caption.count in (2, 3):  # the things keep their distance
        jitter[:, along] = rng.integers(-1, 2, caption.count)
    if caption.kind == "pair":  # two related things are level within 4 px
        jitter[:, 1 - along] = rng.integers(-16, 17, 2)
    return nominal_places(caption.layout, caption.count, int(radii[0])) + jitter


def _free_places(radii: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    margin = -(-radii * REACH_PERCENT // 100) + UNITS
    first, second = np.triu_indices(len(radii), 1)
    apart = (radii[first] + radii[second]) * REACH_PERCENT // 100 + GAP
    while True:
        places = rng.integers(margin[:, None], SIDE_PX * UNITS + 1 - margin[:, None], (_TRIES, len(radii), 2))
        gaps = places[:, first] - places[:, second]
        fits = ((gaps**2).sum(-1) >= apart**2).all(1)
        if fits.any():
            found: NDArray[np.int64] = places[int(fits.argmax())]
            return found


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw the scene. -> (64, 64, 3) uint8 sRGB."""
    picture = ground_image(scene.ground, scene.pattern).astype(np.int32)
    for thing in scene.things:
        paint(picture, thing)
    return picture.astype(np.uint8)


def paint(picture: NDArray[np.int32], thing: Thing) -> None:
    """Draw a thing into a picture of integers, in place."""
    box, inside = box_of(thing)
    cover = coverage(thing.shape, thing.radius, thing.x % UNITS, thing.y % UNITS)[inside].astype(np.int32)[..., None]
    colour = np.array(RGB[thing.colour], np.int32)
    dark = stripes(thing.y % UNITS)[inside[0], None, None] if thing.texture == "striped" else np.zeros(1, np.int32)
    surface = colour * (100 * _SAMPLES - (100 - DARK_PERCENT) * dark)  # 100 * _SAMPLES times the colour
    scale = 100 * _SAMPLES
    whole = _SAMPLES * _SAMPLES
    below = picture[box]
    picture[box] = (below * (whole - cover) * scale + surface * cover + scale * whole // 2) // (scale * whole)


def box_of(thing: Thing) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the rows and columns of the picture around a thing, and the same inside its 32 x 32 box."""
    box, inside = [], []
    for centre in (thing.y, thing.x):
        start = centre // UNITS - BOX_PX // 2
        low, high = max(0, start), min(SIDE_PX, start + BOX_PX)
        box.append(slice(low, high))
        inside.append(slice(low - start, high - start))
    return (box[0], box[1]), (inside[0], inside[1])


@cache
def coverage(shape: str, radius: int, x: int, y: int) -> NDArray[np.uint8]:
    """Return how many of the 64 samples of each pixel a shape covers. radius, x, y: units, x and y below 1 px.

    The centre is at (16 + x/4, 16 + y/4) px of the box. -> (32, 32) uint8
    """
    at = 2 * np.arange(BOX_PX * _SAMPLES, dtype=np.int64) * 32 // (2 * _SAMPLES) + 32 // (2 * _SAMPLES)
    across = (at - (BOX_PX * 16 + x * _FINE))[None, :]
    down = (at - (BOX_PX * 16 + y * _FINE))[:, None]
    covered = _is_inside(shape, across, down, radius * _FINE)
    counts = covered.reshape(BOX_PX, _SAMPLES, BOX_PX, _SAMPLES).sum((1, 3))
    cover: NDArray[np.uint8] = counts.astype(np.uint8)
    return cover


def _is_inside(shape: str, x: NDArray[np.int64], y: NDArray[np.int64], r: int) -> NDArray[np.bool_]:
    """Say which points an upright shape of radius r at the origin covers."""
    wide, high = np.abs(x) * 1000, np.abs(y) * 1000
    inside: NDArray[np.bool_]
    if shape == "circle":
        inside = x * x + y * y <= r * r
    elif shape == "ring":
        inside = (x * x + y * y <= r * r) & (4 * (x * x + y * y) >= r * r)
    elif shape == "square":
        inside = (wide <= 810 * r) & (high <= 810 * r)
    elif shape == "cross":
        inside = ((wide <= 1020 * r) & (high <= 360 * r)) | ((wide <= 360 * r) & (high <= 1020 * r))
    else:
        inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
        corners = [(cx * r, cy * r) for cx, cy in CORNERS[shape]]
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            # even-odd rule: which edges does a ray to the right cross?
            side = (x * 1000 - ax) * (by - ay) - (y * 1000 - ay) * (bx - ax)
            inside ^= ((ay > y * 1000) != (by > y * 1000)) & ((side < 0) if by > ay else (side > 0))
    return inside


@cache
def stripes(y: int) -> NDArray[np.int32]:
    """Return how many of the 8 sample rows of each pixel row of a box are dark: 4 px light at the centre, 4 px dark."""
    at = np.arange(BOX_PX * _SAMPLES) * 32 // _SAMPLES + 32 // (2 * _SAMPLES) - (BOX_PX * 16 + y * _FINE)
    dark = (at + STRIPE_PX * 8) % (STRIPE_PX * 32) >= STRIPE_PX * 16
    rows: NDArray[np.int32] = dark.reshape(BOX_PX, _SAMPLES).sum(1).astype(np.int32)
    return rows


@cache
def ground_image(ground: str, pattern: str) -> NDArray[np.uint8]:
    """The ground without things. -> (64, 64, 3) uint8."""
    first, second = (np.array(rgb[ground], np.int32) for rgb in (GROUND_RGB, SECOND_RGB))
    at = np.arange(SIDE_PX)
    share = np.zeros((SIDE_PX, SIDE_PX), np.int32)  # of the second colour, in 64ths
    if pattern == "checkered":
        share += 64 * ((at[:, None] // CELL_PX + at[None, :] // CELL_PX) % 2)
    elif pattern == "dotted":
        dot = coverage("circle", 2 * UNITS, 0, 0)[BOX_PX // 2 - 4 : BOX_PX // 2 + 4, BOX_PX // 2 - 4 : BOX_PX // 2 + 4]
        share += np.tile(dot, (SIDE_PX // CELL_PX, SIDE_PX // CELL_PX))
    return ((first * (64 - share)[..., None] + second * share[..., None] + 32) // 64).astype(np.uint8)
