"""Paired hierarchical bootstrap: prompts are drawn, each with all its seeds, and all arms are looked at on one draw.

    values (prompts, seeds, columns)  ──►  Means.point      (1, columns)    as found
                                           Means.resamples  (b, columns)    one draw of prompts a row
                                           Means.jackknife  (g, columns)    one group of prompts left out a row

A statistic is any function of rows of means, so that the whole way from means to the number (envelope, interpolation,
integral) is walked again in every row. What prompts have in common cancels, because a row holds one draw for all
columns.

Seeds come along with their prompt and are not drawn again. The scatter of seeds is in the scatter of the prompts' means
already; drawing it once more counts it twice (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8; Ren et al., J.
Appl. Stat. 37, 2010). In our worlds that made nominal 95 % intervals cover 98.0 to 98.8 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.types import Estimate

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # (rows, columns) -> (rows,)

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 20_241_205
METHOD = "paired bootstrap over prompts with their seeds; BCa"

# rows of weights are made in portions of this size
_CHUNK_BYTES = 4 * 2**20
_CACHED_COUNTERS = 2**15
# leaving out groups instead of single prompts keeps the acceleration and bounds the work
_JACKKNIFE_GROUPS = 1_000
# an interval from fewer usable resamples than this share would be one of the lucky draws
_USABLE_SHARE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """Means over prompts of means over seeds. `n`: how many prompts there are."""

    point: Array
    resamples: Array
    jackknife: Array
    n: int

    def of(self, columns: Sequence[int] | NDArray[np.intp] | slice) -> Means:
        """The same draws, of some columns."""
        return Means(
            point=self.point[:, columns],
            resamples=self.resamples[:, columns],
            jackknife=self.jackknife[:, columns],
            n=self.n,
        )

    def estimate(self, statistic: Statistic, *, level: float = LEVEL, method: str = METHOD) -> Estimate:
        """The statistic of the means with its BCa interval.

        Rows may be infinite, such as the saving of an arm that does not reach the quality in a draw; an infinite limit
        is an open end and comes back as None. So does any limit if more than 1 % of the rows have no value, and both
        for fewer than two prompts.
        """
        value = float(statistic(self.point)[0])
        if not np.isfinite(value):
            return Estimate(value=None, low=None, high=None, level=level, n=self.n, method=method)
        low = high = np.nan
        if self.n > 1 and len(self.resamples):
            wide = expanded(level, self.n)
            low, high = bca_limits(value, statistic(self.resamples), statistic(self.jackknife), wide)
        return Estimate(value=value, low=_finite(low), high=_finite(high), level=level, n=self.n, method=method)


def resample_means(values: Array, *, resamples: int = RESAMPLES, seed: int = SEED) -> Means:
    """Draw prompts with replacement, each with its seeds, and take the means.

    Args:
        values: (prompts, seeds, columns); NaN where there is nothing. A column's mean is over the prompts that it has,
            of the mean over the seeds that it has.
        resamples: Rows.
        seed: Of the draws: the same seed and number of prompts give the same draws.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    count = known.sum(1)  # (prompts, columns)
    seen = np.flatnonzero(count.any(1))
    top = summable(np.where(known, values, 0.0).sum(1)[seen] / np.maximum(count[seen], 1))
    bottom = (count[seen] > 0).astype(np.float64)
    prompts, columns = top.shape
    complete = bool(bottom.all())

    def ratio(upper: Array, lower: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(upper / lower, np.float64)

    groups = np.array_split(np.arange(prompts), min(prompts, _JACKKNIFE_GROUPS)) if prompts else []
    out_top = np.array([top[g].sum(0) for g in groups]).reshape(-1, columns)
    out_bottom = np.array([bottom[g].sum(0) for g in groups]).reshape(-1, columns)
    rows = np.full((resamples if prompts > 1 else 0, columns), np.nan)
    for at, weights in _weights(prompts, len(rows), seed):
        part = weights @ top
        rows[at : at + len(weights)] = part / prompts if complete else ratio(part, weights @ bottom)
    return Means(
        point=ratio(top.sum(0), bottom.sum(0))[None],
        resamples=rows,
        jackknife=ratio(top.sum(0) - out_top, bottom.sum(0) - out_bottom),
        n=prompts,
    )


def summable(values: Array) -> Array:
    """Values rounded so that every sum of n draws of them is exact, in whatever order it is taken.

    Each column is put on a grid of a power of two that is coarse enough for n of its largest value to stay below 2^53
    grid units. Neither the BLAS, its block sizes and threads, nor the portions of the rows can then change a bit of a
    resampled mean, and equal means are ties on every machine. The rounding is at most n · 2^-53 of the largest value.

    Args:
        values: (n, columns), finite.
    """
    if not values.size:
        return values
    _, exponents = np.frexp(np.abs(values).max(0))
    grid = np.ldexp(1.0, exponents + (len(values) - 1).bit_length() - 53)
    grid = np.maximum(grid, np.finfo(np.float64).smallest_subnormal)
    return np.asarray(np.rint(values / grid) * grid, np.float64)


def expanded(level: float, n: int) -> float:
    """The nominal level that makes a bootstrap interval from n units cover `level`.

    Drawing n units out of n has the variance of n − 1 and knows nothing of Student's t (Hesterberg, The American
    Statistician 69, 2015, section 3.3). From 50 units 95 % becomes 95.8 %.
    """
    from scipy.special import ndtr, stdtrit

    quantile = stdtrit(n - 1, (1 + level) / 2)
    # of two or three units the ends are the outermost draws, wherever they lie
    return float(min(2 * ndtr(np.sqrt(n / (n - 1)) * quantile) - 1, 0.9999))


def bca_limits(value: float, resamples: Array, jackknife: Array, level: float = LEVEL) -> tuple[float, float]:
    """Bias-corrected and accelerated limits (Efron 1987); NaN where too many rows have no value.

    Args:
        value: The statistic as found.
        resamples: (b,) its resamples; may hold infinities.
        jackknife: (g,) the statistic with groups of units left out; rows that are not finite are not used.
        level: Two-sided coverage.
    """
    from scipy.special import ndtr, ndtri

    usable = resamples[~np.isnan(resamples)]
    if not len(resamples) or len(usable) < _USABLE_SHARE * len(resamples):
        return np.nan, np.nan
    below = ((usable < value).mean() + (usable <= value).mean()) / 2
    left = jackknife[np.isfinite(jackknife)]
    influence = left.mean() - left if len(left) else np.zeros(1)
    spread = float((influence**2).sum()) ** 1.5
    # rounding makes a constant statistic's influence a little more than nothing
    flat = spread <= (1e-12 * max(1.0, abs(value))) ** 3
    acceleration = 0.0 if flat else float((influence**3).sum()) / (6 * spread)
    ends = ndtri([(1 - level) / 2, (1 + level) / 2])
    if 0 < below < 1:
        shift = ndtri(below)
        shares = ndtr(shift + (shift + ends) / (1 - acceleration * (shift + ends)))
    else:
        shares = ndtr(ends)  # every row lies on one side: there is no bias to correct by
    if np.isfinite(usable).all():
        low, high = np.quantile(usable, shares)
    else:
        low, high = np.quantile(usable, shares, method="inverted_cdf")
    return float(low), float(high)


def _weights(prompts: int, resamples: int, seed: int) -> Iterator[tuple[int, Array]]:
    """(first row, how often each prompt is drawn in each resample), in portions."""
    chance = np.random.default_rng(seed)
    portion = max(1, _CHUNK_BYTES // (8 * max(1, prompts)))
    block = max(1, _CACHED_COUNTERS // max(1, prompts))
    offsets = np.arange(block)[:, None] * prompts
    for at in range(0, resamples, portion):
        drawn = chance.integers(0, prompts, (min(portion, resamples - at), prompts))
        weights = np.empty(drawn.shape)
        # several rows at once, as many as the cache holds counters for
        for row in range(0, len(drawn), block):
            units = drawn[row : row + block] + offsets[: len(drawn) - row]
            counts = np.bincount(units.ravel(), minlength=len(units) * prompts)
            weights[row : row + block] = counts.reshape(len(units), prompts)
        yield at, weights


def _finite(limit: float) -> float | None:
    return float(limit) if np.isfinite(limit) else None
