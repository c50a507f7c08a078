"""Generated images as data URIs, small enough for one page.

An image of at most 64 px is stored without loss and shown as squares; a larger one is scaled down.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, WebPImagePlugin  # noqa: F401 — without it Pillow loads all its formats to find WebP

from perjoule.runs.pictures import PictureError, read_picture

MOST_PICTURES = 24
SIDES_PX = (256, 192, 128, 96, 64)
SHEET_SIDES_PX = (128, 96, 64, 48)  # of the overview of all prompts
BYTES_BUDGET, SHEET_BUDGET = 500_000, 350_000  # of base64; the rest of the page is for figures and text
_PIXEL_ART_PX = 64
_SAMPLE, _CLEARLY = 24, 1.25  # images after which encoding stops if all would need this multiple of the budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An image of a run: the run directory, the file name from images.parquet, the SHA-256 of its pixels."""

    folder: Path
    file: str
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An image for the page: a data URI (empty if the image is missing, or differs from the one that was metered).

    `pixelated` images are drawn as squares; `reduced` ones have fewer pixels than the file.
    """

    uri: str = ""
    pixelated: bool = False
    reduced: bool = False


def encode_all(
    pictures: Sequence[Stored], budget: int = BYTES_BUDGET, sides: Sequence[int] = SIDES_PX
) -> list[Encoded]:
    """Encode all images at the largest side at which they fit the budget together, else at the smallest."""
    opened = [_opened(picture, max(sides)) for picture in pictures]
    largest = max((max(one[0].size) for one in opened if one is not None), default=0)
    for side, smaller in zip(sides, (*sides[1:], 0), strict=True):
        if smaller and smaller >= largest:
            continue  # it gives the same images
        encoded = _fitting(opened, side, budget if smaller else None)
        if encoded is not None:
            return encoded
    return []


def _fitting(opened: Sequence[tuple[Image.Image, bool] | None], side: int, budget: int | None) -> list[Encoded] | None:
    """Encode images at one side; None as soon as they exceed a budget, or the first ones show that all will."""
    encoded: list[Encoded] = []
    size = 0
    for one in opened:
        encoded.append(Encoded() if one is None else _encode(*one, side))
        size += len(encoded[-1].uri)
        expected = _CLEARLY * budget * len(encoded) / len(opened) if budget and len(encoded) >= _SAMPLE else math.inf
        if budget is not None and size > min(budget, expected):
            return None
    return encoded


def _opened(stored: Stored, side: int) -> tuple[Image.Image, bool] | None:
    """Return an image of at most `side` px, and whether the file has more; None if it cannot be shown."""
    try:
        image = Image.fromarray(read_picture(stored.folder, stored.file, stored.sha256))
    except PictureError:
        return None
    return _smaller(image, side), max(image.size) > side


def _encode(image: Image.Image, reduced: bool, side: int) -> Encoded:
    pixelated = not reduced and max(image.size) <= min(side, _PIXEL_ART_PX)
    small = _smaller(image, side)
    buffer = io.BytesIO()
    if pixelated:  # for lossless files `quality` means effort; a higher value is slow and saves only 3 % of the bytes
        small.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    else:
        small.save(buffer, "WEBP", quality=82, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Encoded(uri=uri, pixelated=pixelated, reduced=reduced or small.size != image.size)


def _smaller(image: Image.Image, side: int) -> Image.Image:
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small
