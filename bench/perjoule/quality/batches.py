"""The loop all metrics share: a batch of images in, one score per image out, never all images in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from perjoule.protocols import ImageSet
from perjoule.types import Score

Outcome = float | str
"""What a metric says of one image: its value, or the reason why there is none."""

NO_REFERENCE = "no reference image: there is no longest run of the same family, prompt and seed"


def score_in_batches(
    images: ImageSet,
    metric: str,
    batch_size: int,
    judge: Callable[[range], Sequence[Outcome]],
    on_progress: Callable[[int], None],
) -> list[Score]:
    """Judge the images batch by batch.

    Args:
        images: What to score.
        metric: Name for the scores.
        batch_size: Images per call of `judge`.
        judge: Indices of a batch -> one outcome per index; a value that is not finite becomes a reason.
        on_progress: Gets the number of images of each batch when it is done.

    Returns:
        One score per image, in order.
    """
    scores: list[Score] = []
    count = len(images.image_ids)
    for start in range(0, count, batch_size):
        batch = range(start, min(start + batch_size, count))
        for index, outcome in zip(batch, judge(batch), strict=True):
            scores.append(_score(images.image_ids[index], metric, outcome))
        on_progress(len(batch))
    return scores


def _score(image_id: str, metric: str, outcome: Outcome) -> Score:
    if isinstance(outcome, str):
        return Score(image_id=image_id, metric=metric, value=None, reason_unscored=outcome)
    if not math.isfinite(outcome):
        reason = f"{metric} came out as {outcome}"
        return Score(image_id=image_id, metric=metric, value=None, reason_unscored=reason)
    return Score(image_id=image_id, metric=metric, value=float(outcome))
