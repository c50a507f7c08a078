"""Paired hierarchical bootstrap: prompts are drawn, then seeds inside each, and all arms are looked at on one draw.

    values (prompts, seeds, columns)  ──►  Means.point      (1, columns)    as found
                                           Means.resamples  (b, columns)    one draw of prompts and seeds a row
                                           Means.jackknife  (g, columns)    one group of prompts left out a row

A statistic is any function of rows of means, so that the whole way from means to the number (envelope, interpolation,
integral) is walked again in every row. What prompts have in common cancels, because a row holds one draw for all
columns. Drawing seeds as well makes intervals a little wide where seeds matter more than prompts (Davison and
Hinkley, Bootstrap Methods, 1997, section 3.8): the error is on the careful side.
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
METHOD = "paired bootstrap over prompts, then seeds; BCa"

# rows of weights are made in portions of this size
_CHUNK_BYTES = 64 * 2**20
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
            low, high = bca_limits(value, statistic(self.resamples), statistic(self.jackknife), level)
        return Estimate(value=value, low=_finite(low), high=_finite(high), level=level, n=self.n, method=method)


def resample_means(values: Array, *, resamples: int = RESAMPLES, seed: int = SEED) -> Means:
    """Draw prompts with replacement, then as many seeds inside each as it has, and take the means.

    Args:
        values: (prompts, seeds, columns); NaN where there is nothing. A column's mean is over the prompts that it has,
            of the mean over the seeds that it has.
        resamples: Rows.
        seed: Of the draws: the same seed and shape give the same draws.
    """
    values = np.asarray(values, np.float64)
    present: NDArray[np.bool_] = np.isfinite(values).sum(-1) > 0
    seen = np.flatnonzero(present.sum(1))
    values, present = values[seen], present[seen]
    prompts, _, columns = values.shape
    known = np.isfinite(values)
    seeds_known = known.sum(1, keepdims=True)
    share = known / np.maximum(seeds_known, 1)
    top = np.where(known, values, 0.0) * share
    complete = bool(known.all())

    def ratio(upper: Array, lower: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(upper / lower, np.float64)

    top_of, bottom_of = top.sum(1), share.sum(1)  # (prompts, columns)
    groups = np.array_split(np.arange(prompts), min(prompts, _JACKKNIFE_GROUPS)) if prompts else []
    out_top = np.array([top_of[g].sum(0) for g in groups]).reshape(-1, columns)
    out_bottom = np.array([bottom_of[g].sum(0) for g in groups]).reshape(-1, columns)
    flat_top, flat_bottom = top.reshape(-1, columns), share.reshape(-1, columns)
    rows = np.full((resamples if prompts > 1 else 0, columns), np.nan)
    for at, weights in _weights(present, len(rows), seed) if len(rows) else ():
        part = weights @ flat_top
        rows[at : at + len(weights)] = part / prompts if complete else ratio(part, weights @ flat_bottom)
    return Means(
        point=ratio(top_of.sum(0), bottom_of.sum(0))[None],
        resamples=rows,
        jackknife=ratio(top_of.sum(0) - out_top, bottom_of.sum(0) - out_bottom),
        n=prompts,
    )


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


def _weights(present: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[tuple[int, Array]]:
    """(first row, how often each (prompt, seed) is drawn in each resample), in portions."""
    prompts, seeds = present.shape
    draw_prompts, draw_seeds = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    count = present.sum(1)
    ragged = bool((count != seeds).any())
    # the places of a prompt's seeds, first those that are there
    places = np.argsort(~present, axis=1, kind="stable")
    portion = max(1, _CHUNK_BYTES // (8 * prompts * seeds))
    for at in range(0, resamples, portion):
        rows = min(portion, resamples - at)
        chosen = draw_prompts.integers(0, prompts, (rows, prompts))
        weights = np.empty((rows, prompts * seeds))
        for row in range(rows):
            units = chosen[row]
            if seeds > 1:
                if ragged:
                    slot = (draw_seeds.random((prompts, seeds)) * count[units, None]).astype(np.intp)
                    drawn = units[:, None] * seeds + places[units[:, None], slot]
                    units = drawn[np.arange(seeds) < count[units, None]]
                else:
                    slot = draw_seeds.integers(0, seeds, (prompts, seeds), dtype=np.uint16)
                    units = (units[:, None] * seeds + slot).ravel()
            weights[row] = np.bincount(units, minlength=prompts * seeds)
        yield at, weights


def _finite(limit: float) -> float | None:
    return float(limit) if np.isfinite(limit) else None


def bootstrap_weights(n: int, resamples: int = 2_000, seed: int = SEED) -> NDArray[np.float64]:
    """How often each of n units is drawn in each resample. -> (resamples, n), rows sum to n."""
    chance = np.random.default_rng([seed, n])
    return chance.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def ratio_of_sums(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Σ numerator / Σ denominator over units, ignoring units where either is NaN.

    Args:
        numerator: (units, cells).
        denominator: (units, cells).
        weights: (resamples, units).

    Returns:
        The ratio itself (cells,) and its resamples (resamples, cells); NaN where there is nothing.
    """
    known = np.isfinite(numerator) & np.isfinite(denominator)
    top, bottom = np.where(known, numerator, 0.0), np.where(known, denominator, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return top.sum(0) / bottom.sum(0), (weights @ top) / (weights @ bottom)


def percentile_estimate(
    value: float, resamples: NDArray[np.float64], n: int, method: str, level: float = LEVEL
) -> Estimate:
    """An estimate with its percentile interval; no interval from fewer than two units, and none for NaN."""
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, level=level, n=n, method=method)
    finite = resamples[np.isfinite(resamples)]
    if n < 2 or len(finite) < 100:
        return Estimate(value=float(value), low=None, high=None, level=level, n=n, method=method)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(value), low=float(low), high=float(high), level=level, n=n, method=method)
