"""A run as arrays: joules per image and quality by prompt, seed and cell.

    trials (windows of several images)  ──►  energy_j (prompts, seeds, cells)  J/image of the window the image was in
                                        ──►  groups   (prompts, cells)         which prompts share windows
    scores (image × metric)             ──►  quality  (prompts, seeds, cells)  one array per metric

A seed has no meaning of its own, so seeds are counted within their prompt. Windows of later blocks repeat the images of
the first; an image's joules are the mean over its windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.errors import RunError
from perjoule.runs.directory import WHOLE_CELL, Run
from perjoule.statistics.devices import require_one_device
from perjoule.statistics.resampling import (
    RESAMPLES,
    SEED,
    STUDENT_BELOW,
    Array,
    Means,
    resample_means,
    resample_windows,
)
from perjoule.statistics.window_groups import Groups, among, common_groups, group_counts, linked
from perjoule.warnings import warning

# the method of a number that has no interval because a table states it once for all prompts
CELL_VALUE = warning("W281", "the imported table gives one value for the whole cell; no interval")
ENERGY = ""  # the key of the energies among the cell values, which no metric has


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The numbers of a run.

    Attributes:
        cells: Cell ids, in the order of the suite.
        prompts: Prompt ids along the first axis.
        energy_j: (prompts, seeds, cells) J/image; NaN where there is no reading.
        quality: Metric -> (prompts, seeds, cells), as scored; NaN where there is no score.
        groups: (prompts, cells) window group of each prompt, see `perjoule.statistics.window_groups`.
        cell_values: Metric -> (cells,) True where the table of an imported run gives one quality for the whole cell;
            `ENERGY` says the same of its energy.
        common_errors: Metric -> (draws, cells) error of its mean that all prompts have in common, which resampling
            prompts does not show; metrics without one are absent.
    """

    cells: tuple[str, ...]
    prompts: tuple[str, ...]
    energy_j: Array
    quality: dict[str, Array]
    groups: Groups
    cell_values: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    common_errors: Mapping[str, Array] = field(default_factory=dict)

    def is_cell_value(self, metric: str) -> NDArray[np.bool_]:
        """(cells,) True where the quality (or the energy) is one number for the whole cell, of unknown scatter."""
        return self.cell_values.get(metric, np.zeros(len(self.cells), bool))

    def of_prompts(self, places: NDArray[np.intp]) -> Grid:
        """Return the same of some of the prompts, given by their places."""
        return replace(
            self,
            prompts=tuple(self.prompts[place] for place in places),
            energy_j=self.energy_j[places],
            quality={name: values[places] for name, values in self.quality.items()},
            groups=among(self.groups, places),
        )

    def of_cells(self, columns: Sequence[int]) -> Grid:
        """Return the same of some of the cells, given by their columns."""
        chosen = list(columns)
        return replace(
            self,
            cells=tuple(self.cells[column] for column in chosen),
            energy_j=self.energy_j[..., chosen],
            quality={name: values[..., chosen] for name, values in self.quality.items()},
            groups=self.groups[:, chosen],
            cell_values={name: values[chosen] for name, values in self.cell_values.items()},
            common_errors={name: errors[:, chosen] for name, errors in self.common_errors.items()},
        )

    def drawn(self, resamples: int = RESAMPLES, seed: int = SEED, tails: Array | None = None) -> Draws:
        """Draw once for all statistics of the run.

        Args:
            resamples: Rows.
            seed: Seed of the draws.
            tails: What `perjoule.statistics.tails.at_or_below` gives for a metric, to be drawn with the prompts.
        """
        count = len(self.cells)
        arrays = [self.energy_j, *self.quality.values()]
        further = [] if tails is None else [tails]
        if self.images_apart and len(self.prompts) >= STUDENT_BELOW:
            # every window holds one prompt: one draw serves both
            values = np.concatenate([*arrays, *further], axis=2)
            both = resample_windows(values, range(count), self.groups, resamples=resamples, seed=seed)
            return self._named(both.of(slice(count * len(arrays))), both.of(slice(count, None)))
        joint = resample_windows(
            np.concatenate(arrays, axis=2), range(count), self.groups, resamples=resamples, seed=seed
        )
        alone = [*self.quality.values(), *further] or [np.empty((*self.energy_j.shape[:2], 0))]
        return self._named(joint, resample_means(np.concatenate(alone, axis=2), resamples=resamples, seed=seed))

    def _named(self, joint: Means, by_prompt: Means) -> Draws:
        inner = len(self.cells) * len(self.quality)
        return Draws(
            cells=len(self.cells),
            metrics=tuple(self.quality),
            joint=self._with_common_errors(joint, len(self.cells)),
            by_prompt=self._with_common_errors(by_prompt.of(slice(inner)), 0),
            tails=by_prompt.of(slice(inner, None)),
        )

    def _with_common_errors(self, means: Means, first: int) -> Means:
        """Add the common errors of metrics, whose columns begin at `first`, to the draws."""
        for number, metric in enumerate(self.quality):
            if (errors := self.common_errors.get(metric)) is not None:
                start = first + number * len(self.cells)
                means = means.plus(errors, slice(start, start + len(self.cells)))
        return means

    @property
    def images_apart(self) -> bool:
        """True if every window has images of one prompt only."""
        return bool((self.groups == np.arange(len(self.prompts))[:, None]).all())

    @property
    def energy_known(self) -> NDArray[np.bool_]:
        """(prompts, cells) where a prompt has joules."""
        return np.asarray(np.isfinite(self.energy_j).any(1))

    def group_counts(self) -> NDArray[np.intp]:
        """(cells,) how many window groups each cell has: what its energy rests on."""
        return group_counts(self.groups, self.energy_known)

    def common_groups(self, columns: Sequence[int] | slice = slice(None)) -> NDArray[np.intp]:
        """(prompts,) the window groups that some cells have in common, all by default."""
        return common_groups(self.groups[:, columns], self.energy_known[:, columns])[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """The draws of a run. Columns of `energy`, `quality` and `quality_alone` are the cells.

    Attributes:
        cells: How many cells there are.
        metrics: The metrics, in the order of their columns.
        joint: Energies of the cells, then qualities metric after metric, drawn by window groups: for every statistic
            that contains energy.
        by_prompt: The qualities metric after metric, drawn by prompts: for statistics of quality alone.
        tails: The shares of the worst images, drawn by prompts; no columns if none were asked for.
    """

    cells: int
    metrics: tuple[str, ...]
    joint: Means
    by_prompt: Means
    tails: Means

    @property
    def energy(self) -> Means:
        """J/image, drawn by window groups."""
        return self.joint.of(slice(self.cells))

    def quality(self, metric: str) -> Means:
        """Quality, on the draws of `energy`."""
        return self.joint.of(self._columns(metric, self.cells))

    def quality_alone(self, metric: str) -> Means:
        """Quality, drawn by prompts."""
        return self.by_prompt.of(self._columns(metric))

    def paired(self, metric: str, *arms: Sequence[int]) -> Means:
        """The energies of the cells of an arm, then their qualities, arm after arm, on the draws of `energy`."""
        first = self._columns(metric, self.cells).start
        return self.joint.of([c for arm in arms for start in (0, first) for c in (start + cell for cell in arm)])

    def _columns(self, metric: str, start: int = 0) -> slice:
        start += self.metrics.index(metric) * self.cells
        return slice(start, start + self.cells)


def cell_order(run: Run) -> list[str]:
    """The cells that have trials: those of the suite in its order, then any others by name."""
    from perjoule.suite.reading import cells_of

    seen = set(run.trials["cell_id"].unique())
    planned = [cell.cell_id for cell in cells_of(run.suite) if cell.cell_id in seen]
    return planned + sorted(seen - set(planned))


def read_grid(run: Run, metrics: Sequence[str]) -> Grid:
    """The arrays of a run.

    Raises:
        RunError: If a joule is not positive (names the trial), or the windows of a cell belong to different devices.
    """
    require_one_device(run)
    trials = run.windows
    _require_positive(run, trials)
    windows = trials.select("cell_id", "seeds", prompt_id="prompt_ids", value="energy_j_per_image")
    windows = windows.explode("prompt_id", "seeds").rename({"seeds": "seed"})
    tables = [windows, *(run.scores.filter(pl.col("metric") == name) for name in metrics)]
    cells, prompts = cell_order(run), _prompts_of(tables)
    arrays = _arrays([_coded(table, cells, prompts) for table in tables], len(prompts), len(cells))
    grid = Grid(
        cells=tuple(cells),
        prompts=tuple(prompts),
        energy_j=arrays[0],
        quality=dict(zip(metrics, arrays[1:], strict=True)),
        groups=_groups(trials, cells, prompts),
        common_errors={name: _by_cell(run.common_errors[name], cells) for name in metrics if name in run.common_errors},
    )
    return _with_cell_values(run, grid) if run.is_imported else grid


def _prompts_of(tables: Sequence[pl.DataFrame]) -> list[str]:
    """Return the ids of all prompts, sorted."""
    return pl.concat([table["prompt_id"].unique() for table in tables]).drop_nulls().unique().sort().to_list()


def _coded(table: pl.DataFrame, cells: Sequence[str], prompts: Sequence[str]) -> pl.DataFrame:
    """Return the numbers of a table with `row` and `column`, the places of prompt and cell, instead of their ids."""
    place = {"row": ("prompt_id", prompts), "column": ("cell_id", cells)}
    codes = {
        name: pl.col(key).cast(pl.Enum(ids), strict=False).to_physical().cast(pl.Int64)
        for name, (key, ids) in place.items()
    }
    return table.select("seed", "value", **codes).drop_nulls(list(codes))


def _arrays(tables: Sequence[pl.DataFrame], prompts: int, cells: int) -> list[Array]:
    """Return each table as (prompts, seeds, cells); a seed's place is its rank among the seeds of its prompt."""
    seeds = pl.concat([table["seed"].unique() for table in tables]).drop_nulls().unique().sort().to_numpy()
    keys = []
    for table in tables:
        rank = np.searchsorted(seeds, table["seed"].fill_null(0).to_numpy()) + 1
        rank[table["seed"].is_null().to_numpy()] = 0
        keys.append(table["row"].to_numpy() * (len(seeds) + 1) + rank)
    places = _ranks(keys, prompts, len(seeds) + 1)
    shape = (prompts, 1 + int(max(place.max(initial=-1) for place in places)), cells)
    return [
        _filled(np.ravel_multi_index((table["row"].to_numpy(), place, table["column"].to_numpy()), shape), table, shape)
        for table, place in zip(tables, places, strict=True)
    ]


def _ranks(keys: Sequence[NDArray[np.int64]], rows: int, width: int) -> list[NDArray[np.int64]]:
    """Return the rank of each key `row * width + i` among the different keys of its row."""
    if rows * width <= 4 * sum(map(len, keys)):
        seen = np.zeros((rows, width), bool)
        for key in keys:
            seen.ravel()[key] = True
        ranks = seen.cumsum(1).ravel() - 1
        return [ranks[key] for key in keys]
    # if every prompt has seeds of its own, that table would be mostly empty
    units = np.unique(np.concatenate(keys))
    first = np.searchsorted(units, np.arange(rows) * width)
    return [np.searchsorted(units, key) - first[key // width] for key in keys]


def _filled(flat: NDArray[np.intp], table: pl.DataFrame, shape: tuple[int, ...]) -> Array:
    """Return an array with the table's values at these places, means where there are several, and NaN elsewhere."""
    known = table["value"].is_finite().fill_null(False)
    flat, numbers = flat[known.to_numpy()], table["value"].filter(known)
    values = np.full(math.prod(shape), np.nan)
    values[flat] = numbers.to_numpy()
    if np.isfinite(values).sum() < len(flat):  # images of several windows
        means = pl.DataFrame({"place": flat, "value": numbers}).group_by("place").agg(pl.col("value").mean())
        values[means["place"].to_numpy()] = means["value"].to_numpy()
    return values.reshape(shape)


def _by_cell(errors: Mapping[str, Array], cells: Sequence[str]) -> Array:
    """(draws, cells) errors; 0 for cells without any."""
    draws = max((len(column) for column in errors.values()), default=1)
    return np.stack([errors.get(cell, np.zeros(draws)) for cell in cells], axis=1)


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
    # all prompts of such a cell are one window group, of which no interval is made
    return replace(grid, cell_values=cell_values, groups=np.where(shared, 0, grid.groups))


def _whole_cells(run: Run) -> set[str]:
    """The cells that a table gives in one row, without prompts."""
    return set(run.trials.filter(pl.col("prompt_ids").list.contains(WHOLE_CELL))["cell_id"])


def _constant(values: Array) -> tuple[NDArray[np.bool_], Array]:
    """(prompts, seeds, cells) -> (cells,) True where two prompts or more have the same number, and that number."""
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min((0, 1), initial=np.inf)
    high = np.where(known, values, -np.inf).max((0, 1), initial=-np.inf)
    return np.asarray((low == high) & (prompts_known(values) > 1)), low


def _groups(trials: pl.DataFrame, cells: Sequence[str], prompts: Sequence[str]) -> Groups:
    """(prompts, cells) window groups, from the windows that have joules."""
    rows = pl.DataFrame(
        {"prompt_ids": prompts, "row": range(len(prompts))}, schema={"prompt_ids": pl.String, "row": int}
    )
    pairs = (
        trials.filter(pl.col("energy_j").is_finite() & (pl.col("prompt_ids").list.n_unique() > 1))
        .select("cell_id", "prompt_ids", first=pl.col("prompt_ids").list.first())
        .explode("prompt_ids")
        .unique()
        .join(rows, on="prompt_ids")
        .join(rows.rename({"prompt_ids": "first", "row": "other"}), on="first")
    )
    groups = np.tile(np.arange(len(prompts))[:, None], (1, len(cells)))
    for (cell,), part in pairs.group_by("cell_id"):
        groups[:, cells.index(str(cell))] = linked(len(prompts), part["row"].to_numpy(), part["other"].to_numpy())
    return groups


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
