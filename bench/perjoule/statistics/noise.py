"""Where the scatter comes from, and which part of it an interval over prompts contains.

meter           bound of the windows over their energy             not in the interval
repeats         ln E of the same prompts in other blocks           in it
seeds           quality of one prompt under other seeds            in it
prompts         what prompts differ by, inside a cell              in it
drift           slope of ln(E / mean of the cell) over the run     in it, if cells took turns
sessions        the same run on another day or machine             not in it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perjoule.runs.directory import Run
from perjoule.statistics.comparisons import Evidence
from perjoule.statistics.grid import ENERGY, read_grid
from perjoule.statistics.resampling import LEVEL, Array, over_seeds
from perjoule.types import Estimate

MIN_WINDOWS = 20
DRIFT_METHOD = "least squares of ln(E / mean of the cell) over the place in the run; Student's t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source of variability.

    Attributes:
        name: In words.
        energy: Standard deviation (or bound) as a share of a cell's energy; None with a reason.
        quality: Standard deviation in units of the metric; None with a reason.
        n: Groups or windows that it rests on.
        inside: True if an interval over prompts contains it.
        reason: Why a number is absent, in words.
    """

    name: str
    energy: float | None
    quality: float | None
    n: int
    inside: bool
    reason: str = ""


def sources(run: Run, evidence: Evidence | None) -> tuple[Source, ...]:
    """All sources in a fixed order; absent ones say why. `evidence` None: no metric was scored."""
    good = run.windows
    windows = good.select(
        "cell_id",
        place=pl.int_range(pl.len()),
        unit=pl.concat_str(
            pl.col("prompt_ids").list.join("\x1f"),
            pl.col("seeds").cast(pl.List(pl.String)).list.join("\x1f"),
            separator="\x1e",
        ),
        log=pl.col("energy_j_per_image").log(),
    ).filter(pl.col("log").is_finite())
    quality = None if evidence is None else _drawn_quality(evidence)
    imported = run.is_imported
    if imported:  # the same number in the rows of all prompts is one number, not no scatter
        grid = read_grid(run, []) if evidence is None else evidence.grid
        shared = [cell for cell, one in zip(grid.cells, grid.is_cell_value(ENERGY), strict=True) if one]
        windows = windows.filter(~pl.col("cell_id").is_in(shared))
    return (
        _meter(good, imported),
        _repeats(windows, imported),
        _seeds(quality, imported),
        _prompts(windows, quality, imported),
        Source(
            name="between sessions and machines",
            energy=None,
            quality=None,
            n=1,
            inside=False,
            reason="the table does not state sessions"
            if imported
            else "one run is one session: it takes at least five A/A runs to know",
        ),
    )


def drift(run: Run) -> tuple[Estimate | None, str]:
    """Relative change of energy over the run, without the differences between cells; or why there is none.

    The order of the rows is the order of the measurement, except in a table that was imported.
    """
    if run.is_imported:
        return None, "the run was imported: the order of its windows is not known"
    frame = (
        run.windows.filter(pl.col("energy_j") > 0)
        .with_columns(log=pl.col("energy_j_per_image").log())
        .with_columns(off=pl.col("log") - pl.col("log").mean().over("cell_id"))
    )
    n = len(frame)
    if n < MIN_WINDOWS:
        return None, f"{n} windows are too few to see a drift: {MIN_WINDOWS} are the least"
    place = frame["place"].to_numpy().astype(np.float64) / max(1, len(run.trials) - 1)
    off = frame["off"].to_numpy()
    # the cell's own mean place is taken out too, since its mean energy was
    place = place - frame.select(pl.col("place").mean().over("cell_id")).to_series().to_numpy() / max(
        1, len(run.trials) - 1
    )
    spread = float((place**2).sum())
    freedom = n - frame["cell_id"].n_unique() - 1
    if spread <= 0 or freedom < 2:
        return None, "every cell has one window: drift cannot be distinguished from differences between cells"
    from scipy.special import stdtrit

    slope = float((place * off).sum()) / spread
    error = float(np.sqrt(((off - slope * place) ** 2).sum() / freedom / spread))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    value, low, high = (float(np.expm1(v)) for v in (slope, slope - half, slope + half))
    return Estimate(value=value, low=low, high=high, level=LEVEL, n=n, method=DRIFT_METHOD), ""


