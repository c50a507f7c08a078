"""The reference of an image: the longest run of the same family, prompt and seed."""

from __future__ import annotations

import polars as pl

from perjoule.suite.smaller import planned_name
from perjoule.types import Suite


def references(images: pl.DataFrame, suite: Suite) -> dict[str, str]:
    """Return the id of the reference by image id, for every image that has one."""
    families = {variant.name: variant.family_name for variant in suite.variants}
    families = {name: families.get(planned_name(name), name) for name in images["variant"].unique()}
    frame = images.with_columns(family=pl.col("variant").replace_strict(families, return_dtype=pl.String))
    # equally long runs of one family are sorted by name, so that the choice does not depend on row order
    longest = (
        frame.sort("steps", "image_id", descending=[True, False])
        .group_by("family", "prompt_id", "seed", maintain_order=True)
        .agg(pl.col("image_id").first().alias("reference_id"))
    )
    joined = frame.join(longest, on=["family", "prompt_id", "seed"])
    return dict(zip(joined["image_id"], joined["reference_id"], strict=True))
