"""The tiny world: captioned scenes of coloured shapes, rendered exactly.

A scene is one or two flat shapes on a ground. Every attribute in the caption is visible in the image, so a
recogniser can check an image against its caption with a known ground truth, which photographs do not have.

The world is small on purpose: eight colours, six shapes, three textures, four ground colours and three ground patterns
are what a four-million-parameter denoiser can learn on two CPU cores. Prompts still differ in difficulty, from *a large
red circle on a white ground* to *a striped pink star above a spotted blue ring on a checkered grey ground*.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 64

Plane = NDArray[np.floating[Any]]  # one value a pixel, or (n, 2) corners

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 220, 45),
    "green": (45, 155, 60),
    "cyan": (55, 200, 220),
    "blue": (40, 75, 210),
    "purple": (125, 50, 170),
    "pink": (245, 130, 185),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("plain", "striped", "spotted")
SIZES = ("large", "small")
POSITIONS = ("centre", "left", "right", "top", "bottom")
ARRANGEMENTS = ("single", "beside", "stacked")
GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "grey": (150, 150, 150),
    "black": (22, 22, 22),
    "beige": (225, 200, 160),
}
GROUND_PATTERNS = ("plain", "checkered", "dotted")

_RADIUS_PX = {"large": (17.0, 20.0), "small": (10.0, 12.0), "medium": (12.0, 13.5)}
_PLAIN_SHARE = (0.6, 0.2, 0.2)
_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One shape: its colour, form, surface and size (`medium` where two share the picture)."""

    colour: str
    shape: str
    texture: str
    size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Content of a caption: one or two things, their arrangement, and the ground.

    `things[0]` is the left or the upper one when there are two.
    """

    things: tuple[Thing, ...]
    arrangement: str
    position: str
    ground: str
    ground_pattern: str

    @property
    def key(self) -> str:
        """A canonical name of the scene, the same for all its paraphrases."""
        things = "+".join(f"{t.size}.{t.texture}.{t.colour}.{t.shape}" for t in self.things)
        return f"{self.arrangement}.{self.position}.{things}.{self.ground_pattern}.{self.ground}"

    @property
    def held_out(self) -> bool:
        """True for the tenth of all scenes, chosen by hash, that is never used for training."""
        digest = hashlib.sha256(self.key.encode()).digest()
        return int.from_bytes(digest[:4], "big") < _HELD_OUT_SHARE * 2**32


def sample_scene(rng: np.random.Generator, *, held_out: bool = False, things: int | None = None) -> Scene:
    """Draw a scene from one side of the split.

    Args:
        rng: The source of chance.
        held_out: Which side of the split to draw from.
        things: 1 or 2; drawn (55 % one, 45 % two) when None.
    """
    while True:
        count = things or (1 if rng.random() < 0.55 else 2)
        arrangement = "single" if count == 1 else str(rng.choice(ARRANGEMENTS[1:]))
        scene = Scene(
            things=tuple(_sample_thing(rng, count) for _ in range(count)),
            arrangement=arrangement,
            position=str(rng.choice(POSITIONS)) if count == 1 else "centre",
            ground=str(rng.choice(list(GROUNDS))),
            ground_pattern=str(rng.choice(GROUND_PATTERNS, p=_PLAIN_SHARE)),
        )
        if scene.held_out == held_out:
            return scene


def _sample_thing(rng: np.random.Generator, count: int) -> Thing:
    return Thing(
        colour=str(rng.choice(list(COLOURS))),
        shape=str(rng.choice(SHAPES)),
        texture=str(rng.choice(TEXTURES, p=_PLAIN_SHARE)),
        size=str(rng.choice(SIZES)) if count == 1 else "medium",
    )


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Return the caption of a scene; with `rng`, one of its paraphrases."""
    pick = rng.random(2) if rng is not None else np.zeros(2)
    words = [_thing_words(t) for t in scene.things]
    if scene.arrangement == "single":
        where = "" if scene.position == "centre" else f" at the {scene.position}"
        body = f"{words[0]}{where}"
    else:
        first, second = ("left of", "right of") if scene.arrangement == "beside" else ("above", "below")
        body = f"{words[0]} {first} {words[1]}" if pick[0] < 0.5 else f"{words[1]} {second} {words[0]}"
    pattern = "" if scene.ground_pattern == "plain" else f"{scene.ground_pattern} "
    ground = f" on a {pattern}{scene.ground} ground"
    return ("a picture of " if pick[1] > 0.75 else "") + body + ground


def _thing_words(thing: Thing) -> str:
    size = "" if thing.size == "medium" else thing.size
    texture = "" if thing.texture == "plain" else thing.texture
    words = " ".join(w for w in (size, texture, thing.colour, thing.shape) if w)
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def parse_caption(text: str) -> Scene | None:
    """The scene that a caption of this world describes, or None if it is not one."""
    words = text.lower().removeprefix("a picture of ").strip().rstrip(".")
    if " on a " not in words or not words.endswith(" ground"):
        return None
    body, _, ground_words = words.removesuffix(" ground").rpartition(" on a ")
    *pattern, ground = ground_words.split()
    ground_pattern = pattern[0] if pattern else "plain"
    arrangement, position, swapped = "single", "centre", False
    parts = [body]
    for joint, kind, flip in (
        (" left of ", "beside", False),
        (" right of ", "beside", True),
        (" above ", "stacked", False),
        (" below ", "stacked", True),
    ):
        if joint in body:
            parts, arrangement, swapped = body.split(joint), kind, flip
    if arrangement == "single" and " at the " in body:
        parts[0], _, position = body.partition(" at the ")
    things = [_parse_thing(p, alone=arrangement == "single") for p in parts]
    known = ground in GROUNDS and ground_pattern in GROUND_PATTERNS and position in POSITIONS
    if not known or len(pattern) > 1 or len(parts) > 2 or None in things:
        return None
    parsed = tuple(t for t in things if t is not None)
    return Scene(
        things=parsed[::-1] if swapped else parsed,
        arrangement=arrangement,
        position=position,
        ground=ground,
        ground_pattern=ground_pattern,
    )


