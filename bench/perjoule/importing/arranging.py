"""Arranges the rows of a foreign table: variants, cells, trials and images."""

from __future__ import annotations

import hashlib

import polars as pl

from perjoule.errors import UsageError
from perjoule.importing.checking import ROW
from perjoule.importing.columns import QUALITY
from perjoule.importing.foreign_table import ForeignTable
from perjoule.runs.directory import WHOLE_CELL

ADAPTIVE = ("predicted", "control")
SHOWN = 5


def arranged_rows(frame: pl.DataFrame, foreign: ForeignTable, notes: list[str]) -> pl.DataFrame:
    """Return rows with the ids of their cell, trial and image; raises UsageError if two rows are the same image."""
    frame = _with_prompts(frame, foreign, notes)
    frame = _with_variants(frame, foreign, notes)
    for name in ("role", "family"):
        _require_one(frame, foreign, name)
    # an adaptive arm is one cell per policy, whatever its steps; a ladder has one cell per step count
    adaptive = pl.col("role").is_in(ADAPTIVE)
    several = pl.col("policy").n_unique().over("variant") > 1
    policies = {name: valid_name(name) for name in frame["policy"].drop_nulls().unique()}
    policy = pl.col("policy").replace(policies).fill_null("unstated")
    setting = pl.when(several).then(pl.format("{}@{}", "variant", policy)).otherwise(pl.col("variant"))
    rung = pl.format("{}-{}", "variant", pl.col("steps").cast(pl.String).str.zfill(3)).fill_null(pl.col("variant"))
    frame = frame.with_columns(cell_id=pl.when(adaptive).then(setting).otherwise(rung))
    _require_apart(frame, foreign)
    _require_once(frame, foreign)
    return _with_ids(frame)


def _with_prompts(frame: pl.DataFrame, foreign: ForeignTable, notes: list[str]) -> pl.DataFrame:
    """Add a prompt id to every row: from the table, from the prompt, or that of a whole cell."""
    if not foreign.has("prompt_id") or frame["prompt_id"].null_count() == len(frame):
        texts = frame["prompt"].drop_nulls().unique().to_list()
        if texts:
            # like the ids of prompt sets
            ids = {text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10] for text in texts}
            frame = frame.with_columns(prompt_id=pl.col("prompt").replace(ids))
            empty = frame.filter(pl.col("prompt_id").is_null())
            if len(empty):
                raise UsageError(f"{foreign.place(empty[ROW][0])}: prompt is empty, and there is no prompt_id")
            notes.append("prompt_id was computed from the text of the prompt")
        else:
            frame = frame.with_columns(prompt_id=pl.lit(WHOLE_CELL))
            notes.append("the table has no prompts: each row is treated as a whole cell, which has no interval")
    texts_of = frame.group_by("prompt_id").agg(pl.col("prompt").drop_nulls().unique().sort(), pl.col(ROW).min())
    for row in texts_of.filter(pl.col("prompt").list.len() > 1).sort(ROW).iter_rows(named=True):
        first, second = (repr(text[:40]) for text in row["prompt"][:2])
        raise UsageError(
            f"{foreign.place(row[ROW])}: prompt_id = {row['prompt_id']!r} has several prompts ({first}, {second}): use "
            "one id per prompt"
        )
    return frame