def _drawn_quality(evidence: Evidence) -> Array:
    """(prompts, seeds, cells) quality, NaN in cells whose quality is a cell value."""
    return np.where(evidence.grid.is_cell_value(evidence.spec.name), np.nan, evidence.quality)


def _meter(good: pl.DataFrame, imported: bool) -> Source:
    name = "the table's own uncertainty" if imported else "the meter's own bound"
    known = good.filter((pl.col("energy_j") > 0) & pl.col("uncertainty_j").is_finite())
    if known.is_empty():
        why = "the table states none" if imported else "no window has a reading with a bound"
        return Source(name=name, energy=None, quality=None, n=0, inside=False, reason=why)
    share = float(known["uncertainty_j"].to_numpy().sum() / known["energy_j"].to_numpy().sum())
    return Source(name=name, energy=share, quality=None, n=len(known), inside=False)


def _repeats(windows: pl.DataFrame, imported: bool) -> Source:
    name = "between windows of the same prompts"
    sd, n = _pooled(windows, ["cell_id", "unit"])
    once = "no image was measured twice" if imported else "every window was measured once"
    more = "a column `block`" if imported else "protocol.blocks = 2 or more"
    why = "" if n else f"{once}: {more} would show it"
    return Source(name=name, energy=sd, quality=None, n=n, inside=True, reason=why)


def _seeds(quality: Array | None, imported: bool) -> Source:
    name = "between seeds of one prompt"
    if quality is None:
        return Source(name=name, energy=None, quality=None, n=0, inside=True, reason="nothing was scored")
    known = np.isfinite(quality)
    count = known.sum(1)
    sd, n = _within(quality, known, count)
    many = "several seeds in the table" if imported else "protocol.seeds with two or more"
    why = "" if n else f"no prompt has scores of two seeds: {many} would show it"
    return Source(name=name, energy=None, quality=sd, n=n, inside=True, reason=why)


def _prompts(windows: pl.DataFrame, scores: Array | None, imported: bool) -> Source:
    name = "between prompts of one cell"
    energy, groups = _pooled(windows, ["cell_id"])
    quality, n = None, 0
    if scores is not None:
        means = over_seeds(scores)
        there = np.isfinite(means)
        quality, n = _within(means[None], there[None], there.sum(0)[None])
    single = "the table gives one number for each cell" if imported else "every cell has one window and one prompt"
    why = "" if energy is not None or quality is not None else single
    return Source(name=name, energy=energy, quality=quality, n=max(groups, n), inside=True, reason=why)


def _pooled(windows: pl.DataFrame, keys: list[str]) -> tuple[float | None, int]:
    """Pooled standard deviation of ln E inside groups of two or more, and how many groups."""
    groups = (
        windows.group_by(keys, maintain_order=True)
        .agg(n=pl.len(), variance=pl.col("log").var())
        .filter(pl.col("n") > 1)
    )
    if groups.is_empty():
        return None, 0
    weight = groups["n"].to_numpy() - 1
    return float(np.sqrt((groups["variance"].to_numpy() * weight).sum() / weight.sum())), len(groups)


def _within(values: Array, known: Array | np.ndarray, count: Array | np.ndarray) -> tuple[float | None, int]:
    """Pooled standard deviation along axis 1 inside groups of two or more, and how many groups."""
    many = count > 1
    if not many.any():
        return None, 0
    filled = np.where(known, values, 0.0)
    mean = filled.sum(1) / np.maximum(count, 1)
    squares = (np.where(known, values - mean[:, None], 0.0) ** 2).sum(1)
    return float(np.sqrt(squares[many].sum() / (count[many] - 1).sum())), int(many.sum())
