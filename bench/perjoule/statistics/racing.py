"""Racing: a cell that is surely dominated gets no further prompts.

A race measures prompts in rounds, the same prompts for all cells that remain. After each round (a *look*) every cell c
is compared with every other cell d, prompt by prompt, and c is dropped if d is surely cheaper and surely better:

    H_E: E(c) ≤ E(d)   differences E_i(c) − E_i(d) of window groups i      one-sided t, p_E
    H_Q: Q(c) ≥ Q(d)   differences Q_i(d) − Q_i(c) of prompts i            one-sided t, p_Q
    dropped if max(p_E, p_Q) < α / (looks · cells · (cells − 1))

A cell of the true frontier satisfies H_E or H_Q against every d, so the larger p-value is a test of "d does not
dominate c" (intersection-union test; Berger, Technometrics 24, 1982). Bonferroni's inequality over all ordered pairs of
cells and all looks then keeps the chance that a race drops any cell of the true frontier below α.

The t statistic gets one imagined unit more: one that lies as far on the other side as the farthest that was seen. A
difference that is the same for all of a few prompts has no scatter, and would be sure after three of them; with the
imagined unit n equal differences give t = (n − 1)/2. So no cell is dropped before about a dozen prompts.

Energies are not logarithms here: the frontier compares means of J/image, and so does the race.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.resampling import Array

ALPHA = 0.05
# prompts before the first look: with fewer, not even equal differences are sure
FIRST_LOOK = 12
_GROWTH = 1.5
# a look is worth its scoring only if dropped cells then save this share of their prompts
_LEAST_LEFT = 0.2
_EQUAL = 1e-12


def look_prompts(prompts: int, per_window: int = 1) -> tuple[int, ...]:
    """After how many prompts the cells are compared: 12, and then 1.5 times as many each time, in whole windows.

    Empty if there are too few prompts for a race.

    Args:
        prompts: Prompts of the run.
        per_window: Images per window; prompts that share windows belong to one round.
    """
    looks: list[int] = []
    wanted = float(FIRST_LOOK)
    while (at := -(-int(np.ceil(wanted)) // per_window) * per_window) <= (1 - _LEAST_LEFT) * prompts:
        if not looks or at > looks[-1]:
            looks.append(at)
        wanted *= _GROWTH
    return tuple(looks)


def level_of(alpha: float, looks: int, cells: int) -> float:
    """Level of a single comparison: Bonferroni over looks and ordered pairs of cells."""
    return alpha / (max(looks, 1) * max(cells * (cells - 1), 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Domination:
    """A cell and the cell that surely dominates it, by their columns, with both differences (cell minus the other)."""

    column: int
    by: int
    energy_difference_j: float
    quality_difference: float
    p_value: float


def dominations(
    energy_j: Array,
    quality: Array,
    level: float,
    *,
    families: NDArray[np.str_] | None = None,
    exact_energy: bool = False,
) -> tuple[Domination, ...]:
    """Every cell that another one surely dominates, with the one that does so most surely.

    Args:
        energy_j: (window groups, cells) J/image; NaN where there is none.
        quality: (prompts, cells), higher is better; NaN where there is none.
        level: Largest p-value, see `level_of`.
        families: (cells,) labels; only cells of one family are compared. None compares all.
        exact_energy: True if joules were counted: an energy difference that is the same everywhere is then known.
    """
    p_values = np.maximum(p_not_above(energy_j, exact=exact_energy), p_not_above(-quality))
    if families is not None:
        p_values = np.where(np.asarray(families)[:, None] == np.asarray(families), p_values, 1.0)
    found = []
    for column, row in enumerate(p_values):
        by = int(row.argmin())
        if row[by] < level:
            found.append(
                Domination(
                    column=column,
                    by=by,
                    energy_difference_j=_mean_difference(energy_j, column, by),
                    quality_difference=_mean_difference(quality, column, by),
                    p_value=float(row[by]),
                )
            )
    return tuple(found)


def p_not_above(values: Array, *, exact: bool = False) -> Array:
    """(units, cells) -> (cells, cells) one-sided p-values for "the mean of the row's cell is not above the column's".

    Student's t of the paired differences with the imagined unit, see the module; 1 for fewer than two common units, and
    where all differences are 0. With `exact`, differences that are all equal are known, and those of 0 count as above.
    """
    from scipy.special import stdtr

    cells = values.shape[1]
    p_values = np.ones((cells, cells))
    for cell in range(cells):
        difference = values[:, [cell]] - values
        known = np.isfinite(difference)
        n = known.sum(0)
        difference = np.where(known, difference, 0.0)
        farthest = np.abs(difference).max(0, initial=0.0)
        mean = (difference.sum(0) - farthest) / (n + 1)
        squares = (difference**2).sum(0) + farthest**2
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.sqrt(np.maximum(squares - (n + 1) * mean**2, 0.0) / n / (n + 1))
            p_values[cell] = np.where((n > 1) & (error > 0), stdtr(np.maximum(n - 1, 1), -mean / error), 1.0)
        if exact:
            highest = np.where(known, difference, -np.inf).max(0, initial=-np.inf)
            lowest = np.where(known, difference, np.inf).min(0, initial=np.inf)
            scale = np.nanmax(np.abs(values), initial=0.0)
            same = (n > 0) & (highest - lowest <= _EQUAL * scale)
            p_values[cell] = np.where(same, np.where(lowest >= -_EQUAL * scale, 0.0, 1.0), p_values[cell])
    np.fill_diagonal(p_values, 1.0)
    return p_values


def _mean_difference(values: Array, one: int, other: int) -> float:
    return float(np.nanmean(values[:, one] - values[:, other]))
