"""A straight line through what images cost: joules (or seconds) of an image of N steps are a + b · N.

The same work is done once more with every step, so the line is more than a convenience: GPU energy follows the count of
operations with R² > 0.9 within an architecture (arXiv:2511.17031).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def fit_line(steps: NDArray[np.generic], values: Array) -> tuple[float, float]:
    """(a, b) of a + b · steps by least squares; steps and values (n,).

    Relative errors have equal weight, so that expensive rungs do not dominate.
    """
    base, step = np.linalg.lstsq(_design(steps, values), np.ones(len(steps)), rcond=None)[0]
    return float(base), float(step)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Line:
    """A fitted line and how well it is known.

    Attributes:
        base: At 0 steps.
        step: Per step.
        covariance: (2, 2) of base and step.
        freedom: Degrees of freedom that the scatter rests on; 0 where the line goes through the points by force.
    """

    base: float
    step: float
    covariance: Array
    freedom: int

    def at(self, steps: float) -> float:
        """The line at so many steps."""
        return self.base + self.step * steps

    def half_width(self, steps: float, level: float) -> float:
        """Half the confidence interval of the line at so many steps, by Student's t; infinite without freedom."""
        if not self.freedom:
            return float("inf")
        from scipy.special import stdtrit

        place = np.array([1.0, steps])
        return float(stdtrit(self.freedom, (1 + level) / 2) * np.sqrt(place @ self.covariance @ place))


def line_through(steps: NDArray[np.generic], values: Array) -> Line:
    """`fit_line` with its covariance; a line whose base would be below 0 is drawn through the origin instead.

    Args:
        steps: (n,) with at least two different counts.
        values: (n,) above 0.
    """
    design, target = _design(steps, values), np.ones(len(steps))
    base, step = fit_line(steps, values)
    columns = [0, 1] if base >= 0 else [1]
    design = design[:, columns]
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    freedom = len(steps) - len(columns)
    rest = target - design @ solution
    scatter = float(rest @ rest) / freedom if freedom else 0.0
    covariance = np.zeros((2, 2))
    covariance[np.ix_(columns, columns)] = scatter * np.linalg.inv(design.T @ design)
    base, step = (float(solution[0]), float(solution[1])) if len(columns) == 2 else (0.0, float(solution[0]))
    return Line(base=base, step=step, covariance=covariance, freedom=freedom)


def _design(steps: NDArray[np.generic], values: Array) -> Array:
    """Rows of (1, steps), each divided by its value."""
    return np.asarray(np.stack([np.ones(len(steps)), np.asarray(steps, np.float64)], axis=1) / values[:, None])
