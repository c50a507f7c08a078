"""Paired differences between two runs.

    d_i = ln E_i^candidate − ln E_i^baseline      per window group (one prompt, if prompts do not share windows)
    q_i = Q_i^candidate − Q_i^baseline            per prompt, better is positive

Both are means over the seeds and rounds of i. The change of a run is the unweighted mean over its cells.
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
    r"""Paired differences. Rows are prompts (or window groups of both runs), columns are cells.

    Attributes:
        cells: Cell ids.
        log_energy: (groups, cells) ln E differences.
        energy_j: (groups, cells) E differences in J/image, for net benefit.
        quality: (prompts, cells) differences, better is positive.
        total_energy_change: ΣE_candidate / ΣE_baseline − 1.
        identical_images: True if every image is the same, bit for bit; the quality difference is then exactly 0.
        provenance: Provenances of the joules of both runs.
        energy_units: Names of the rows of `log_energy`: a prompt id, or the ids of a window group joined by \x1f.
        quality_units: Names of the rows of `quality`: prompt ids.
        windows: Numbers of energy windows of baseline and candidate in these cells.
        counted: `windows`, or `rows` of an imported table.
        baseline_j: Mean J/image of the baseline over cells and groups.
        mean_j: Geometric means over the cells of the J/image of baseline and candidate, over the groups of
            `log_energy`. Their ratio is the change that is judged, but for the order of the means.
        exact_energy: True if the joules of both runs were counted: they repeat exactly, in every session.
        common_errors: (draws, cells) error of the quality differences that all prompts have in common, e.g. that of few
            observers; None without one.
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
    mean_j: tuple[float, float] = (math.nan, math.nan)
    exact_energy: bool = False
    common_errors: Array | None = None

    def common_variance(self, cell: int | None = None) -> float:
        """Variance of the error that all prompts have in common: of the mean over cells, or of one cell."""
        if self.common_errors is None:
            return 0.0
        return float((self.common_errors.mean(1) if cell is None else self.common_errors[:, cell]).var())

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
    """Pair two runs that passed `evidence.check`."""
    cells = sorted(set(baseline.trials["cell_id"].unique()) & set(candidate.trials["cell_id"].unique()))
    # the two runs may combine prompts into windows differently, so groups are formed from the windows of both
    units = window_units(baseline, candidate)
    before, after = (energy_by_unit(run, units).filter(pl.col("cell_id").is_in(cells)) for run in (baseline, candidate))
    # order is kept, because the last digit of a sum depends on it
    energy = before.join(after, on=["cell_id", "unit"], suffix="_candidate", maintain_order="left")
    energy = energy.with_columns(
        log=(pl.col("energy_candidate") / pl.col("energy")).log(),
        difference=pl.col("energy_candidate") - pl.col("energy"),
    )
    # weighted by the images of the baseline, so that both sides do the same work
    totals = [float((energy[name] * energy["images"]).to_numpy().sum()) for name in ("energy_candidate", "energy")]
    scores_of = (quality_by_prompt(run, metric) for run in (baseline, candidate))
    scores = next(scores_of).join(next(scores_of), on=["cell_id", "unit"], suffix="_candidate", maintain_order="left")
    sign = baseline.metrics[metric].sign
    scores = scores.with_columns(difference=sign * (pl.col("value_candidate") - pl.col("value")))
    same = _identical(baseline, candidate)
    quality, quality_units = _wide(scores, "difference", cells)
    log_energy, energy_units = _wide(energy, "log", cells)
    paired = energy.filter(pl.col("unit").is_in(energy_units))
    names = dict(units.group_by("unit").agg(pl.col("prompt_id").sort().str.join(_JOIN)).iter_rows())
    windows = [int(run.windows["cell_id"].is_in(cells).sum()) for run in (baseline, candidate)]
    return Pairs(
        cells=tuple(cells),
        log_energy=log_energy,
        energy_j=_wide(energy, "difference", cells)[0],
        quality=np.zeros_like(quality) if same else quality,
        total_energy_change=totals[0] / totals[1] - 1 if totals[1] else math.nan,  # without a pair
        identical_images=same,
        provenance=provenances(baseline, candidate),
        energy_units=tuple(names[unit] for unit in energy_units),
        quality_units=quality_units,
        windows=(windows[0], windows[1]),
        counted="rows" if baseline.is_imported or candidate.is_imported else "windows",
        baseline_j=float(energy["energy"].mean() or math.nan),  # type: ignore[arg-type]
        mean_j=(_geometric(paired, "energy", "images"), _geometric(paired, "energy_candidate", "images_candidate")),
        exact_energy=baseline.is_counted and candidate.is_counted,
        common_errors=None if same else _common_errors(baseline, candidate, metric, cells),
    )


def window_units(*runs: Run) -> pl.DataFrame:
    """Return the window groups of several runs: columns `prompt_id` and `unit`, the id of the group's first prompt.

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
    """Return J/image by cell and window group, mean over its images: columns `cell_id, unit, energy, images`.

    `units` is the result of `window_units`; by default that of this run.
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
    """Return the mean score over seeds by cell and prompt (`unit`): columns `cell_id, unit, value`."""
    return (
        run.scores.filter((pl.col("metric") == metric) & pl.col("value").is_finite())
        .group_by("cell_id", unit="prompt_id")
        .agg(pl.col("value").mean())
        .sort("cell_id", "unit")
    )


def _wide(frame: pl.DataFrame, value: str, cells: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Return values of shape (units, cells) for the units that every cell has, and the units."""
    wide = frame.pivot(on="cell_id", index="unit", values=value).drop_nulls().sort("unit")
    if not set(cells) <= set(wide.columns):
        return np.empty((0, len(cells))), ()
    return wide.select(cells).to_numpy().astype(np.float64), tuple(wide["unit"])


def _geometric(energy: pl.DataFrame, joules: str, images: str) -> float:
    """Return the geometric mean over cells of the J/image of each cell, NaN without a cell."""
    total = (pl.col(joules) * pl.col(images)).sum() / pl.col(images).sum()
    cells = energy.sort("cell_id", "unit").group_by("cell_id", maintain_order=True).agg(total.alias("mean"))
    logarithm = cells.select(pl.col("mean").log().mean()).item()  # None without a cell
    return math.nan if logarithm is None else math.exp(logarithm)


def _common_errors(baseline: Run, candidate: Run, metric: str, cells: list[str]) -> Array | None:
    """(draws, cells) difference of the common errors of both runs, which are of the same draws."""
    before, after = (run.common_errors.get(metric) for run in (baseline, candidate))
    if before is None or after is None:
        return None
    return np.stack([after[cell] - before[cell] for cell in cells], axis=1)


def _identical(baseline: Run, candidate: Run) -> bool:
    keys = ["cell_id", "prompt_id", "seed"]
    before, after = (run.images.select(*keys, "sha256") for run in (baseline, candidate))
    if before.is_empty() or len(before) != len(after) or before["sha256"].null_count():
        return False
    joined = before.join(after, on=keys, suffix="_candidate")
    return len(joined) == len(before) and bool((joined["sha256"] == joined["sha256_candidate"]).all())
