"""Paired bootstrap: prompts (or window groups) are drawn, and all arms are looked at on the same draw.

    values (prompts, seeds, columns)  ──►  Means.point      (1, columns)    as found
                                           Means.resamples  (b, columns)    one draw a row
                                           Means.jackknife  (g, columns)    one unit (or a few) left out a row

A statistic is any function of rows of means, so that the whole way from means to the number (envelope, interpolation,
integral) is walked again in every row. What prompts have in common cancels, because a row holds one draw for all
columns.

**What is drawn.** Quality alone: prompts, each with all its seeds. Any statistic that holds energy: window groups, the
sets of prompts that share energy windows (see `perjoule.statistics.window_groups`), each with its prompts. Where every
window holds one prompt the two are the same.

**How.** From `STUDENT_BELOW` units up with replacement, and limits are BCa. Fewer window groups are too few for that:
no resample lies outside the range of the units, and the range of five holds the mean in 94 % of the cases at best. The
draws are then of Student's t: normal weights of the units' deviations, times the factor of t with one degree of freedom
less than there are units, the same for all columns; energies are drawn as logarithms, so that they stay positive.

Seeds come along with their prompt and are not drawn again. The scatter of seeds is in the scatter of the prompts' means
already; drawing it once more counts it twice (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8; Ren et al., J.
Appl. Stat. 37, 2010). In our worlds that made nominal 95 % intervals cover 98.0 to 98.8 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.window_groups import Groups, common_groups
from perjoule.types import Estimate

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # (rows, columns) -> (rows,)

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 20_241_205
METHOD = "paired bootstrap over prompts with their seeds; BCa"
ONE_GROUP = "no interval: all prompts share one window group"
_UNDRAWN = "no interval: in one of the cells all prompts share one window group"
# with fewer window groups, draws are of Student's t; with fewer than `_FEW` the limits are wide, and said to be
STUDENT_BELOW = 25
_FEW = 5

# rows of weights are made in portions of this size
_CHUNK_BYTES = 4 * 2**20
_CACHED_COUNTERS = 2**15
# counts that are kept for the next statistic, one byte each as a rule
_MOST_KEPT = 2**30
# leaving out groups instead of single prompts keeps the acceleration and bounds the work
_JACKKNIFE_GROUPS = 1_000
# an interval from fewer usable resamples than this share would be one of the lucky draws
_USABLE_SHARE = 0.99
# the logarithm of a factor beyond which a draw of energy says nothing any more
_MOST_LOG = 50.0
# of normal weights behind the point, and of the deviations that they weigh: with 3 bits before the point and 5 of the
# sum they fit into the 53 of a float
_WEIGHT_BITS = 16
_AWAY_BITS = 29


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """Means over prompts of means over seeds.

    Attributes:
        point: As found.
        resamples: A draw a row; no rows for fewer than two units.
        jackknife: A unit left out a row.
        n: How many units there are.
        unit: What the units are: `prompts` or `window groups`.
        student: True if the draws are of Student's t, whose quantiles are the limits.
    """

    point: Array
    resamples: Array
    jackknife: Array
    n: int
    unit: str = "prompts"
    student: bool = False

    def of(self, columns: Sequence[int] | NDArray[np.intp] | slice) -> Means:
        """The same draws, of some columns."""
        return replace(
            self,
            point=self.point[:, columns],
            resamples=self.resamples[:, columns],
            jackknife=self.jackknife[:, columns],
        )

    def times(self, factors: Array | Sequence[float]) -> Means:
        """The same draws, each column times a number."""
        return replace(
            self,
            point=self.point * factors,
            resamples=self.resamples * factors,
            jackknife=self.jackknife * factors,
        )

    def plus(self, errors: Array, columns: Sequence[int] | slice = slice(None)) -> Means:
        """The same with errors (draws, columns) that all units have in common added to the draws of some columns."""
        if not errors.any() or not len(self.resamples):
            return self
        rows = self.resamples.copy()
        rows[:, columns] += np.resize(errors, (len(rows), errors.shape[1]))
        return replace(self, resamples=rows)

    def mapped(self, of: Callable[[Array], Array]) -> Means:
        """The same draws of what is computed from each row: `of` takes (rows, columns) -> (rows, other columns)."""
        point, resamples, jackknife = (of(rows) for rows in (self.point, self.resamples, self.jackknife))
        return replace(self, point=point, resamples=resamples, jackknife=jackknife)

    @property
    def method(self) -> str:
        """How intervals are made, in words."""
        return _method(self.n, self.unit, self.student)

    def estimate(self, statistic: Statistic, *, level: float = LEVEL, what: str = "", n: int | None = None) -> Estimate:
        """The statistic of the means with its interval.

        Rows may be infinite, such as the saving of an arm that does not reach the quality in a draw; an infinite limit
        is an open end and comes back as None. So does any limit if more than 1 % of the rows have no value, and both
        for fewer than two units.

        Args:
            statistic: Rows of means -> a number each.
            level: Two-sided coverage.
            what: What is estimated, in words; how its interval is made is added.
            n: How many units the statistic rests on, if it is not all.
        """
        units = self.n if n is None else n
        how = _method(units, self.unit, self.student)
        method = f"{what}; {how}" if what else how
        value = float(statistic(self.point)[0])
        if not np.isfinite(value):
            return Estimate(value=None, low=None, high=None, level=level, n=units, method=method)
        low = high = np.nan
        if units > 1 and len(self.resamples):
            rows = statistic(self.resamples)
            if np.isnan(rows).all():
                method = f"{what}; {_UNDRAWN}" if what else _UNDRAWN
            elif self.student:
                low, high = quantile_limits(rows, level)
            else:
                low, high = bca_limits(value, rows, statistic(self.jackknife), expanded(level, units))
        return Estimate(value=value, low=_finite(low), high=_finite(high), level=level, n=units, method=method)


def resample_means(
    values: Array,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    groups: NDArray[np.intp] | None = None,
    positive: NDArray[np.bool_] | None = None,
) -> Means:
    """Draw prompts, or groups of prompts, each with its seeds, and take the means.

    Args:
        values: (prompts, seeds, columns); NaN where there is nothing. A column's mean is over the prompts that it has,
            of the mean over the seeds that it has.
        resamples: Rows.
        seed: Seed of the draws: the same seed and number of units give the same draws.
        groups: (prompts,) labels of the groups that are drawn as a whole; None draws prompts.
        positive: (columns,) those that are drawn as logarithms where draws are of Student's t.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    count = known.sum(1)  # (prompts, columns)
    seen = np.flatnonzero(count.any(1))
    top = np.where(known, values, 0.0).sum(1)[seen] / np.maximum(count[seen], 1)
    bottom = (count[seen] > 0).astype(np.float64)
    apart = groups is None or len(np.unique(groups[seen])) == len(seen)
    complete = apart and bool(bottom.all())
    if groups is not None and not apart:
        order = np.argsort(groups[seen], kind="stable")
        starts = np.flatnonzero(np.diff(groups[seen][order], prepend=-1))
        top, bottom = (np.add.reduceat(part[order], starts, axis=0) for part in (top, bottom))
    top = summable(top)
    units, columns = top.shape
    left_out = np.array_split(np.arange(units), min(units, _JACKKNIFE_GROUPS)) if units else []
    out_top = np.array([top[g].sum(0) for g in left_out]).reshape(len(left_out), columns)
    out_bottom = np.array([bottom[g].sum(0) for g in left_out]).reshape(len(left_out), columns)
    point = _ratio(top.sum(0), bottom.sum(0))
    student = groups is not None and units < STUDENT_BELOW
    rows = np.full((resamples if units > 1 else 0, columns), np.nan)
    if student and len(rows):
        logs = np.zeros(columns, np.bool_) if positive is None else positive
        rows = _student(top, bottom, point, logs, len(rows), seed)
    elif len(rows):
        for at, weights in _weights(units, len(rows), seed):
            part = weights @ top
            rows[at : at + len(weights)] = part / units if complete else _ratio(part, weights @ bottom)
    return Means(
        point=point[None],
        resamples=rows,
        jackknife=_ratio(top.sum(0) - out_top, bottom.sum(0) - out_bottom),
        n=units,
        unit="prompts" if apart else "window groups",
        student=student,
    )


