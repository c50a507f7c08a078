"""Scoring: stored images in, one score per image and metric out. Needs no meter and burns no generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from perjoule.errors import RunError
from perjoule.protocols import Images, ImageSet, QualityMetric
from perjoule.run_directory import Run
from perjoule.types import Prompt, Score, Suite


def score_images(run: Run, metrics: Sequence[QualityMetric], on_progress: Callable[[str, int], None]) -> list[Score]:
    """Score every image of the run under every metric.

    A metric that raises does not cost the others their scores: its images are unscored, with the reason.

    Args:
        run: The run.
        metrics: What to score with.
        on_progress: Called with a metric's name and the number of images just done.
    """
    images = image_set(run)
    scores: list[Score] = []
    for metric in metrics:
        name = metric.spec.name
        try:
            scores += metric.score(images, partial(on_progress, name))
        except (RuntimeError, ValueError, ArithmeticError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"[:300]
            scores += [Score(image_id=i, metric=name, value=None, reason_unscored=reason) for i in images.image_ids]
    return scores


def image_set(run: Run) -> ImageSet:
    """The images of a run with their prompts and references.

    The reference of an image is the longest run of the same family, prompt and seed: other models never serve, because
    a full-reference score across models says only that they are different models.
    """
    frame = run.images
    missing = [f for f in frame["file"] if not (run.path / f).is_file()]
    if missing:
        raise RunError(f"{run.path}: {len(missing)} images are gone, the first is {missing[0]}")
    by_id = {prompt.prompt_id: prompt for prompt in run.prompt_set}
    reference_of = references(frame, run.suite)
    files = dict(zip(frame["image_id"], frame["file"], strict=True))
    ids = frame["image_id"].to_list()
    reference_ids = [reference_of.get(i) for i in ids]

    def reference(index: int) -> Images:
        name = reference_ids[index]
        if name is None:
            raise LookupError(f"image {ids[index]} has no reference")
        return _load(run.path / files[name])

    return ImageSet(
        image_ids=ids,
        prompts=[by_id.get(p, Prompt(prompt_id=p, text="")) for p in frame["prompt_id"]],
        images=lambda index: _load(run.path / files[ids[index]]),
        reference_ids=reference_ids,
        references=reference,
        all_prompts=run.prompt_set,
    )


def references(images: pl.DataFrame, suite: Suite) -> dict[str, str]:
    """Image id -> id of its reference, for every image that has one."""
    families = {variant.name: variant.family or variant.name for variant in suite.variants}
    frame = images.with_columns(family=pl.col("variant").replace_strict(families, default=pl.col("variant")))
    # among equally long runs of one family the name decides, so that the choice does not hang on row order
    longest = (
        frame.sort("steps", "image_id", descending=[True, False])
        .group_by("family", "prompt_id", "seed", maintain_order=True)
        .agg(pl.col("image_id").first().alias("reference_id"))
    )
    joined = frame.join(longest, on=["family", "prompt_id", "seed"])
    return dict(zip(joined["image_id"], joined["reference_id"], strict=True))


def _load(file: Path) -> Images:
    from PIL import Image

    with Image.open(file) as picture:
        return np.array(picture.convert("RGB"))  # a copy: torch wants writable memory
