"""A run as arrays: joules per image and quality by prompt, seed and cell.

    trials (windows of several images)  ──►  energy_j (prompts, seeds, cells)  J/image of the window the image was in
    scores (image × metric)             ──►  quality  (prompts, seeds, cells)  one array per metric

A seed has no meaning of its own, so seeds are counted within their prompt. Windows of later blocks repeat the images of
the first; an image's joules are the mean over its windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.errors import RunError
from perjoule.run_directory import WHOLE_CELL, Run
from perjoule.statistics.devices import require_one_device
from perjoule.statistics.resampling import RESAMPLES, SEED, Array, Means, resample_means

# the method of a number that has no interval because a table states it once for all prompts
CELL_VALUE = "W281: the imported table gives one value for the whole cell; no interval"
ENERGY = ""  # the key of the energies among the cell values, which no metric has


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The numbers of a run.

    Attributes:
        cells: Cell ids, in the order of the suite.
        prompts: Prompt ids along the first axis.
        energy_j: (prompts, seeds, cells) J/image; NaN where there is no reading.
        quality: Metric -> (prompts, seeds, cells), as scored; NaN where there is no score.
        prompts_per_window: (cells,) how many prompts share a window; 1 where every prompt has windows of its own.
        cell_values: Metric -> (cells,) True where the table of an imported run gives one quality for the whole cell;
            `ENERGY` says the same of its energy.
    """

    cells: tuple[str, ...]
    prompts: tuple[str, ...]
    energy_j: Array
    quality: dict[str, Array]
    prompts_per_window: Array
    cell_values: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def is_cell_value(self, metric: str) -> NDArray[np.bool_]:
        """(cells,) True where the quality (or the energy) is one number for the whole cell, of unknown scatter."""
        return self.cell_values.get(metric, np.zeros(len(self.cells), bool))

    @property
    def energy_is_shared(self) -> NDArray[np.bool_]:
        """(cells,) True where all prompts of a cell share one energy, so that there is nothing to draw from."""
        return np.asarray(prompts_known(self.energy_j) <= self.prompts_per_window)

    def resampled(self, resamples: int = RESAMPLES, seed: int = SEED, beside: Sequence[Array] = ()) -> Means:
        """One draw for all: columns are the cells' energies, then the cells' qualities, metric after metric.

        `beside`: more arrays of prompts × seeds × columns to put behind them, on the same draws.
        """
        arrays = [self.spread_energy(), *self.quality.values(), *beside]
        return resample_means(np.concatenate(arrays, axis=2), resamples=resamples, seed=seed)

    def spread_energy(self) -> Array:
        """`energy_j` with its scatter restored.

        Images of one window carry the window's mean, so that drawing prompts would take their joules for independent.
        Widening the deviations by √(prompts per window) gives the mean the variance that drawing windows would.
        """
        if (self.prompts_per_window <= 1).all():
            return self.energy_j
        known = np.isfinite(self.energy_j)
        count = np.maximum(known.sum((0, 1)), 1)
        mean = np.where(known, self.energy_j, 0.0).sum((0, 1)) / count
        return np.asarray(mean + np.sqrt(self.prompts_per_window) * (self.energy_j - mean))


def cell_order(run: Run) -> list[str]:
    """The cells that have trials: those of the suite in its order, then any others by name."""
    from perjoule.suite import cells_of

    seen = set(run.trials["cell_id"].unique())
    planned = [cell.cell_id for cell in cells_of(run.suite) if cell.cell_id in seen]
    return planned + sorted(seen - set(planned))


