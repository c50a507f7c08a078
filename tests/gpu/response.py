"""Lag and averaging time of an energy counter, fitted to its updates while work goes on and off.

The rise of the counter between two updates is  E_k = rest_w · dt_k + (work_w − rest_w) · s_k,  where s_k is the time at
work in that interval as the sensor sees it: `lag_s` late, and averaged over the last `box_s`. For each pair of lag and
box both powers follow by linear least squares; the pair with the smallest residual is the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LAGS_S = np.arange(-0.02, 0.301, 0.0025)
BOXES_S = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Response of a counter; `residual_j` is the RMS residual per update, `delay_s` the mean delay."""

    lag_s: float
    box_s: float
    rest_w: float
    work_w: float
    residual_j: float

    @property
    def delay_s(self) -> float:
        return self.lag_s + self.box_s / 2


def fit_response(updates: list[tuple[float, float, float]], at_work: list[tuple[float, float]]) -> Response | None:
    """Fit the response; None with fewer than eight updates.

    Args:
        updates: (earliest, latest time, counter in mJ).
        at_work: (begin, end) of each piece of work.
    """
    if len(updates) < 8 or not at_work:
        return None
    rows = np.array(updates, dtype=float)
    times, energy_j = rows[:, :2].mean(axis=1), rows[:, 2] / 1000
    begins, ends = np.array(at_work, dtype=float).T
    gaps, rises = np.diff(times), np.diff(energy_j)
    best: Response | None = None
    for box_s in BOXES_S:
        for lag_s in LAGS_S:
            basis = np.stack([gaps, np.diff(_seen(times - lag_s, box_s, begins, ends - begins))], axis=1)
            powers, *_ = np.linalg.lstsq(basis, rises, rcond=None)
            residual_j = float(np.sqrt(np.mean((basis @ powers - rises) ** 2)))
            if best is None or residual_j < best.residual_j:
                best = Response(
                    lag_s=float(lag_s), box_s=box_s, rest_w=float(powers[0]), work_w=float(powers.sum()),
                    residual_j=residual_j,
                )  # fmt: skip
    return best


def _seen(times: Any, box_s: float, begins: Any, lengths: Any) -> Any:
    """Time at work until each time, averaged over the box before it."""
    if box_s == 0:
        return np.clip(times[:, None] - begins, 0, lengths).sum(axis=1)
    return (_integral(times, begins, lengths) - _integral(times - box_s, begins, lengths)) / box_s


def _integral(times: Any, begins: Any, lengths: Any) -> Any:
    """Integral over time of the time at work so far."""
    past = np.clip(times[:, None] - begins, 0, None)
    return (np.minimum(past, lengths) ** 2 / 2 + lengths * np.clip(past - lengths, 0, None)).sum(axis=1)
