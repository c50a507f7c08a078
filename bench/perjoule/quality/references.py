"""Scoring loop of full-reference metrics, which compare images with references."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import NO_REFERENCE, Outcome, score_in_batches
from perjoule.types import Score

Pair = tuple[Images, Images]


def compare(
    images: ImageSet,
    batch: range,
    identical: float,
    judge: Callable[[list[Pair]], Sequence[float]],
    *,
    smallest_px: int = 1,
) -> list[Outcome]:
    """Return outcomes of a batch of images compared with their references.

    Args:
        images: All images.
        batch: Indices of the batch.
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
    for indexed_pairs in by_shape.values():  # one batch per size, because a batch is one array
        outcomes |= zip((index for index, _ in indexed_pairs), judge([pair for _, pair in indexed_pairs]), strict=True)
    return [outcomes[index] for index in batch]


def cosines_to_references(
    images: ImageSet,
    metric: str,
    batch_size: int,
    embed: Callable[[list[Images]], NDArray[np.float64]],
    on_progress: Callable[[int], None],
) -> list[Score]:
    """Return one cosine per image; 1.0 for a reference, unscored without a reference.

    Args:
        images: Images to score.
        metric: Name for the scores.
        batch_size: Images per call of `embed`.
        embed: n images, each (h, w, 3) uint8 of any size -> (n, d) vectors of length one.
        on_progress: Called with the number of images after each batch.
    """
    known: dict[str, NDArray[np.float64]] = {}

    def judge(batch: range) -> list[Outcome]:
        references = [images.reference_ids[i] for i in batch]
        new = {r: i for r, i in zip(references, batch, strict=True) if r and r not in known}
        if new:
            known.update(zip(new, embed([images.references(i) for i in new.values()]), strict=True))
        outcomes: list[Outcome] = []
        for vector, reference, index in zip(embed([images.images(i) for i in batch]), references, batch, strict=True):
            if reference is None:
                outcomes.append(NO_REFERENCE)
            elif reference == images.image_ids[index]:
                outcomes.append(1.0)
            else:
                outcomes.append(cosine(vector, known[reference]))
        return outcomes

    return score_in_batches(images, metric, batch_size, judge, on_progress)


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the cosine of two unit vectors, limited to [-1, 1] because of rounding; NaN stays NaN."""
    value = float(a @ b)
    return min(max(value, -1.0), 1.0) if np.isfinite(value) else value


def _size(image: Images) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
