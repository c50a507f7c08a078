"""A line through pairs of powers whose errors drift, with 95 % intervals.

    external = level + gain * (reading - centre) + shift * slope + error

The error has three parts: noise of each point, a drift whose correlation falls to 1/e within some time, and an error
that is constant during a visit to a level of power. How large they are and how long drift lasts is unknown and hardly
shown by one recording, so the line is fitted with each of many combinations, and the results are averaged with the
probability of the points under each (restricted likelihood, equal prior weights). The sizes are relative to the noise,
whose own size is estimated, so nothing here depends on the board.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRIFT_RATIOS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)  # variance of drift over that of a point's noise
VISIT_RATIOS = (0.0, 1.0, 5.0, 25.0)  # of errors of visits; three visits cannot exclude large ones
LONGEST_DRIFT = 3.0  # of the recording; what lasts longer looks constant in it
DRIFT_TIMES = 6
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Means over steady stretches, in order of time.

    Attributes:
        reading_w: Board.
        external_w: External meter.
        slope_w: Change of the external power if the logs were shifted by a refresh; 0 where power is constant.
        t_s: Middle of the stretch.
        visit: Number of the uninterrupted visit to a level of power.
        size: Number of stretches that were merged into the point.
    """

    reading_w: Floats
    external_w: Floats
    slope_w: Floats
    t_s: Floats
    visit: Floats
    size: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PlusMinus:
    """A value and the half width of its 95 % interval."""

    value: float
    half: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + self.half


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The fitted line: `level` is the external power at a reading of `centre_w`."""

    gain: PlusMinus
    offset_w: PlusMinus
    level_w: PlusMinus
    centre_w: float
    residual_w: float


def fit_line(points: Points) -> Line:
    """Return the line. Raises ValueError if the points do not determine it."""
    centre_w = float(points.reading_w.mean())
    design = np.column_stack([np.ones_like(points.t_s), points.reading_w - centre_w])
    steepest_w = np.abs(points.slope_w).max()
    if steepest_w > 0 and len(points.t_s) > 4:
        design = np.column_stack([design, points.slope_w / steepest_w])
    count, unknowns = design.shape
    if count <= unknowns or np.linalg.matrix_rank(design) < unknowns:
        raise ValueError(f"{count} points do not determine {unknowns} unknowns")
    roots = np.linalg.cholesky(_covariances(points))
    table = np.broadcast_to(np.column_stack([design, points.external_w]), (len(roots), count, unknowns + 1))
    white = np.linalg.solve(roots, table)
    left, right = white[..., :unknowns], white[..., unknowns]
    normal = left.swapaxes(1, 2) @ left
    values = np.linalg.solve(normal, left.swapaxes(1, 2) @ right[..., None])[..., 0]
    squares = ((right - (left @ values[..., None])[..., 0]) ** 2).sum(axis=1)
    squares = np.maximum(squares, 1e-12 * float(np.ptp(points.external_w)) ** 2)  # the digits of a made-up log
    free = count - unknowns
    log_weights = -np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
    log_weights -= np.linalg.slogdet(normal)[1] / 2 + free / 2 * np.log(squares)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    covariances = np.linalg.inv(normal) * (squares / free)[:, None, None]

    def estimate(*direction: float) -> PlusMinus:
        vector = np.zeros(unknowns)
        vector[: len(direction)] = direction
        spreads = np.sqrt(np.einsum("i,kij,j->k", vector, covariances, vector))
        return _interval(weights, values @ vector, spreads, free)

    best = values[weights.argmax(), :2]
    return Line(
        gain=estimate(0.0, 1.0),
        offset_w=estimate(1.0, -centre_w),
        level_w=estimate(1.0),
        centre_w=centre_w,
        residual_w=float((points.external_w - design[:, :2] @ best).std()),
    )


def _covariances(points: Points) -> Floats:
    """Return the covariance of the points under each combination, in units of the noise of one stretch."""
    noise = np.diag(1 / points.size)
    visits = (points.visit[:, None] == points.visit).astype(float)
    apart_s = np.abs(points.t_s[:, None] - points.t_s)
    shortest_s, longest_s = float(np.diff(points.t_s).min()), LONGEST_DRIFT * float(np.ptp(points.t_s))
    drifts = [np.exp(-apart_s / lasts_s) for lasts_s in np.geomspace(shortest_s, longest_s, DRIFT_TIMES)]
    combined = [noise + ratio * drift for ratio in DRIFT_RATIOS for drift in (drifts if ratio else drifts[:1])]
    return np.array([each + ratio * visits for ratio in VISIT_RATIOS for each in combined])


def _interval(weights: Floats, values: Floats, spreads: Floats, free: int) -> PlusMinus:
    """Return mean and half width of the shortest symmetric interval of a mixture of t distributions."""
    from scipy.optimize import brentq
    from scipy.stats import t as student

    middle = float(weights @ values)

    def missing(half: float) -> float:
        above, below = (middle + half - values) / spreads, (middle - half - values) / spreads
        return float(weights @ (student.cdf(above, free) - student.cdf(below, free))) - LEVEL

    widest = float(student.ppf(1 - (1 - LEVEL) / 4, free) * spreads.max() + np.abs(values - middle).max())
    return PlusMinus(value=middle, half=float(brentq(missing, 0.0, 2 * widest)))
