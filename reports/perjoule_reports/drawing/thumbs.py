"""Generated images as data URIs, small enough for one page.

An image of at most 64 px is stored without loss and shown as squares; a larger one is scaled down.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from perjoule.runs.pictures import PictureError, read_picture

MOST_PICTURES = 24
SIDES_PX = (256, 192, 128, 96, 64)
BYTES_BUDGET = 1_100_000  # of base64; the rest of the two megabytes is for figures and text
_PIXEL_ART_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An image of a run: the run directory, the file name from images.parquet, the SHA-256 of its pixels."""

    folder: Path
    file: str
    sha256: str | None


def encode(stored: Stored, side: int) -> tuple[str, bool]:
    """Return a WebP data URI of at most `side` px, and whether it is pixel art.

    The URI is empty if the image is missing, or differs from the one that was metered.
    """
    try:
        image = Image.fromarray(read_picture(stored.folder, stored.file, stored.sha256))
    except PictureError:
        return "", False
    pixel_art = max(image.size) <= min(side, _PIXEL_ART_PX)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if pixel_art:  # for lossless files `quality` means effort; a higher value is slow and saves only 3 % of the bytes
        image.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    else:
        image.save(buffer, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), pixel_art


def encode_all(pictures: Sequence[Stored], budget: int = BYTES_BUDGET) -> list[tuple[str, bool]]:
    """Encode all images at the largest side at which they fit the budget together."""
    encoded: list[tuple[str, bool]] = []
    for side in SIDES_PX:
        encoded = [encode(picture, side) for picture in pictures]
        if sum(len(uri) for uri, _ in encoded) <= budget:
            break
    return encoded
