"""A classical checker: what a picture shows, and how whole and clean it is. No network, no training.

It explains the picture by the world itself: it picks the ground, separates what does not belong to it, fits to each
part the shape, place, radius, colour and stripes that explain it best, and measures what the fit leaves over. Half
shapes, blends, blurs and blotches leave much.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from perjoule_suites.tiny.world.captions import COLOURS, GROUNDS, PATTERNS, SHAPES
from perjoule_suites.tiny.world.scenes import (
    BOX_PX,
    DARK_PERCENT,
    RGB,
    SIDE_PX,
    STRIPE_PX,
    UNITS,
    coverage,
    ground_image,
    stripes,
)

Values = NDArray[np.float32]

_DIFFERENT = 34.0  # RGB distance from the ground at which a pixel belongs to a thing
_SPECK_PX = 14  # smaller parts are junk, not things
_MOST_THINGS = 8  # further parts are junk
_RADII = tuple(range(24, 61, 2))  # units, of the coarse fit
_LARGE_FROM = 42  # units: between the largest small and the smallest large radius
_DARK = DARK_PERCENT / 100
_HALF = BOX_PX // 2
_NEAR = 2  # units: how far the fine fit looks around the coarse one, and again from its best if that is at the edge


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenThing:
    """A thing in a picture.

    Attributes:
        colour: Nearest colour of the world.
        shape: Best fitting shape.
        texture: `plain` or `striped`.
        size: `large` or `small`.
        x: Centre in px.
        y: Centre in px.
        radius: In px.
        overlap: Agreement of outline and fit, 0 to 1 (intersection over union of soft masks).
        surface_error: Root mean square RGB distance between the inside and the fitted surface.
    """

    colour: str
    shape: str
    texture: str
    size: str
    x: float
    y: float
    radius: float
    overlap: float
    surface_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a picture shows.

    Attributes:
        things: The things, largest part first.
        ground: Ground colour.
        pattern: Ground pattern.
        ground_error: Root mean square RGB distance from that ground, away from things, with edges free within 1 px.
        junk_px: Pixels that belong neither to the ground nor to a thing.
    """

    things: tuple[SeenThing, ...]
    ground: str
    pattern: str
    ground_error: float
    junk_px: int


def look(image: NDArray[np.uint8]) -> Seen:
    """Say what a picture shows. image: (64, 64, 3) uint8 sRGB."""
    picture = image.astype(np.float32)
    names, grounds = _grounds()
    distances = np.sqrt(((picture - grounds) ** 2).sum(-1))
    best = int(np.minimum(distances, 40).mean((1, 2)).argmin())
    ground = grounds[best]
    darkest, lightest = _range_of(*names[best])
    span = lightest - darkest
    along = ((picture - darkest) * span).sum(-1) / np.maximum((span**2).sum(-1), 1)
    blend = darkest + np.clip(along, 0, 1)[..., None] * span  # the nearest blend of both colours of the pattern
    distance = np.sqrt(((picture - blend) ** 2).sum(-1))
    parts, count = ndimage.label(distance > _DIFFERENT)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    order = sorted((label for label in range(1, count + 1) if sizes[label] >= _SPECK_PX), key=lambda k: -sizes[k])
    things = tuple(_fit(picture, ground, parts == label) for label in order[:_MOST_THINGS])
    near = ndimage.binary_dilation(parts > 0, iterations=2)
    bare = distance[~near]
    return Seen(
        things=things,
        ground=names[best][0],
        pattern=names[best][1],
        ground_error=float(np.sqrt((bare**2).mean())) if bare.size else 255.0,
        junk_px=int(distance.size - sizes[0] - sum(sizes[label] for label in order[:_MOST_THINGS])),
    )


def _fit(picture: Values, ground: Values, part: NDArray[np.bool_]) -> SeenThing:
    """Fit a thing to a part of the picture: outline, colour, stripes, then the outline again between pixels."""
    rows, columns = np.nonzero(part)
    top, left = (int(np.floor(at.mean() + 0.5)) - _HALF for at in (rows, columns))
    mask = _box(part, top, left)
    bank, areas, keys = _bank()
    shifted = np.stack([_shift(mask, dy, dx).ravel() for dy, dx in _SHIFTS], 1).astype(np.float32)
    common = bank @ shifted
    agreement = common / (areas[:, None] + shifted.sum(0)[None] - common)
    fit, shift = np.unravel_index(int(agreement.argmax()), agreement.shape)
    shape, radius, sub_x, sub_y = keys[int(fit)]
    dy, dx = _SHIFTS[int(shift)]
    top, left = top - dy, left - dx
    pixels, below, mask = _box(picture, top, left), _box(ground, top, left), _box(part, top, left)
    inside = (coverage(shape, radius, sub_x, sub_y) == 64) & _box(np.ones((SIDE_PX, SIDE_PX), bool), top, left)
    core = ndimage.binary_erosion(inside)
    if core.sum() < 8:
        core = inside if inside.any() else mask
    colour, brightness = _colour_of(pixels, core)
    level = _stripes_of(brightness, core)
    surface = np.array(RGB[colour], np.float32) * level[:, None, None]
    error = np.sqrt(((pixels - surface) ** 2).sum(-1))
    contrast = np.sqrt(((surface - below) ** 2).sum(-1))
    share = ((pixels - below) * (surface - below)).sum(-1) / np.maximum(contrast, 1) ** 2
    opacity = np.where(ndimage.binary_dilation(mask), np.clip(share, 0, 1), 0)
    radius, sub_x, sub_y, overlap = _refine(opacity, shape, radius, sub_x, sub_y)
    return SeenThing(
        colour=colour,
        shape=shape,
        texture="plain" if level.min() == 1 else "striped",
        size="large" if radius >= _LARGE_FROM else "small",
        x=left + _HALF + sub_x / UNITS,
        y=top + _HALF + sub_y / UNITS,
        radius=radius / UNITS,
        overlap=overlap,
        surface_error=float(np.sqrt((error[core] ** 2).mean())),
    )


