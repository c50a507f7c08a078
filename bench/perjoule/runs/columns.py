"""The columns of the tables in a run directory (schema version 1), with their polars types."""

from __future__ import annotations

from typing import Any, TypeVar

import polars as pl

SCHEMA = 1
Count = TypeVar("Count", int, pl.Expr)

TRIAL_COLUMNS: dict[str, Any] = {
    "trial_id": pl.String,
    "cell_id": pl.String,
    "variant": pl.String,
    "role": pl.String,
    "policy": pl.String,
    "block": pl.Int64,
    "prompts": pl.List(pl.String),
    "prompt_ids": pl.List(pl.String),
    "seeds": pl.List(pl.UInt64),
    "steps": pl.List(pl.Int64),
    "nfe_per_image": pl.Float64,
    # of the counted work of networks, see perjoule.work.counter
    "flops_per_image": pl.Float64,
    "image_count": pl.Int64,
    # images per pipeline call at most
    "batch_size": pl.Int64,
    "iterations": pl.Int64,
    "energy_j": pl.Float64,
    "uncertainty_j": pl.Float64,
    "net_energy_j": pl.Float64,
    "partial_energy_j": pl.Float64,
    "idle_power_w": pl.Float64,
    "duration_s": pl.Float64,
    "peak_memory_bytes": pl.Int64,
    "utilisation": pl.Float64,
    "boundary": pl.String,
    "provenance": pl.String,
    "method": pl.String,
    # the measured device, see MeteredDevice, and the load of the machine, see MachineLoad
    "device": pl.String,
    "device_digest": pl.String,
    "power_limit_w": pl.Float64,
    "load_before": pl.Float64,
    "load_after": pl.Float64,
    "cores": pl.Int64,
    "others_cores": pl.Float64,
    "steal_share": pl.Float64,
    "cpu_mhz_before": pl.Float64,
    "cpu_mhz_after": pl.Float64,
    "warnings": pl.List(pl.String),
    "failure": pl.String,
    "image_sha256": pl.List(pl.String),
    "phases_s": pl.String,
}
IMAGE_COLUMNS: dict[str, Any] = {
    "image_id": pl.String,
    "trial_id": pl.String,
    "cell_id": pl.String,
    "variant": pl.String,
    "prompt_id": pl.String,
    "seed": pl.UInt64,
    "steps": pl.Int64,
    "file": pl.String,
    "sha256": pl.String,
}
# condition for a finished trial
FINISHED = pl.col("failure").is_null()


def images_drawn(image_count: Count, iterations: Count) -> Count:
    """Return the number of images that a window drew, by which its joules and seconds are divided."""
    return image_count * iterations


DRAWN = images_drawn(pl.col("image_count"), pl.col("iterations"))
SCORE_COLUMNS: dict[str, Any] = {
    "image_id": pl.String,
    "cell_id": pl.String,
    "prompt_id": pl.String,
    "seed": pl.UInt64,
    "metric": pl.String,
    "value": pl.Float64,
    "reason_unscored": pl.String,
}
# columns of trials and scores that operating points do not need
NOT_OF_POINTS = {
    *("block", "prompts", "batch_size", "net_energy_j", "partial_energy_j", "idle_power_w", "peak_memory_bytes"),
    *("utilisation", "device_digest", "load_before", "load_after", "cores", "others_cores", "steal_share"),
    *("cpu_mhz_before", "cpu_mhz_after", "image_sha256", "image_id", "reason_unscored"),
}
POWER_COLUMNS: dict[str, Any] = {
    "trial_id": pl.String,
    "t_s": pl.Float64,
    "power_w": pl.Float64,
    "source": pl.String,
    # so that a replay of the trace keeps its provenance
    "boundary": pl.String,
    "provenance": pl.String,
}
POINT_COLUMNS: dict[str, Any] = {
    "cell_id": pl.String,
    "variant": pl.String,
    "role": pl.String,
    "policy": pl.String,
    "family": pl.String,
    "steps_mean": pl.Float64,
    "nfe_mean": pl.Float64,
    "flops_per_image": pl.Float64,
    "energy_j_per_image": pl.Float64,
    "energy_low": pl.Float64,
    "energy_high": pl.Float64,
    "energy_bound_j_per_image": pl.Float64,
    "energy_n": pl.Int64,
    "energy_method": pl.String,
    "metric": pl.String,
    "direction": pl.String,
    "track": pl.String,
    "quality": pl.Float64,
    "quality_low": pl.Float64,
    "quality_high": pl.Float64,
    "quality_n": pl.Int64,
    "quality_method": pl.String,
    "unscored_count": pl.Int64,
    "duration_s_per_image": pl.Float64,
    "n_prompts": pl.Int64,
    "n_seeds": pl.Int64,
    "provenance": pl.String,
    "boundary": pl.String,
    "on_frontier": pl.Boolean,
    "p_on_frontier": pl.Float64,
    # why a race stopped measuring the cell; null if it did not
    "dropped": pl.String,
}
