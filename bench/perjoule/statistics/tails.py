"""The weak images of a cell: the 10th percentile of quality, which plateau rules protect and a mean does not show.

    F(x) = mean over prompts of the share of their images whose quality is at most x
    q10  = smallest x that was seen with F(x) ≥ 0.1

The share of images at or below q10 is a mean, so that it can ride on the draws of all other means; the limits of that
share, read off F, are the limits of q10 (Woodruff, J. Am. Stat. Assoc. 47, 1952). With one seed this is the interval of
order statistics.
"""

from __future__ import annotations

import numpy as np

from perjoule.statistics.resampling import LEVEL, Array, Means, expanded
from perjoule.types import Estimate

SHARE = 0.1
METHOD = "10th percentile over images, worst first; Woodruff interval, paired bootstrap over prompts with their seeds"
# shares are sums of fractions
_ROUNDING = 1e-9


def at_or_below(quality: Array, share: float = SHARE) -> Array:
    """1 where an image is among the worst `share` of its cell, else 0; NaN where there is no score.

    Args:
        quality: (prompts, seeds, cells), turned so that higher is better; NaN where there is no score.
        share: Share of the images that count as worst.
    """
    limits = np.array([_quantiles(quality[..., c], share)[0] for c in range(quality.shape[2])])
    return np.where(np.isfinite(quality), (quality <= limits).astype(np.float64), np.nan)


def tail_estimates(quality: Array, drawn: Means, share: float = SHARE) -> list[Estimate]:
    """The percentile of every cell with its interval.

    A limit is None where its share of images is zero: too few prompts to bound the percentile from below.

    Args:
        quality: As in `at_or_below`.
        drawn: Draws of `at_or_below(quality)`, one column per cell.
        share: As in `at_or_below`.
    """
    estimates = []
    for column in range(quality.shape[2]):
        values = quality[..., column]
        n = int(np.isfinite(values).any(1).sum())
        ends = [np.nan, np.nan]  # a share has no limits
        rows = drawn.resamples[:, column]
        if n > 1 and len(rows) and np.isfinite(rows).all():
            wide = expanded(LEVEL, n)
            limits = np.quantile(rows, [(1 - wide) / 2, (1 + wide) / 2], method="inverted_cdf")
            ends = [end if end > _ROUNDING else np.nan for end in limits]
        value, lower, upper = (float(v) if np.isfinite(v) else None for v in _quantiles(values, share, *ends))
        estimates.append(Estimate(value=value, low=lower, high=upper, level=LEVEL, n=n, method=METHOD))
    return estimates


def _quantiles(values: Array, *shares: float) -> list[float]:
    """Smallest of the values (prompts, seeds) at which F reaches each share; every prompt weighs the same.

    NaN for a share that is NaN, and if there is no value.
    """
    known = np.isfinite(values)
    if not known.any():
        return [np.nan] * len(shares)
    weights = np.broadcast_to(1 / np.maximum(known.sum(1, keepdims=True), 1), values.shape)[known]
    if (weights == weights[0]).all():  # as a rule; sorting alone takes a tenth of the time
        reached, ranked = np.cumsum(weights), np.sort(values[known])
    else:
        order = np.argsort(values[known], kind="stable")
        reached, ranked = np.cumsum(weights[order]), values[known][order]
    places = [int(np.searchsorted(reached, (share - _ROUNDING) * reached[-1])) for share in shares]
    return [
        np.nan if np.isnan(share) else float(ranked[min(place, len(ranked) - 1)])
        for share, place in zip(shares, places, strict=True)
    ]
