"""Fits a profile: which joules per FLOP, byte, operator and call explain measured energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perjoule.errors import MeterError
from perjoule.types import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_POINTS = 4
T_QUANTILE = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFit:
    """Result of a fit.

    Attributes:
        coefficients: Joules per FLOP, byte, operator and call, none of them negative.
        r_squared: Share of the variance of the energies that they explain.
        worst: Largest relative residual.
        held_out: 95 % of relative residuals of points that were left out of the fit are below this, assuming that they
            are normally distributed.
        points: Number of points.
    """

    coefficients: tuple[float, float, float, float]
    r_squared: float
    worst: float
    held_out: float
    points: int


def fit_work(works: Sequence[Work], energies_j: Sequence[float]) -> WorkFit:
    """Fit by least squares of relative residuals, with coefficients of at least 0.

    Args:
        works: Counted work, one per point.
        energies_j: Energy of each, in J.

    Raises:
        MeterError: There are too few points, or all of them have the same work.
    """
    features = np.array([[w.flops, w.bytes_moved, w.operators, w.calls] for w in works], dtype=float).reshape(-1, 4)
    energies = np.array(energies_j, dtype=float)
    distinct = len(np.unique(features, axis=0))
    if distinct < LEAST_POINTS:
        raise MeterError(
            f"a profile needs at least {LEAST_POINTS} different amounts of work, there are {distinct}: measure more "
            "step counts, batch sizes or models"
        )
    coefficients = _least_squares(features, energies)
    residuals = features @ coefficients / energies - 1
    spread = float(((energies - energies.mean()) ** 2).sum())
    left = [_left_out(features, energies, i) for i in range(len(energies))]
    flops, moved, operators, calls = (float(one) for one in coefficients)
    return WorkFit(
        coefficients=(flops, moved, operators, calls),
        r_squared=1 - float(((features @ coefficients - energies) ** 2).sum()) / spread if spread else 1.0,
        worst=float(np.abs(residuals).max()),
        held_out=T_QUANTILE * float(np.sqrt(np.mean(np.square(left)))),
        points=len(energies),
    )


def _least_squares(features: Floats, energies: Floats) -> Floats:
    from scipy.optimize import nnls

    scale = np.maximum(features.max(axis=0), 1.0)
    solution: Floats = nnls(features / scale / energies[:, None], np.ones(len(energies)))[0] / scale
    return solution


def _left_out(features: Floats, energies: Floats, index: int) -> float:
    """Return the relative residual of one point by a fit of all points with other work."""
    others = (features != features[index]).any(axis=1)
    return float(features[index] @ _least_squares(features[others], energies[others]) / energies[index] - 1)
