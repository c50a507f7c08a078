"""Two runs side by side: what changed, prompt by prompt.

    d_i = ln E_i^candidate − ln E_i^baseline      per window group (a prompt, where windows are not shared)
    q_i = Q_i^candidate − Q_i^baseline            per prompt, better is positive

Both are means over the seeds and rounds of i. A run's change is the mean over its cells, with equal weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from perjoule.gating.evidence import provenances
from perjoule.runs.directory import Run
from perjoule.statistics.resampling import Array
from perjoule.statistics.window_groups import linked

_JOIN = "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    r"""Differences. Rows are prompts (or window groups of both runs), columns are cells.

    Attributes:
        cells: Cell ids.
        log_energy: (groups, cells) ln E differences.
        energy_j: (groups, cells) E differences in J/image, for net benefit.
        quality: (prompts, cells) differences, better is positive.
        total_energy_change: ΣE_candidate / ΣE_baseline − 1: the bill.
        identical_images: True if every image is the same, bit for bit; the quality difference is then exactly 0.
        provenance: Of the joules of both runs.
        energy_units: What the rows of `log_energy` are: a prompt id, or the ids of a window group joined by \x1f.
        quality_units: What the rows of `quality` are: prompt ids.
        windows: How many energy windows the baseline and the candidate have in these cells.
        counted: `windows`, or `rows` where a table was imported.
        baseline_j: Mean J/image of the baseline over cells and groups.
    """

    cells: tuple[str, ...]
    log_energy: Array
    energy_j: Array
    quality: Array
    total_energy_change: float
    identical_images: bool
    provenance: tuple[str, ...]
    energy_units: tuple[str, ...] = ()
    quality_units: tuple[str, ...] = ()
    windows: tuple[int, int] = (0, 0)
    counted: str = "windows"
    baseline_j: float = math.nan

    @property
    def energy_prompts(self) -> set[str]:
        """The prompts behind `log_energy`."""
        return {prompt for unit in self.energy_units for prompt in unit.split(_JOIN)}

    def quality_by_group(self) -> Array:
        """(groups, cells) quality differences in the rows of `log_energy`: means over the prompts of each group."""
        if self.energy_units == self.quality_units:
            return self.quality
        place = {prompt: i for i, prompt in enumerate(self.quality_units)}
        rows = [[place[p] for p in unit.split(_JOIN) if p in place] for unit in self.energy_units]
        return np.array([self.quality[row].mean(0) for row in rows]).reshape(-1, len(self.cells))


def pair_runs(baseline: Run, candidate: Run, metric: str) -> Pairs:
    """Join two runs that were found comparable and complete."""
    cells = sorted(set(baseline.trials["cell_id"]) & set(candidate.trials["cell_id"]))
    # windows may be put together differently in the two runs: the groups are those of both together
    units = window_units(baseline, candidate)
    one, other = (energy_by_unit(run, units).filter(pl.col("cell_id").is_in(cells)) for run in (baseline, candidate))
    # in order, since the last digit of a sum depends on it
    energy = one.join(other, on=["cell_id", "unit"], suffix="_candidate", maintain_order="left")
    energy = energy.with_columns(
        log=(pl.col("energy_candidate") / pl.col("energy")).log(),
        difference=pl.col("energy_candidate") - pl.col("energy"),
    )
    # for the images of the baseline: the same work on both sides, groups of more prompts counting more
    totals = [float((energy[name] * energy["images"]).to_numpy().sum()) for name in ("energy_candidate", "energy")]
    both = (quality_by_prompt(run, metric) for run in (baseline, candidate))
    scores = next(both).join(next(both), on=["cell_id", "unit"], suffix="_candidate", maintain_order="left")
    sign = baseline.metrics[metric].sign
    scores = scores.with_columns(difference=sign * (pl.col("value_candidate") - pl.col("value")))
    same = _identical(baseline, candidate)
    quality, quality_units = _wide(scores, "difference", cells)
    log_energy, firsts = _wide(energy, "log", cells)
    names = dict(units.group_by("unit").agg(pl.col("prompt_id").sort().str.join(_JOIN)).iter_rows())
    windows = [int(run.windows["cell_id"].is_in(cells).sum()) for run in (baseline, candidate)]
    return Pairs(
        cells=tuple(cells),
        log_energy=log_energy,
        energy_j=_wide(energy, "difference", cells)[0],
        quality=np.zeros_like(quality) if same else quality,
        total_energy_change=totals[0] / totals[1] - 1,
        identical_images=same,
        provenance=provenances(baseline, candidate),
        energy_units=tuple(names[first] for first in firsts),
        quality_units=quality_units,
        windows=(windows[0], windows[1]),
        counted="rows" if baseline.is_imported or candidate.is_imported else "windows",
        baseline_j=float(energy["energy"].mean() or math.nan),  # type: ignore[arg-type]
    )


def window_units(*runs: Run) -> pl.DataFrame:
    """The window groups of some runs together: columns `prompt_id`, `unit`, the id of the first prompt of its group.

    See `perjoule.statistics.window_groups`: different groups share neither a window nor a prompt.
    """
    windows = pl.concat([run.windows.select("prompt_ids") for run in runs]).unique()
    places = (
        windows.select(prompt_id=pl.col("prompt_ids").explode()).drop_nulls().unique().sort("prompt_id")
        .with_row_index("place")
    )  # fmt: skip
    pairs = (
        windows.with_columns(first=pl.col("prompt_ids").list.first())
        .explode("prompt_ids")
        .join(places, left_on="prompt_ids", right_on="prompt_id")
        .join(places.rename({"place": "other"}), left_on="first", right_on="prompt_id")
    )
    groups = linked(len(places), *(pairs[name].to_numpy().astype(np.intp) for name in ("place", "other")))
    return places.select("prompt_id", unit=places["prompt_id"].gather(groups))


def energy_by_unit(run: Run, units: pl.DataFrame | None = None) -> pl.DataFrame:
    """J/image by cell and window group, mean over its images: columns `cell_id, unit, energy, images`.

    `units`: see `window_units`; the run's own by default.
    """
    images = run.windows.select(
        "cell_id",
        "prompt_ids",
        energy="energy_j_per_image",
    )
    units = window_units(run) if units is None else units
    return (
        images.explode("prompt_ids")
        .join(units, left_on="prompt_ids", right_on="prompt_id", maintain_order="left")
        .group_by("cell_id", "unit")
        .agg(pl.col("energy").mean(), images=pl.len())
        .sort("cell_id", "unit")
    )


def quality_by_prompt(run: Run, metric: str) -> pl.DataFrame:
    """Mean score by cell and prompt (`unit`), over seeds: columns `cell_id, unit, value`."""
    return (
        run.scores.filter((pl.col("metric") == metric) & pl.col("value").is_finite())
        .group_by("cell_id", unit="prompt_id")
        .agg(pl.col("value").mean())
        .sort("cell_id", "unit")
    )


def _wide(frame: pl.DataFrame, value: str, cells: list[str]) -> tuple[Array, tuple[str, ...]]:
    """(units, cells), units that every cell has, and what they are."""
    wide = frame.pivot(on="cell_id", index="unit", values=value).drop_nulls().sort("unit")
    if not set(cells) <= set(wide.columns):
        return np.empty((0, len(cells))), ()
    return wide.select(cells).to_numpy().astype(np.float64), tuple(wide["unit"])


def _identical(baseline: Run, candidate: Run) -> bool:
    keys = ["cell_id", "prompt_id", "seed"]
    one, other = (run.images.select(*keys, "sha256") for run in (baseline, candidate))
    if one.is_empty() or len(one) != len(other) or one["sha256"].null_count():
        return False
    both = one.join(other, on=keys, suffix="_candidate")
    return len(both) == len(one) and bool((both["sha256"] == both["sha256_candidate"]).all())