def read_grid(run: Run, metrics: Sequence[str]) -> Grid:
    """The arrays of a run.

    Raises:
        RunError: If a joule is not positive (names the trial), or the windows of a cell belong to different devices.
    """
    require_one_device(run)
    trials = run.trials.filter(pl.col("failure").is_null())
    _require_positive(run, trials)
    windows = (
        trials.select(
            "cell_id",
            "prompt_ids",
            "seeds",
            value=pl.col("energy_j") / (pl.col("image_count") * pl.col("iterations")),
        )
        .explode("prompt_ids", "seeds")
        .rename({"prompt_ids": "prompt_id", "seeds": "seed"})
    )
    scored = run.scores.select("cell_id", "prompt_id", "seed", "metric", "value")
    keys = ("prompt_id", "seed")
    units = (
        pl.concat([windows.select(keys), scored.select(keys)])
        .unique()
        .drop_nulls("prompt_id")
        .sort(keys)
        .with_columns(
            place=pl.int_range(pl.len()).over("prompt_id"), row=pl.col("prompt_id").rank("dense").cast(pl.Int64) - 1
        )
    )
    prompts = units["prompt_id"].unique(maintain_order=True).to_list()
    cells = cell_order(run)
    shape = (len(prompts), int(units["place"].max() or 0) + 1 if len(units) else 0, len(cells))  # type: ignore[arg-type]
    columns = pl.DataFrame(
        {"cell_id": cells, "column": range(len(cells))}, schema={"cell_id": pl.String, "column": int}
    )

    def array(frame: pl.DataFrame) -> Array:
        placed = (
            frame.filter(pl.col("value").is_not_null() & pl.col("value").is_finite())
            # in order, since the last digit of a mean depends on it
            .join(columns, on="cell_id", maintain_order="left")
            .join(units, on=keys, nulls_equal=True, maintain_order="left")
            .group_by("row", "place", "column")
            .agg(pl.col("value").mean())
        )
        found = np.full(shape, np.nan)
        found[tuple(placed[name].to_numpy() for name in ("row", "place", "column"))] = placed["value"].to_numpy()
        return found

    shared = (
        trials.group_by("cell_id")
        .agg(pl.col("prompt_ids").list.n_unique().mean())
        .join(columns, on="cell_id", how="right", maintain_order="right")
    )
    grid = Grid(
        cells=tuple(cells),
        prompts=tuple(prompts),
        energy_j=array(windows),
        quality={name: array(scored.filter(pl.col("metric") == name)) for name in metrics},
        prompts_per_window=shared["prompt_ids"].fill_null(1.0).to_numpy().astype(np.float64),
    )
    return _with_cell_values(run, grid) if run.is_imported else grid


def _with_cell_values(run: Run, grid: Grid) -> Grid:
    """`grid` with what a table states once for a cell, whether in one row or repeated in the rows of all prompts.

    A quality at a bound of its metric may well be the same for all prompts, so it is not taken for a cell value. One
    energy for all prompts is treated as that of one window that they share.
    """
    rows = _whole_cells(run)
    whole = np.array([cell in rows for cell in grid.cells], bool)
    cell_values = {}
    for name, values in grid.quality.items():
        constant, value = _constant(values)
        at_bound = np.isin(value, [bound for bound in run.metrics[name].bounds if bound is not None])
        cell_values[name] = whole | (constant & ~at_bound)
    shared = _constant(grid.energy_j)[0] | (whole & (prompts_known(grid.energy_j) > 0))
    cell_values[ENERGY] = shared
    windows = np.where(shared, np.maximum(prompts_known(grid.energy_j), 1), grid.prompts_per_window)
    return replace(grid, cell_values=cell_values, prompts_per_window=windows.astype(np.float64))


def _whole_cells(run: Run) -> set[str]:
    """The cells that a table gives in one row, without prompts."""
    return set(run.trials.filter(pl.col("prompt_ids").list.contains(WHOLE_CELL))["cell_id"])


def _constant(values: Array) -> tuple[NDArray[np.bool_], Array]:
    """(prompts, seeds, cells) -> (cells,) True where two prompts or more have the same number, and that number."""
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min((0, 1), initial=np.inf)
    high = np.where(known, values, -np.inf).max((0, 1), initial=-np.inf)
    return np.asarray((low == high) & (prompts_known(values) > 1)), low


def prompts_known(values: Array) -> NDArray[np.intp]:
    """(prompts, seeds, cells) -> (cells,) how many prompts have a number."""
    return np.asarray(np.isfinite(values).any(1).sum(0), np.intp)


def _require_positive(run: Run, trials: pl.DataFrame) -> None:
    bad = trials.filter(pl.col("energy_j") <= 0)
    if len(bad):
        row = bad.row(0, named=True)
        raise RunError(
            f"{run.path}: trial {row['trial_id']}: energy_j = {row['energy_j']}: joules are positive; an energy that "
            "is not known is null"
        )