def _with_variants(frame: pl.DataFrame, foreign: ForeignTable, notes: list[str]) -> pl.DataFrame:
    """Split variants by columns that must not be averaged over, and give them names that suites accept.

    The joules of two devices, batch sizes, models or fixed policies under one variant become two variants, which form
    one family unless their models differ.
    """
    parts = ("model", "device", "batch_size", "policy")
    frame = frame.with_columns(original=pl.col("variant"))
    for column in parts:
        value = pl.col(column).cast(pl.String)
        # the policies of an adaptive variant are its cells
        splits = (value.n_unique().over("original") > 1) & ~(
            pl.col("role").is_in(ADAPTIVE) if column == "policy" else pl.lit(False)
        )
        split = frame.filter(splits)
        for variant, values in split.group_by("original", maintain_order=True).agg(value.unique().sort()).iter_rows():
            listed = ", ".join("not stated" if text is None else text for text in values)
            notes.append(
                f"variant {variant!r} has several values of {column} ({listed}): each became a separate variant"
            )
        prefix = "b" if column == "batch_size" else ""
        label = pl.format("{}_{}", "variant", pl.lit(prefix) + value.fill_null("unstated"))
        family = pl.col("family") if column == "model" else pl.col("family").fill_null(pl.col("original"))
        frame = frame.with_columns(
            variant=pl.when(splits).then(label).otherwise(pl.col("variant")),
            family=pl.when(splits).then(family).otherwise(pl.col("family")),
        )
    names: dict[str, str] = {}
    for variant in frame["variant"].unique().sort():
        plain = valid_name(variant)
        if plain in names.values():  # two names that differ only in characters that names cannot contain
            digest = hashlib.sha256(variant.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            plain = f"{plain[:55]}-{digest}"
        names[variant] = plain
    changed = [f"{variant!r} as {plain}" for variant, plain in names.items() if variant != plain]
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        notes.append(f"variants were renamed to names that suites accept: {', '.join(changed[:SHOWN])}{more}")
    return frame.with_columns(pl.col("variant").replace_strict(names), pl.col("family").fill_null(""))


def _require_one(frame: pl.DataFrame, foreign: ForeignTable, name: str) -> None:
    """Raise UsageError if a variant has several values of a property that must be unique in an arm."""
    several = frame.group_by("variant").agg(pl.col(name).unique().sort(), pl.col(ROW).min())
    for row in several.filter(pl.col(name).list.len() > 1).sort(ROW).iter_rows(named=True):
        values = ", ".join(value or "not stated" for value in row[name])
        raise UsageError(
            f"{foreign.path}: variant {row['variant']!r} has several values of {name} ({values}): make each a separate "
            "variant"
        )


def _require_apart(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    """Raise UsageError if two cells have the same id, e.g. variant a at 8 steps and variant a-008."""
    for name, plural in (("variant", "variants"), ("policy", "policies")):
        kinds = frame.group_by("cell_id").agg(pl.col(name).unique().sort(), pl.col(ROW).min())
        for row in kinds.filter(pl.col(name).list.len() > 1).sort(ROW).iter_rows(named=True):
            listed = " and ".join("not stated" if value is None else repr(value) for value in row[name])
            raise UsageError(
                f"{foreign.path}: {plural} {listed} would share the cell {row['cell_id']}: rename one of them"
            )


def _require_once(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    """Raise UsageError if an image appears twice, or a whole cell together with other rows of it."""
    whole = frame.filter(
        (pl.col("prompt_id") == WHOLE_CELL).any().over("cell_id") & (pl.len().over("cell_id", "block") > 1)
    )
    if len(whole):
        rows = whole.filter(pl.col("cell_id") == whole["cell_id"][0])
        raise UsageError(
            f"{foreign.place(rows[ROW][1])}: {len(rows)} rows belong to cell {rows['cell_id'][0]}, but their prompts "
            "are unknown: add a column prompt_id, or give one row per cell"
        )
    keys = ["cell_id", "prompt_id", "seed", "block"]
    duplicates = frame.filter(frame.select(keys).is_duplicated())
    if len(duplicates):
        first = duplicates.row(0, named=True)
        same = duplicates.filter(pl.all_horizontal(pl.col(key).eq_missing(pl.lit(first[key])) for key in keys))
        image = {
            key: first[key]
            for key in ("variant", "prompt_id", "seed", "steps", "policy", "block")
            if first[key] is not None
        }
        raise UsageError(
            f"{foreign.place(same[ROW][1])}: the image {image} appears {len(same)} times: give one row per image; "
            "number repeated measurements in a column block"
        )


def _with_ids(frame: pl.DataFrame) -> pl.DataFrame:
    """Add trial and image ids. A repeat is a separate trial, but a separate image only if its scores differ."""
    qualities = [name for name in frame.columns if name.startswith(QUALITY)]
    image = ["cell_id", "prompt_id", "seed"]
    block = pl.col("block").fill_null(0)
    frame = frame.with_columns(block=block, image_count=pl.col("n").fill_null(1)).sort("block", ROW)
    repeat = pl.col(ROW) != pl.col(ROW).first().over(image)
    same = pl.all_horizontal(
        pl.lit(True), *(pl.col(q).is_null() | pl.col(q).eq_missing(pl.col(q).first().over(image)) for q in qualities)
    )
    stem = pl.format("{}.{}", "cell_id", "prompt_id") + pl.format(".s{}", "seed").fill_null("")
    suffix = pl.when(repeat).then(pl.format(".b{}", "block")).otherwise(pl.lit(""))
    frame = frame.with_columns(
        is_scored=~(repeat & same), image_id=stem + suffix, trial_id=pl.format("b{}.", "block") + stem
    ).sort(ROW)
    # ids of texts with dots may collide; the row number then distinguishes them
    row = pl.format(".r{}", pl.col(ROW) + 1)
    return frame.with_columns(
        pl.when(pl.col(name).is_duplicated()).then(pl.col(name) + row).otherwise(pl.col(name)).alias(name)
        for name in ("image_id", "trial_id")
    )


def valid_name(text: str) -> str:
    """Return a name that suites accept, e.g. `SD_1.5` for `SD 1.5`."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)[:64]
    return name if name[:1].isalnum() else f"x{name}"[:64]
