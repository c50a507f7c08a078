"""Reads the pictures of a run, and checks that they are the ones that were measured.

`images.parquet` stores the SHA-256 of each picture's pixels. A picture outside the run directory, or whose pixels have
another digest, is refused, because its score would belong to a different image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from perjoule.errors import RunError
from perjoule.files import replacing
from perjoule.opening import open_inside, require_size
from perjoule.protocols import Images

# the largest image that a suite can ask for
MOST_SIDE_PX = 8192
# its file, if nothing in it can be compressed: 192 MiB and what PNG adds
MOST_PICTURE_BYTES = 208 * 2**20
_LARGE_BYTES = 8 * 2**20
_LARGE_PX = 2048**2
_one_large = RLock()


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
        PictureError: If the picture is missing, damaged, too large, outside the run directory, or has other pixels.
    """
    with _described(folder / file), open_inside(folder, file) as opened:
        require_size(os.fstat(opened.fileno()).st_size, MOST_PICTURE_BYTES, folder / file)
        return _measured(opened, folder / file, sha256)


def copy_picture(folder: Path, file: str, sha256: str | None, to: Path) -> None:
    """Copy the file of a picture, after the checks of `read_picture`, and wait until it is on disk.

    Several threads may copy at once; of large pictures, whose pixels take up to 0.7 GiB, one is decoded at a time.

    Raises:
        PictureError: As `read_picture`.
        OSError: If the copy cannot be written.
    """
    place = folder / file
    with ExitStack() as held:
        with _described(place):
            opened = held.enter_context(open_inside(folder, file))
            size = os.fstat(opened.fileno()).st_size
            require_size(size, MOST_PICTURE_BYTES, place)
            with _turn(size > _LARGE_BYTES):
                _measured(opened, place, sha256, lambda pixels: _turn(pixels > _LARGE_PX))
        opened.seek(0)
        with replacing(to) as copy:
            shutil.copyfileobj(opened, copy)


@contextmanager
def _described(place: Path) -> Iterator[None]:
    """Turn errors about a picture into PictureError."""
    try:
        yield
    except RunError as error:
        raise PictureError(str(error)) from None
    except UnidentifiedImageError:  # its message names an open file instead of the path
        raise PictureError(f"{place}: not a readable picture: not a PNG file") from None
    # Pillow raises SyntaxError for broken PNG chunks, and its own DecompressionBombError
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise PictureError(f"{place}: not a readable picture: {error}") from error


def _turn(is_large: bool) -> AbstractContextManager[Any]:
    return _one_large if is_large else nullcontext()


def _measured(
    opened: IO[bytes],
    place: Path,
    sha256: str | None,
    turn: Callable[[int], AbstractContextManager[Any]] = lambda pixels: nullcontext(),
) -> Images:
    """Return the pixels; raises ValueError or PictureError unless they are those that were measured.

    `turn` gets the number of pixels that the header states, and is held while they are decoded.
    """
    # other formats are never decoded: Pillow passes EPS, for example, to Ghostscript
    with Image.open(opened, formats=("PNG",)) as picture, turn(picture.width * picture.height):
        if max(picture.size) > MOST_SIDE_PX:
            raise ValueError(f"{picture.width} × {picture.height} pixels; at most {MOST_SIDE_PX} a side are read")
        pixels = np.array(picture.convert("RGB"))  # a copy: torch needs writable memory
        if sha256 is None:
            raise PictureError(f"{place}: the run has no SHA-256 for it, so it cannot be checked")
        digest = pixel_digest(pixels)
    if digest != sha256:
        raise PictureError(
            f"{place} is not the picture that was measured: the SHA-256 of its pixels is {digest}, but the run has "
            f"{sha256}"
        )
    return pixels
