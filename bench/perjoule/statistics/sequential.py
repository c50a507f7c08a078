"""Inference that stays valid if a comparison stops as soon as it is decided.

A test that looks at its data several times and stops at the first significant result has a larger error rate than each
look alone. Every design here answers one question: at which *nominal* one-sided level may look k test, so that the
error over all looks is at most alpha? The answer depends only on the shares of the planned sample that looks have.

    pocock            alpha ln(1 + (e − 1) t), spent almost evenly (Lan and DeMets 1983): stops early
    obrien-fleming    2 − 2 Φ(z_{1−alpha/2} / √t) (Lan and DeMets 1983): spends almost nothing early
    confidence-sequence   any number of looks at any time (Waudby-Smith et al. 2024), wider in return

The levels of the first two follow from recursive numerical integration over the earlier looks (Armitage, McPherson and
Rowe 1969). With few observations a nominal level is used with Student's t instead of the normal distribution (Jennison
and Turnbull 2000, section 3.8). Student's t of skewed observations is too small on one side and too large on the other,
which a stop at the first significant result adds up; `corrected_statistic` takes the smaller of t and Hall's
transformation of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np

from perjoule.errors import UsageError
from perjoule.statistics.designs import Design
from perjoule.statistics.resampling import Array

# share of the planned sample at which the confidence sequence is narrowest
TIGHTEST_SHARE = 0.25
_TAIL_SD = 8.5  # the density beyond is below 1e-16
_NODES_PER_SD = 8  # Gauss-Legendre nodes per standard deviation of the narrowest step
_LEAST_NODES, _MOST_NODES = 96, 1_024


def spent(design: Design, share: float, alpha: float) -> float:
    """Return the error that a spending function allows up to a share of the planned sample.

    Args:
        design: `pocock` or `obrien-fleming`.
        share: Information fraction t, above 0, at most 1.
        alpha: One-sided error over all looks.

    Raises:
        UsageError: If the design does not spend its error.
    """
    from scipy.special import ndtr, ndtri

    if design == "pocock":
        return alpha * math.log1p((math.e - 1) * share)
    if design == "obrien-fleming":
        return float(2 * ndtr(ndtri(alpha / 2) / math.sqrt(share)))
    raise UsageError(f"design {design!r} spends no error: choose pocock or obrien-fleming")


@lru_cache(maxsize=512)
def nominal_levels(design: Design, shares: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return the nominal one-sided level of each look.

    Args:
        design: How the error is divided over the looks.
        shares: Shares of the planned sample at the looks, increasing, above 0, at most 1.
        alpha: One-sided error over all looks.

    Raises:
        UsageError: If the shares do not increase from above 0 to at most 1.
    """
    from scipy.special import ndtr

    _require_shares(shares)
    if design == "confidence-sequence":
        return tuple(float(ndtr(-sequence_width(share, alpha))) for share in shares)
    return tuple(float(ndtr(-bound)) for bound in bounds(design, shares, alpha))


