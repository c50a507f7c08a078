"""Reads the pictures of a run, and checks that they are the ones that were measured.

`images.parquet` stores the SHA-256 of each picture's pixels. A picture outside the run directory, or whose pixels have
another digest, is refused, because its score would belong to a different image.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from perjoule.errors import RunError
from perjoule.opening import open_inside
from perjoule.protocols import Images

# the largest image that a suite can ask for
MOST_SIDE_PX = 8192


class PictureError(RunError):
    """A stored picture is missing, damaged, or not the one that was measured."""


def pixel_digest(pixels: Images) -> str:
    """Return the SHA-256 of an image's pixels, shape (h, w, 3) uint8, as 64 hex digits, as in `images.parquet`."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def read_picture(folder: Path, file: str, sha256: str | None) -> Images:
    """Read a picture of a run.

    Args:
        folder: Run directory.
        file: Path relative to `folder`, as in `images.parquet`.
        sha256: Digest of its pixels, as stored when it was measured.

    Returns:
        Pixels of shape (h, w, 3), uint8.

    Raises:
        PictureError: If the picture is missing, damaged, outside the run directory, or has other pixels.
    """
    from PIL import Image

    try:
        with open_inside(folder, file) as opened, Image.open(opened, formats=("PNG",)) as picture:
            # other formats are never decoded: Pillow passes EPS, for example, to Ghostscript
            if max(picture.size) > MOST_SIDE_PX:
                raise ValueError(f"{picture.width} × {picture.height} pixels; at most {MOST_SIDE_PX} a side are read")
            pixels = np.array(picture.convert("RGB"))  # a copy: torch needs writable memory
    except RunError as error:
        raise PictureError(str(error)) from None
    # Pillow raises SyntaxError for broken PNG chunks, and its own DecompressionBombError
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise PictureError(f"{folder / file}: not a readable picture: {error}") from error
    if sha256 is None:
        raise PictureError(f"{folder / file}: images.parquet has no SHA-256 for it, so it cannot be checked")
    digest = pixel_digest(pixels)
    if digest != sha256:
        raise PictureError(
            f"{folder / file} is not the picture that was measured: the SHA-256 of its pixels is {digest}, "
            f"but images.parquet has {sha256}"
        )
    return pixels
