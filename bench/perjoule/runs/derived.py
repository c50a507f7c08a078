"""Tables derived from the journals of a run: `images.parquet` and `power.parquet`."""

from __future__ import annotations

import polars as pl

from perjoule.files import read_json_lines, write_parquet
from perjoule.opening import is_flat
from perjoule.runs.columns import FINISHED, IMAGE_COLUMNS, POWER_COLUMNS
from perjoule.runs.directory import Run, load_run, located
from perjoule.suite.schedule import image_id


def derive_tables(run: Run) -> None:
    """Write the tables of images and power samples. Raises RunError if a journal is damaged."""
    with located(run.path / "trials.jsonl"):
        images = images_of(run.trials)
    write_parquet(images, run.path / "images.parquet")
    columns = {name: POWER_COLUMNS[name] for name in ("trial_id", "t_s", "power_w", "source")}
    with located(file := run.path / "traces.jsonl"):
        recorded = read_json_lines(file)
        if not all(is_flat(trace[name]) for trace in recorded for name in ("t_s", "power_w")):
            raise ValueError("t_s or power_w contains a list or an object where a number must be")
        samples = [
            {"trial_id": trace["trial_id"], "t_s": t, "power_w": w, "source": trace["source"]}
            for trace in recorded
            for t, w in zip(trace["t_s"], trace["power_w"], strict=True)
        ]
        traces = pl.DataFrame(samples, schema=columns)
    # without traces of a trial that a crash has cut off
    kinds = run.trials.select("trial_id", "boundary", "provenance")
    power = traces.join(kinds, on="trial_id", how="inner", maintain_order="left")
    write_parquet(power, run.path / "power.parquet")


def with_tables(run: Run) -> Run:
    """Return the run with the tables of all its trials, which a run that was killed lacks."""
    if run.is_imported or not (run.path / "trials.jsonl").exists():
        return run
    drawn = run.trials.filter((pl.col("block") == 0) & FINISHED)["trial_id"].to_list()
    if set(drawn) == set(run.images["trial_id"]):
        return run
    derive_tables(run)
    return load_run(run.path)


def images_of(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the images of the trials, one row each, without later blocks, which repeat those of block 0.

    Raises:
        ValueError: If the numbers of step counts, digests and images of a trial differ (names the trial).
    """
    finished = trials.filter((pl.col("block") == 0) & FINISHED)
    for name in ("steps", "image_sha256"):
        mismatched = finished.filter(pl.col(name).list.len().ne_missing(pl.col("prompt_ids").list.len()))
        if len(mismatched):
            raise ValueError(
                f"trial {mismatched['trial_id'][0]}: its {name} and prompt_ids differ in number: restore its row"
            )
    lists = {"prompt_ids": "prompt_id", "seeds": "seed", "image_sha256": "sha256"}
    images = finished.select("trial_id", "cell_id", "variant", "steps", *lists).rename(lists)
    images = images.explode("prompt_id", "seed", "steps", "sha256").drop_nulls("prompt_id")
    images = images.with_columns(image_id=pl.format(image_id("{}", "{}", "{}"), "cell_id", "prompt_id", "seed"))
    images = images.with_columns(file=pl.format("images/{}.png", "image_id"))
    return images.select(pl.col(name).cast(kind) for name, kind in IMAGE_COLUMNS.items()).sort("image_id")
