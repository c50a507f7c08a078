"""Scores in JOD from counts of choices: Thurstone's Case V, and Bradley-Terry as a cross-check.

    P(i is preferred to j) = F(q_i − q_j),   F(1) = 0.75        1 JOD: 75 of 100 choose the better picture

F is a normal distribution for Thurstone and a logistic one for Bradley-Terry. The scores maximise

    Σ wins_ij ln F(q_i − q_j) − Σ q_i² / (2 s²),   s = `PRIOR_SD_JOD`

A tie counts as half a win for each side. The prior keeps an arm that won all its comparisons at a finite score. Pérez-
Ortiz and Mantiuk (A practical guide and software for analysing pairwise comparison experiments, 2017) put a prior on
the distances; a normal one on the scores does the same and keeps the problem concave, so that it has one solution,
which Newton's method finds. The scores have mean 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Model = Literal["thurstone", "bradley-terry"]

PRIOR_SD_JOD = 4.0
# slopes of the argument of F: Φ⁻¹(0.75), and logit(0.75)
_SLOPES: dict[Model, float] = {"thurstone": 0.6744897501960817, "bradley-terry": 1.0986122886681098}
_ROUNDS, _LONGEST_STEP, _CONVERGED = 100, 3.0, 1e-7
_CHUNK = 2**16  # numbers in an array of pairs


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """Logarithm of F, its derivative and its negative second derivative, by pair."""

    value: Array
    slope: Array
    curvature: Array


def log_chance(difference: Array, model: Model = "thurstone") -> Array:
    """Return ln P(preferred) for differences in JOD."""
    return _terms(difference, model).value


def predicted(difference: Array, variance: Array) -> Array:
    """Return the differences that give the mean chance of uncertain ones, for Thurstone's model; all in JOD."""
    return np.asarray(difference / np.sqrt(1 + _SLOPES["thurstone"] ** 2 * variance))


def log_slope(difference: Array, model: Model = "thurstone") -> Array:
    """Return the derivative of `log_chance`."""
    return _terms(difference, model).slope


def chance(difference: Array, model: Model = "thurstone") -> Array:
    """Return P(preferred) for differences in JOD."""
    from scipy.special import expit, ndtr

    distribution = ndtr if model == "thurstone" else expit
    return np.asarray(distribution(_SLOPES[model] * np.asarray(difference)), np.float64)


def scores(
    wins: Array,
    *,
    model: Model = "thurstone",
    prior_sd: float = PRIOR_SD_JOD,
    centre: Array | None = None,
    start: Array | None = None,
) -> Array:
    """Return the scores of many data sets at once.

    Args:
        wins: (sets, arms, arms) how often row was preferred to column; may hold fractions.
        model: Distribution of the choices.
        prior_sd: Standard deviation of the prior in JOD.
        centre: (arms,) means of the prior; 0 by default.
        start: (arms,) scores near the solution, which saves time.

    Returns:
        (sets, arms) scores in JOD; with the default prior, each set has mean 0.
    """
    count = max(1, _CHUNK // max(1, wins.shape[1] ** 2))
    parts = [_solve(wins[i : i + count], model, prior_sd, centre, start) for i in range(0, len(wins), count)]
    return np.concatenate(parts) if parts else np.empty(wins.shape[:2])


def gradient(wins: Array, at: Array, model: Model = "thurstone") -> Array:
    """Return the gradient of the log-likelihood, without the prior: (sets, arms) for wins (sets, arms, arms)."""
    return _derivatives(wins, at, model)[0]


def information(wins: Array, at: Array, model: Model = "thurstone", prior_sd: float = PRIOR_SD_JOD) -> Array:
    """Return minus the Hessian of the log-posterior: (sets, arms, arms)."""
    return _with_prior(_derivatives(wins, at, model)[1], prior_sd**-2)


def _solve(wins: Array, model: Model, prior_sd: float, centre: Array | None, start: Array | None) -> Array:
    middle = np.zeros(wins.shape[-1]) if centre is None else centre
    at = np.broadcast_to(middle if start is None else start, wins.shape[:2]).copy()
    precision = prior_sd**-2
    for _ in range(_ROUNDS):
        upward, pairs = _derivatives(wins, at, model)
        matrix = _with_prior(pairs, precision)
        step = np.linalg.solve(matrix, (upward - (at - middle) * precision)[..., None])[..., 0]
        longest = np.abs(step).max(-1, keepdims=True, initial=0.0)
        at += step * np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, 1e-300))
        if longest.max(initial=0.0) < _CONVERGED:  # Newton's method squares it in the next step
            break
    return at


def _derivatives(wins: Array, at: Array, model: Model) -> tuple[Array, Array]:
    """Gradient of the log-likelihood (sets, arms), and its negative second derivatives by pair (sets, arms, arms)."""
    terms = _terms(at[..., :, None] - at[..., None, :], model)
    slope, pairs = wins * terms.slope, wins * terms.curvature
    return np.asarray(slope.sum(-1) - slope.sum(-2)), np.asarray(pairs + np.swapaxes(pairs, -1, -2))


def _with_prior(pairs: Array, precision: float) -> Array:
    return np.asarray((pairs.sum(-1) + precision)[..., None] * np.eye(pairs.shape[-1]) - pairs)


def _terms(difference: Array, model: Model) -> _Terms:
    from scipy.special import expit, log_ndtr

    slope = _SLOPES[model]
    x = slope * np.asarray(difference, np.float64)
    if model == "bradley-terry":
        other = expit(-x)
        return _Terms(-np.logaddexp(0.0, -x), slope * other, slope**2 * other * (1 - other))
    value = log_ndtr(x)
    ratio = np.exp(-0.5 * x**2 - 0.5 * np.log(2 * np.pi) - value)
    return _Terms(value, slope * ratio, slope**2 * ratio * (ratio + x))
