"""What full-reference metrics share: which images of a batch can be compared, and with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import NO_REFERENCE, Outcome

Pair = tuple[Images, Images]


def compare(
    images: ImageSet,
    batch: range,
    identical: float,
    judge: Callable[[list[Pair]], Sequence[float]],
    *,
    smallest_px: int = 1,
) -> list[Outcome]:
    """Outcomes of a batch of images against their references.

    Args:
        images: All of them.
        batch: Indices to look at.
        identical: The value of an image that is its own reference.
        judge: Pairs (image, reference) of one size, each (h, w, 3) uint8 -> one value per pair.
        smallest_px: Side below which an image has no score.
    """
    outcomes: dict[int, Outcome] = {}
    by_shape: dict[tuple[int, ...], list[tuple[int, Pair]]] = {}
    for index in batch:
        reference_id = images.reference_ids[index]
        if reference_id is None:
            outcomes[index] = NO_REFERENCE
        elif reference_id == images.image_ids[index]:
            outcomes[index] = identical
        else:
            image, reference = images.images(index), images.references(index)
            if image.shape != reference.shape:
                outcomes[index] = f"{_size(image)} cannot be compared with its reference of {_size(reference)}"
            elif min(image.shape[:2]) < smallest_px:
                outcomes[index] = f"{_size(image)} is too small: {smallest_px} px are needed"
            else:
                by_shape.setdefault(image.shape, []).append((index, (image, reference)))
    for found in by_shape.values():  # one pass per size, because a batch is one array
        outcomes |= zip((index for index, _ in found), judge([pair for _, pair in found]), strict=True)
    return [outcomes[index] for index in batch]


def _size(image: Images) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