def resample_windows(
    values: Array, energy: Sequence[int], groups: Groups, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Means:
    """Draw window groups: what all statistics rest on that hold energy.

    Args:
        values: (prompts, seeds, columns), as in `resample_means`.
        energy: Which of the columns are energies.
        groups: (prompts, energies) label of the window group of each prompt in that column's cell.
        resamples: Rows.
        seed: Seed of the draws.

    Returns:
        The means. An energy whose cell has one window group has no draws (NaN): nothing is known of its scatter.
    """
    common, lone = common_groups(groups, np.asarray(np.isfinite(values[..., list(energy)]).any(1)))
    positive = np.zeros(values.shape[2], np.bool_)
    positive[list(energy)] = True
    means = resample_means(values, resamples=resamples, seed=seed, groups=common, positive=positive)
    unknown = np.array(energy, np.intp)[lone]
    if len(unknown):
        means.resamples[:, unknown] = means.jackknife[:, unknown] = np.nan
    return means


def over_seeds(values: Array) -> Array:
    """(prompts, seeds, ...) -> (prompts, ...) means of what is known, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(1) / np.maximum(count, 1), np.nan)


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
    return _rounded(values, 53 - (len(values) - 1).bit_length())


def _rounded(values: Array, bits: int) -> Array:
    """Each column on a grid of a power of two on which its largest value takes so many bits."""
    _, exponents = np.frexp(np.abs(values).max(0))
    grid = np.maximum(np.ldexp(1.0, exponents - bits), np.finfo(np.float64).smallest_subnormal)
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
    return _quantiles(usable, shares)


def quantile_limits(resamples: Array, level: float = LEVEL) -> tuple[float, float]:
    """The quantiles of draws of Student's t; NaN where too many rows have no value."""
    usable = resamples[~np.isnan(resamples)]
    if not len(resamples) or len(usable) < _USABLE_SHARE * len(resamples):
        return np.nan, np.nan
    return _quantiles(usable, np.array([(1 - level) / 2, (1 + level) / 2]))


def _quantiles(usable: Array, shares: Array) -> tuple[float, float]:
    method: Literal["linear", "inverted_cdf"] = "linear" if np.isfinite(usable).all() else "inverted_cdf"
    low, high = np.quantile(usable, shares, method=method)
    return float(low), float(high)


def _method(n: int, unit: str, student: bool) -> str:
    if n < 2 and (student or unit != "prompts"):
        return ONE_GROUP if unit == "window groups" else "no interval: there is one prompt"
    if student:
        few = ", which are few" if n < _FEW else ""
        return f"Student's t over {n} {unit}{few}"
    return METHOD if unit == "prompts" else f"paired bootstrap over {n} {unit}; BCa"


def _ratio(upper: Array, lower: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(upper / lower, np.float64)


def _student(top: Array, bottom: Array, point: Array, logs: NDArray[np.bool_], resamples: int, seed: int) -> Array:
    """(resamples, columns) draws of Student's t around the point, the same weights for all columns."""
    with np.errstate(invalid="ignore", divide="ignore"):
        away = (top - np.where(bottom > 0, point, 0.0) * bottom) / bottom.sum(0)  # (units, columns), sums to 0
        away[:, logs] /= point[logs]
        freedom = (bottom > 0).sum(0) - 1
        scale = np.where(freedom > 0, np.sqrt((freedom + 1) / freedom), np.nan)
    weights, _ = _normal_weights(len(top), resamples, seed)
    shift = (weights @ _rounded(np.nan_to_num(away), _AWAY_BITS)) * scale
    for number in np.unique(freedom[freedom > 0]).tolist():
        shift[:, freedom == number] *= _tails(number, len(top), resamples, seed)[:, None]
    drawn = point * np.exp(np.clip(shift, -_MOST_LOG, _MOST_LOG))
    return np.asarray(np.where(logs, drawn, point + shift))


@lru_cache(maxsize=1)
def _normal_weights(units: int, resamples: int, seed: int) -> tuple[Array, Array]:
    """(resamples, units) normal weights, and a chance for each row; the statistics of one run draw the same again."""
    chance = np.random.default_rng(seed)
    # on grids so coarse that sums of fewer than `STUDENT_BELOW` products are exact, in whatever order they are taken
    weights = np.rint(chance.standard_normal((resamples, units)) * 2**_WEIGHT_BITS) / 2**_WEIGHT_BITS
    return weights, chance.random(resamples)


@lru_cache(maxsize=4)
def _tails(freedom: int, units: int, resamples: int, seed: int) -> Array:
    """(resamples,) what makes normal draws into those of Student's t; it takes longer than all other steps."""
    from scipy.special import chdtri

    _, chance = _normal_weights(units, resamples, seed)
    return np.asarray(np.sqrt(freedom / chdtri(freedom, chance)))


def _weights(prompts: int, resamples: int, seed: int) -> Iterator[tuple[int, Array]]:
    """(first row, how often each prompt is drawn in each resample), in portions."""
    if prompts * resamples > _MOST_KEPT:
        yield from _drawn(prompts, resamples, seed)
    else:
        for at, counts in _kept(prompts, resamples, seed):
            yield at, counts.astype(np.float64)


@lru_cache(maxsize=1)
def _kept(prompts: int, resamples: int, seed: int) -> tuple[tuple[int, NDArray[np.unsignedinteger]], ...]:
    """Counts in as few bytes as they need; statistics of one run draw the same again, which is most of their time."""
    portions = _drawn(prompts, resamples, seed)
    return tuple((at, weights.astype(np.min_scalar_type(int(weights.max())))) for at, weights in portions)


def _drawn(prompts: int, resamples: int, seed: int) -> Iterator[tuple[int, Array]]:
    chance = np.random.default_rng(seed)
    portion = max(1, _CHUNK_BYTES // (8 * max(1, prompts)))
    block = max(1, _CACHED_COUNTERS // max(1, prompts))
    offsets = np.arange(block)[:, None] * prompts
    for at in range(0, resamples, portion):
        drawn = chance.integers(0, prompts, (min(portion, resamples - at), prompts), np.uint32)
        weights = np.empty(drawn.shape)
        # several rows at once, as many as the cache holds counters for
        for row in range(0, len(drawn), block):
            units = drawn[row : row + block] + offsets[: len(drawn) - row]
            counts = np.bincount(units.ravel(), minlength=len(units) * prompts)
            weights[row : row + block] = counts.reshape(len(units), prompts)
        yield at, weights


def _finite(limit: float) -> float | None:
    return float(limit) if np.isfinite(limit) else None
