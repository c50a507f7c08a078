"""Scoring loop of all metrics: processes images in batches, so that not all images are in memory."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from perjoule.protocols import ImageSet
from perjoule.types import Score

T = TypeVar("T")
Outcome = float | str
"""Result of a metric for one image: its value, or the reason why there is none."""

NO_REFERENCE = "no reference image: there is no longest run of the same family, prompt and seed"
_NO_MEMORY = "out of memory even for a single image"


def score_in_batches(
    images: ImageSet,
    metric: str,
    batch_size: int,
    judge: Callable[[range], Sequence[Outcome]],
    on_progress: Callable[[int], None],
) -> list[Score]:
    """Score the images batch by batch; batches that do not fit into memory are halved, with a warning.

    Args:
        images: Images to score.
        metric: Name for the scores.
        batch_size: Images per call of `judge`.
        judge: Indices of a batch -> one outcome per index; a value that is not finite becomes a reason.
        on_progress: Called with the number of images after each batch.

    Returns:
        One score per image, in order.
    """
    scores: list[Score] = []
    count = len(images.image_ids)
    while len(scores) < count:
        batch = range(len(scores), min(len(scores) + batch_size, count))
        outcomes = within_memory(partial(judge, batch))
        if outcomes is None and len(batch) > 1:
            batch_size = len(batch) // 2
            logging.getLogger(__name__).warning(
                "%s: out of memory with %d images at once: continuing with %d (option batch_size)",
                metric,
                len(batch),
                batch_size,
            )
            continue
        for index, outcome in zip(batch, outcomes or [_NO_MEMORY], strict=True):
            scores.append(_score(images.image_ids[index], metric, outcome))
        on_progress(len(batch))
    return scores


def within_memory(work: Callable[[], T]) -> T | None:
    """Return the result, or None if host or device ran out of memory; other errors are raised."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    # after the handler, because the traceback keeps the tensors of the failed attempt alive
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _score(image_id: str, metric: str, outcome: Outcome) -> Score:
    if isinstance(outcome, str):
        return Score(image_id=image_id, metric=metric, value=None, reason_unscored=outcome)
    if not math.isfinite(outcome):
        reason = f"the value of {metric} is {outcome}"
        return Score(image_id=image_id, metric=metric, value=None, reason_unscored=reason)
    return Score(image_id=image_id, metric=metric, value=float(outcome))