def bounds(design: Design, shares: Sequence[float], alpha: float) -> list[float]:
    """Return the upper bound of the standardised statistic at each look; see `nominal_levels`."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    total, z_bounds = 0.0, list[float]()
    path = _Path()
    for share in shares:
        step = max(spent(design, share, alpha) - total, 1e-300)
        total += step
        if path.share == 0:
            bound = -float(ndtri(step)) * math.sqrt(share)
        else:
            high = _TAIL_SD * 4 * math.sqrt(share)
            bound = brentq(partial(_excess, path, share, step), -high, high, xtol=1e-10)
        path = path.advanced(share, -math.inf, bound)
        z_bounds.append(bound / math.sqrt(share))
    return z_bounds


def crossing_probabilities(
    shares: Sequence[float], upper: Sequence[float], lower: Sequence[float] | None = None
) -> list[float]:
    """Return the probability to leave the bounds first at each look, without a true difference.

    Args:
        shares: Shares of the planned sample.
        upper: Upper bounds of the standardised statistic.
        lower: Lower bounds; none by default.
    """
    path, crossing = _Path(), list[float]()
    for share, high, low in zip(shares, upper, lower or [-math.inf] * len(shares), strict=True):
        root = math.sqrt(share)
        crossing.append(path.beyond(share, high * root) + path.below(share, low * root))
        path = path.advanced(share, low * root, high * root)
    return crossing


def sequence_width(share: float, alpha: float) -> float:
    """Return the half-width of a one-sided asymptotic confidence sequence, in standard errors of the mean.

    With r = t ρ², t observations: √(2 (r + 1)/r · ln(1 + √(r + 1)/(2 alpha))) (Waudby-Smith, Arbour, Sinha, Kennedy and
    Ramdas 2024, Annals of Statistics 52, appendix on one-sided sequences). ρ makes it narrowest at `TIGHTEST_SHARE` of
    the planned sample, by the approximation of the same paper, ρ² t = −2 ln(2 alpha) + ln(−2 ln(2 alpha)) + 1 for a
    one-sided alpha.

    Args:
        share: Share of the planned sample; may exceed 1, because a confidence sequence has no last look.
        alpha: One-sided error over all looks, below 0.5.
    """
    log = -2 * math.log(2 * alpha)
    r = share / TIGHTEST_SHARE * (log + math.log(max(log, 1e-12)) + 1 if log > 0.5 else 0.5)
    return math.sqrt(2 * (r + 1) / r * math.log1p(math.sqrt(r + 1) / (2 * alpha)))


def _excess(path: _Path, share: float, step: float, bound: float) -> float:
    return path.beyond(share, bound) - step


def skewness_of_mean(x: Array) -> float:
    """Return the skewness of observations divided by √n: that of their mean; 0 if they do not vary."""
    deviations = x - x.mean()
    variance = float((deviations**2).mean())
    return float((deviations**3).mean()) / variance**1.5 / math.sqrt(len(x)) if variance > 0 else 0.0


def corrected_statistic(t: Array, skewness: Array) -> Array:
    """Return the smaller of t and t + a t²/3 + a² t³/27 + a/6 (Hall 1992, J. R. Stat. Soc. B 54, 221), a: `skewness`.

    Args:
        t: Statistics (mean − value)/standard error, large if the mean is above the value.
        skewness: Result of `skewness_of_mean`.
    """
    hall = t + skewness * (t**2 / 3 + 1 / 6) + skewness**2 * t**3 / 27
    return np.minimum(t, hall)


def corrected_quantile(q: float, skewness: float) -> float:
    """Return the t at which `corrected_statistic` is q, so that mean − t × standard error is a lower limit."""
    if skewness == 0:
        return q
    return max(q, 3 / skewness * (float(np.cbrt(1 + skewness * (q - skewness / 6))) - 1))


class _Path:
    """The distribution of a standard Brownian motion at `share` on paths that were inside all bounds so far."""

    def __init__(self, share: float = 0.0, nodes: Array | None = None, mass: Array | None = None) -> None:
        self.share = share
        self._nodes = np.zeros(1) if nodes is None else nodes
        self._mass = np.ones(1) if mass is None else mass  # density times quadrature weight

    def beyond(self, share: float, bound: float) -> float:
        """Return the probability to be above `bound` at a later share."""
        from scipy.special import ndtr

        return float(self._mass @ ndtr((self._nodes - bound) / math.sqrt(share - self.share)))

    def below(self, share: float, bound: float) -> float:
        """Return the probability to be below `bound` at a later share."""
        from scipy.special import ndtr

        return float(self._mass @ ndtr((bound - self._nodes) / math.sqrt(share - self.share)))

    def advanced(self, share: float, low: float, high: float) -> _Path:
        """Return the distribution at a later share, inside `low` and `high`."""
        step = math.sqrt(share - self.share)
        edge = _TAIL_SD * math.sqrt(share)
        low, high = max(low, -edge), min(high, edge)
        count = int(np.clip(_NODES_PER_SD * (high - low) / step, _LEAST_NODES, _MOST_NODES))
        points, weights = _quadrature(count)
        nodes = (low + high) / 2 + (high - low) / 2 * points
        kernel = np.exp(-(((nodes[:, None] - self._nodes) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        return _Path(share, nodes, (kernel @ self._mass) * weights * (high - low) / 2)


@lru_cache(maxsize=64)
def _quadrature(count: int) -> tuple[Array, Array]:
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights


def _require_shares(shares: Sequence[float]) -> None:
    if not shares or min(shares) <= 0 or max(shares) > 1 or any(a >= b for a, b in pairwise(shares)):
        raise UsageError(f"looks at the shares {list(shares)}: give shares that increase from above 0 to at most 1")
