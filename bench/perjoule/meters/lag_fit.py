"""Fits lag and box of a counter to its refreshes around steps of work, by generalised least squares.

Between two refreshes a counter counts  rest * time + (work - rest) * time at work,  both late by its lag and averaged
over its box. Four more terms follow the board: it rests at a higher power from its first work on, comes down to that
after each work, and falls more slowly than it rises. All are linear in unknown powers, so only lag and box are
searched for.

Refreshes far from a step show only the delay, lag + box / 2. So intervals follow from the best delay for each box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cholesky_banded, solve_banded
from scipy.optimize import brentq, minimize, minimize_scalar

from perjoule.types import Edge, IdlePower

Interval = tuple[float, float]

LAGS_S, BOXES_S = (0.0, 0.2, 11), (0.0, 1.25, 26)  # first, last and number of tried values
COARSE_S = 0.05  # between the refreshes that are used then
STARTS = 3  # best of these, from which the fit is refined
SIMPLEX_S = ((0.0, 0.0), (0.01, 0.0), (0.0, 0.025))  # around each of them
NEAR_S = 0.02  # of a delay, where that of another box is searched for
FALL_S = 0.006  # after work, in which a board draws more power than it lacks while it rises
SETTLES_S = (0.15, 0.6)  # time constants of a rest that comes down after work
FINE_S = 1e-4  # precision of delays and boxes
GRID_S = 2e-4  # between the times at which integrals are computed, for interpolation
LASTING_S = 0.2  # for which a deviation of power may last
LEAST_S = 2e-4  # width of an edge at least, because its fit is no finer
UNLIKELY = 10.0  # twice the log of the likelihood ratio from which on a box is excluded: 99.8 %


class StepResponse:
    """Refreshes of a counter around steps of work, to be fitted with a lag and a box."""

    def __init__(self, edges: Sequence[Edge], work: Sequence[tuple[float, float]], idle: IdlePower) -> None:
        """Take refreshes, times of work in s, and the power at rest before them."""
        self._edges, self._work, self._idle = edges, work, idle
        self._t_s = np.array([edge.at_s for edge in edges])
        self._energy_j = np.diff([edge.energy_j for edge in edges])
        self._covariance = _covariance(edges, self._energy_j, idle)
        self._right = self._whiten(self._energy_j)
        self._begun_s = work[0][0] - GRID_S
        grid_s = np.arange(self._begun_s, max(self._t_s[-1], work[-1][1]) + 2 * GRID_S, GRID_S)
        self._once, self._twice = _integrals(grid_s, work)

    def misfit(self, lag_s: float, box_s: float) -> float:
        """Return the sum of squares of the deviations from the best fit, in units of their expected errors."""
        return float(np.sum(self._deviations(lag_s, box_s) ** 2))

    def _deviations(self, lag_s: float, box_s: float) -> np.ndarray:
        left = self._whiten(self._columns(lag_s, box_s))
        powers = np.linalg.lstsq(left, self._right, rcond=None)[0]
        deviations: np.ndarray = left @ powers - self._right
        return deviations

    def deviation(self, lag_s: float, box_s: float) -> tuple[float, float]:
        """Return the deviation of the energies between refreshes (rms) in J, and the power of the work in W."""
        columns = self._columns(lag_s, box_s)
        powers = np.linalg.lstsq(self._whiten(columns), self._right, rcond=None)[0]
        return float(np.sqrt(np.mean((columns @ powers - self._energy_j) ** 2))), float(powers[1])

    def best(self) -> tuple[float, float]:
        """Return the lag and the box that fit best."""
        every = max(round(COARSE_S * (len(self._t_s) - 1) / (self._t_s[-1] - self._t_s[0])), 1)
        coarse = StepResponse(self._edges[::every], self._work, self._idle) if every > 1 else self
        grid = sorted(
            (coarse.misfit(lag_s, box_s), lag_s, box_s)
            for lag_s in np.linspace(*LAGS_S)
            for box_s in np.linspace(*BOXES_S)
        )
        tries = [
            minimize(
                lambda x: self.misfit(abs(x[0]), abs(x[1])),
                start,
                method="Nelder-Mead",
                options={"xatol": FINE_S, "fatol": 1e-2, "initial_simplex": np.array(start) + SIMPLEX_S},
            )
            for _, *start in grid[:STARTS]
        ]
        lag_s, box_s = np.abs(min(tries, key=lambda one: float(one.fun)).x)
        return float(lag_s), float(box_s)

    def intervals(self, lag_s: float, box_s: float) -> tuple[Interval, Interval]:
        """Return the intervals of lags and boxes that fit almost as well as the best ones."""
        delay_s = lag_s + box_s / 2
        least = self._profile(box_s, delay_s)[0]
        limit = least + UNLIKELY * self._excess(lag_s, box_s)

        def beyond(some_s: float) -> float:
            return self._profile(some_s, delay_s)[0] - limit

        low_s = 0.0 if beyond(0.0) <= 0 else float(brentq(beyond, 0.0, box_s, xtol=FINE_S))
        high_s = box_s + NEAR_S
        while high_s < BOXES_S[1] and beyond(high_s) <= 0:
            high_s += NEAR_S
        high_s = float(brentq(beyond, box_s, high_s, xtol=FINE_S)) if beyond(high_s) > 0 else high_s
        lags_s = [lag_s, *(self._profile(one_s, delay_s)[1] for one_s in (high_s, low_s))]
        return (min(lags_s), max(lags_s)), (low_s, high_s)

    def _excess(self, lag_s: float, box_s: float) -> float:
        """Return by how much the squares of the deviations exceed those of the expected errors; at least 1.

        Deviations that last longer than an update period, as those of power do, count for more than their squares.
        """
        deviations = self._deviations(lag_s, box_s)
        together = max(round(LASTING_S / (self._t_s[1:] - self._t_s[:-1]).mean()), 1)
        sums = np.add.reduceat(deviations, np.arange(0, len(deviations), together))
        free = len(deviations) - self._once.shape[1] - 3  # rest, lag and box
        return float(max(np.sum(deviations**2) / free, np.sum(sums**2) / free, 1.0))

    def _profile(self, box_s: float, near_s: float) -> tuple[float, float]:
        """Return misfit and lag of the best fit with that box, with a delay near the given one."""
        low_s = max(near_s - NEAR_S - box_s / 2, 0.0)
        found = minimize_scalar(
            lambda lag_s: self.misfit(lag_s, box_s),
            bounds=(low_s, max(near_s - box_s / 2, low_s) + NEAR_S),
            method="bounded",
            options={"xatol": FINE_S},
        )
        return float(found.fun), float(found.x)

    def _columns(self, lag_s: float, box_s: float) -> np.ndarray:
        """Return what a unit of each unknown contributes to the energies between refreshes."""
        end_s = self._t_s - lag_s
        if box_s < FINE_S:
            taken = self._at(self._once, end_s)
        else:
            taken = (self._at(self._twice, end_s) - self._at(self._twice, end_s - box_s)) / box_s
        return np.diff(np.column_stack([self._t_s, taken]), axis=0)

    def _at(self, integrals: np.ndarray, t_s: np.ndarray) -> np.ndarray:
        """Return interpolated integrals."""
        place = np.clip((t_s - self._begun_s) / GRID_S, 0.0, len(integrals) - 1.001)
        low = place.astype(int)
        share = (place - low)[:, None]
        interpolated: np.ndarray = integrals[low] * (1 - share) + integrals[low + 1] * share
        return interpolated

    def _whiten(self, values: np.ndarray) -> np.ndarray:
        """Return values whose errors are equal and independent."""
        whitened: np.ndarray = solve_banded((1, 0), self._covariance, values)
        return whitened


def _integrals(t_s: np.ndarray, work: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the integral of each term over time, until each of some times, and the integral of that."""
    once, twice = np.zeros((2, len(t_s), 3 + len(SETTLES_S)))
    once[:, 1] = np.maximum(t_s - work[0][0], 0.0)
    twice[:, 1] = once[:, 1] ** 2 / 2
    begins_s = [begin_s for begin_s, _ in work]
    for (begin_s, end_s), next_s in zip(work, [*begins_s[1:], np.inf], strict=True):
        working_s, after_s = np.maximum(t_s - begin_s, 0.0), np.maximum(t_s - end_s, 0.0)
        once[:, 0] += working_s - after_s
        twice[:, 0] += (working_s**2 - after_s**2) / 2
        falling_s = np.minimum(after_s, FALL_S)
        once[:, 2] += falling_s
        twice[:, 2] += falling_s * (after_s - falling_s / 2)
        resting_s = np.minimum(after_s, next_s - end_s)
        for number, settle_s in enumerate(SETTLES_S, start=3):
            settled_s = settle_s * -np.expm1(-resting_s / settle_s)
            once[:, number] += settled_s
            twice[:, number] += settle_s * (resting_s - settled_s) + settled_s * (after_s - resting_s)
    return once, twice


def _covariance(edges: Sequence[Edge], energy_j: np.ndarray, idle: IdlePower) -> np.ndarray:
    """Return the lower factor of the covariance of the energies between refreshes, as bands.

    The time of a refresh is known to the width of its edge, and belongs to two of the energies. The power itself varies
    as it did at rest.
    """
    t_s, widths_s = np.array([(edge.at_s, edge.width_s) for edge in edges]).T
    gaps_s = np.diff(t_s)
    powers_w = energy_j / gaps_s
    highest_w = np.maximum(np.append(powers_w, 0.0), np.append(0.0, powers_w))
    read = (highest_w * np.maximum(widths_s, LEAST_S)) ** 2 / 12
    bands = np.stack([(idle.spread_w * gaps_s) ** 2 + read[1:] + read[:-1], np.append(-read[1:-1], 0.0)])
    factor: np.ndarray = cholesky_banded(bands, lower=True)
    return factor
