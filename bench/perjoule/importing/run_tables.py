"""Creates the tables, prompts and suite of an imported run from the arranged rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from perjoule.importing.arranging import ADAPTIVE, valid_name
from perjoule.importing.columns import QUALITY
from perjoule.runs.columns import IMAGE_COLUMNS, SCORE_COLUMNS, TRIAL_COLUMNS
from perjoule.runs.directory import WHOLE_CELL
from perjoule.suite.reading import IMPORTED
from perjoule.text import one_line
from perjoule.types import Metrics, PromptSource, Protocol, Suite, Variant
from perjoule.warnings import warning


def trial_table(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table of trials, one per row."""
    # a trial contains the joules and seconds of all its images, the table those of one
    count = pl.col("image_count")
    whole = {name: pl.col(name) * count for name in ("energy_j", "uncertainty_j", "duration_s")}
    unstated = warning("W280", "the table does not state how this energy was obtained")
    filled = frame.select(
        "trial_id", "cell_id", "variant", "role", "policy", "block", "boundary", "provenance", "nfe_per_image",
        "flops_per_image", "image_count", "device",
        **whole,
        prompts=pl.concat_list("prompt"),
        prompt_ids=pl.concat_list("prompt_id"),
        seeds=pl.concat_list("seed"),
        steps=pl.concat_list("steps"),
        iterations=pl.lit(1),
        method=pl.lit("imported"),
        warnings=pl.when(pl.col("provenance") == "not stated")
        .then(pl.lit([unstated], pl.List(pl.String)))
        .otherwise(pl.lit([], pl.List(pl.String))),
        image_sha256=pl.lit([], pl.List(pl.String)),
        phases_s=pl.lit("{}"),
    )  # fmt: skip
    return filled.select(
        (pl.col(name) if name in filled.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in TRIAL_COLUMNS.items()
    )


def image_table(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table of images, which have no files."""
    return frame.select(
        "image_id", "trial_id", "cell_id", "variant", "prompt_id", "seed", "steps",
        file=pl.lit(""),
        sha256=pl.lit(None, pl.String),
    ).cast(pl.Schema(IMAGE_COLUMNS))  # fmt: skip


def score_table(frame: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """Return the table of scores, one row per image and metric."""
    if not metrics:
        return pl.DataFrame(schema=SCORE_COLUMNS)
    value = pl.col("value")
    absent = value.is_null() | ~value.is_finite()
    return (
        frame.select("image_id", "cell_id", "prompt_id", "seed", *(pl.col(QUALITY + m).alias(m) for m in metrics))
        .unpivot(on=list(metrics), index=["image_id", "cell_id", "prompt_id", "seed"], variable_name="metric")
        .with_columns(reason_unscored=pl.when(absent).then(pl.lit("no number in the imported table")))
        .with_columns(value=pl.when(absent).then(None).otherwise(value))
        .select(list(SCORE_COLUMNS))
        .cast(pl.Schema(SCORE_COLUMNS))
    )


def prompt_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the prompts of the table; a text that it does not state is empty."""
    stated = ("prompt", "category", "challenge")
    prompts = (
        frame.filter(pl.col("prompt_id") != WHOLE_CELL)
        .group_by("prompt_id")
        .agg(pl.col(name).drop_nulls().first().fill_null("") for name in stated)
        .sort("prompt_id")
    )
    return prompts.rename({"prompt": "text"}).to_dicts()


def suite_of(table: Path, frame: pl.DataFrame, metrics: list[str]) -> Suite:
    """Return a suite that describes the arms of the table; it cannot be run."""
    arms = frame.group_by("variant", maintain_order=True).agg(
        pl.col("role", "policy", "family", "model", "batch_size").first(),
        pl.col("steps").drop_nulls().unique().sort(),
    )
    return Suite(
        name=valid_name(table.stem),
        title=f"Imported from {one_line(table.name)}",
        description="Measurements made elsewhere.",
        prompts=PromptSource(source=IMPORTED),
        metrics=Metrics(primary=metrics[0] if metrics else "", names=tuple(metrics)),
        protocol=Protocol(seeds=tuple(frame["seed"].drop_nulls().unique().sort())),
        variants=tuple(
            Variant(
                name=row["variant"], model=row["model"] or IMPORTED,
                steps=() if row["role"] in ADAPTIVE else tuple(row["steps"]), role=row["role"],
                policy=row["policy"] or "fixed", family=row["family"], batch_size=row["batch_size"],
            )
            for row in arms.iter_rows(named=True)
        ),
    )  # fmt: skip