def _parse_thing(words: str, *, alone: bool) -> Thing | None:
    rest = [w for w in words.split() if w not in ("a", "an")]
    size = rest.pop(0) if alone and rest and rest[0] in SIZES else "medium"
    texture = rest.pop(0) if rest and rest[0] in TEXTURES[1:] else "plain"
    if (alone and size == "medium") or len(rest) != 2 or rest[0] not in COLOURS or rest[1] not in SHAPES:
        return None
    return Thing(colour=rest[0], shape=rest[1], texture=texture, size=size)


def render(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the scene; `rng` jitters place, size and the phase of textures. -> (64, 64, 3) uint8 sRGB."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32) + 0.5
    picture = _draw_ground(scene, rng, x, y)
    for thing, (cx, cy, radius) in zip(scene.things, _layout(scene, rng), strict=True):
        distance = _signed_distance(thing.shape, x - cx, y - cy, radius)
        cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
        picture = picture * (1 - cover) + _surface(thing, rng, x, y) * cover
    return np.round(picture).clip(0, 255).astype(np.uint8)


def _layout(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    radii = [float(rng.uniform(*_RADIUS_PX[t.size])) for t in scene.things]
    middle = SIDE_PX / 2
    if scene.arrangement == "single":
        shift = middle - radii[0] - 2.0
        dx = {"left": -shift, "right": shift}.get(scene.position, 0.0)
        dy = {"top": -shift, "bottom": shift}.get(scene.position, 0.0)
        jitter = rng.uniform(-1.5, 1.5, 2)
        return [(middle + dx + jitter[0], middle + dy + jitter[1], radii[0])]
    along, across = rng.uniform(-1.0, 1.0, 2), rng.uniform(-4.0, 4.0, 2)
    ends = [(middle - 15.5 + along[0], middle + across[0]), (middle + 15.5 + along[1], middle + across[1])]
    if scene.arrangement == "stacked":
        ends = [(b, a) for a, b in ends]
    return [(cx, cy, r) for (cx, cy), r in zip(ends, radii, strict=True)]


def _draw_ground(scene: Scene, rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    base = np.asarray(GROUNDS[scene.ground], np.float32) * np.float32(rng.uniform(0.97, 1.03))
    other = base - 42 if base.mean() > 90 else base + 48
    mix = np.zeros_like(x)
    if scene.ground_pattern == "checkered":
        mix = ((np.floor(x / 8) + np.floor(y / 8)) % 2).astype(np.float32)
    elif scene.ground_pattern == "dotted":
        px, py = (x % 8) - 4, (y % 8) - 4
        mix = np.clip(0.5 - (np.hypot(px, py) - 2.0), 0, 1)
    return base + (other - base) * mix[..., None]


def _surface(thing: Thing, rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    surface: Plane = np.broadcast_to(np.asarray(COLOURS[thing.colour], np.float32), (*x.shape, 3))
    surface = surface * np.float32(rng.uniform(0.96, 1.04))
    phase = rng.uniform(0, 8, 2)
    if thing.texture == "striped":
        wave = np.abs(((y + phase[0]) % 7) - 3.5) - 1.75
        surface = surface * (1 - 0.6 * np.clip(0.5 - wave, 0, 1))[..., None]
    elif thing.texture == "spotted":
        spot = np.clip(0.5 - (np.hypot((x + phase[0]) % 7 - 3.5, (y + phase[1]) % 7 - 3.5) - 1.9), 0, 1)
        surface = surface + (250 - surface) * spot[..., None]
    return surface


def _signed_distance(shape: str, x: Plane, y: Plane, radius: float) -> Plane:
    """Signed distance in px to the outline of an upright shape at the origin (y grows downwards)."""
    distance: Plane
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "ring":
        distance = np.abs(np.hypot(x, y) - 0.74 * radius) - 0.26 * radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.86 * radius
    elif shape == "cross":
        long, thin = radius, 0.34 * radius
        ax, ay = np.abs(x), np.abs(y)
        distance = np.minimum(np.maximum(ax - long, ay - thin), np.maximum(ax - thin, ay - long))
    elif shape == "triangle":
        distance = _polygon(x, y, _regular(3, radius * 1.1, y_shift=0.2 * radius))
    elif shape == "star":
        outer, inner = _regular(5, radius * 1.08), _regular(5, radius * 0.46, turn=np.pi / 5)
        distance = _polygon(x, y, np.stack([outer, inner], 1).reshape(-1, 2))
    else:
        raise ValueError(f"unknown shape {shape!r}: one of {', '.join(SHAPES)}")
    return distance


def _regular(corners: int, radius: float, turn: float = 0.0, y_shift: float = 0.0) -> Plane:
    angle = 2 * np.pi * np.arange(corners) / corners + turn
    return np.stack([radius * np.sin(angle), y_shift - radius * np.cos(angle)], 1)


def _polygon(x: Plane, y: Plane, corners: Plane) -> Plane:
    """Signed distance to a simple polygon: nearest edge for the size, crossing number for the sign."""
    nearest = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(px - along * ex, py - along * ey).astype(np.float32))
        crosses = (ay > y) != (by > y)
        inside ^= crosses & (x < ax + (y - ay) * ex / (ey if ey else 1e-9))
    return np.where(inside, -nearest, nearest)