def _colour_of(pixels: Values, core: NDArray[np.bool_]) -> tuple[str, Values]:
    """Return the colour whose light or dark form is nearest to most pixels, and each pixel's brightness."""
    inside = pixels[core]
    best, least, found = COLOURS[0], np.inf, np.ones(pixels.shape[:2], np.float32)
    for colour in COLOURS:
        rgb = np.array(RGB[colour], np.float32)
        brightness = np.clip(inside @ rgb / (rgb @ rgb), _DARK - 0.1, 1.1)
        error = float(np.median(((inside - brightness[:, None] * rgb) ** 2).sum(1)))
        if error < least:
            best, least = colour, error
            found = np.clip(pixels @ rgb / (rgb @ rgb), 0, 1.2)
    return best, found


def _stripes_of(brightness: Values, core: NDArray[np.bool_]) -> Values:
    """Return the brightness of each row of the box: all 1, or stripes with the best phase. -> (32,)."""
    levels = _levels()
    weight = core.sum(1)
    sums, squares = np.where(core, brightness, 0).sum(1), np.where(core, brightness**2, 0).sum(1)
    errors = (squares[None] - 2 * levels * sums[None] + levels**2 * weight[None]).sum(1)
    best = int(errors.argmin())
    dark = float(((levels[best] < 0.8) * weight).sum() / max(1, weight.sum()))
    found: Values = levels[best] if dark >= 0.12 else levels[0]
    return found


def _refine(opacity: Values, shape: str, radius: int, x: int, y: int) -> tuple[int, int, int, float]:
    """Fit radius and place to a quarter of a pixel. -> radius, x, y in units, and the agreement of soft masks."""
    near = range(-_NEAR, _NEAR + 1)
    found, before = (radius, x, y), -1.0
    while True:
        options = [(found[0] + dr, found[1] + dx, found[2] + dy) for dr in near for dx in near for dy in near]
        masks = np.stack([_placed(shape, *option) for option in options])
        common = np.minimum(masks, opacity).sum((1, 2))
        agreement = common / (masks.sum((1, 2)) + opacity.sum() - common)
        best = int(agreement.argmax())
        moved = max(abs(new - old) for new, old in zip(options[best], found, strict=True))
        if moved < _NEAR or agreement[best] <= before:  # the best is not at the edge of what was tried
            return (*options[best], float(agreement[best]))
        found, before = options[best], float(agreement[best])


@cache
def _placed(shape: str, radius: int, x: int, y: int) -> Values:
    """Coverage between 0 and 1 with a centre that may lie a pixel off the middle of the box."""
    mask = coverage(shape, radius, x % UNITS, y % UNITS).astype(np.float32) / 64
    return _shift(mask, y // UNITS, x // UNITS)


@cache
def _grounds() -> tuple[list[tuple[str, str]], Values]:
    names = [(ground, pattern) for ground in GROUNDS for pattern in PATTERNS]
    return names, np.stack([ground_image(*name) for name in names]).astype(np.float32)


@cache
def _range_of(ground: str, pattern: str) -> tuple[Values, Values]:
    """Return the darkest and the lightest colour of the ground within 1 px: edges of a pattern need not be exact."""
    image = ground_image(ground, pattern).astype(np.float32)
    return ndimage.minimum_filter(image, (3, 3, 1)), ndimage.maximum_filter(image, (3, 3, 1))


@cache
def _bank() -> tuple[Values, Values, list[tuple[str, int, int, int]]]:
    """Templates of the coarse fit as rows of bits, their areas and their keys."""
    keys = [(shape, r, x, y) for shape in SHAPES for r in _RADII for x in (0, 2) for y in (0, 2)]
    bank = np.stack([coverage(*key).ravel() >= 32 for key in keys]).astype(np.float32)
    return bank, bank.sum(1), keys


_SHIFTS = [(dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-1, 0, 1)]


@cache
def _levels() -> Values:
    """Brightness of the rows: first none dark, then stripes with each phase. -> (33, 32)."""
    dark = [np.roll(stripes(units), px) for px in range(STRIPE_PX) for units in range(UNITS)]
    return (1 - (1 - _DARK) * np.stack([np.zeros(BOX_PX), *dark]) / 8).astype(np.float32)


def _box(plane: NDArray[Any], top: int, left: int) -> NDArray[Any]:
    """Return a 32 x 32 box of the picture; beyond the border its edge is repeated for colours and False for masks."""
    rows, columns = np.arange(top, top + BOX_PX), np.arange(left, left + BOX_PX)
    box = plane[np.clip(rows, 0, SIDE_PX - 1)][:, np.clip(columns, 0, SIDE_PX - 1)]
    if plane.dtype == bool:
        box = box & ((rows >= 0) & (rows < SIDE_PX))[:, None] & ((columns >= 0) & (columns < SIDE_PX))[None]
    return box


def _shift(box: NDArray[Any], dy: int, dx: int) -> NDArray[Any]:
    """Move the content of a box; what leaves it is lost."""
    moved = np.zeros_like(box)
    height, width = box.shape
    moved[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = box[
        max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)
    ]
    return moved
