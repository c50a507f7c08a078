"""Pareto frontier and hypervolume in the plane of (energy, quality)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def non_dominated(energy: NDArray[np.float64], quality: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other point beats in both energy (lower) and quality (higher).

    Args:
        energy: (..., n), finite or NaN.
        quality: (..., n), higher is better; points with NaN in either are never on the frontier.

    Returns:
        (..., n) bool. Of identical points all are on the frontier.
    """
    e, q = energy[..., :, None], quality[..., :, None]
    other_e, other_q = energy[..., None, :], quality[..., None, :]
    with np.errstate(invalid="ignore"):
        beaten = ((other_e <= e) & (other_q >= q) & ((other_e < e) | (other_q > q))).any(-1)
    return np.asarray(~beaten & np.isfinite(energy) & np.isfinite(quality))


def hypervolume(energy: NDArray[np.float64], quality: NDArray[np.float64], reference: tuple[float, float]) -> float:
    """Area that the points dominate up to a reference, energy on a log2 axis. -> quality units × octaves.

    Args:
        energy: (n,) joules.
        quality: (n,), higher is better.
        reference: (joules, quality); points beyond it contribute nothing.
    """
    return float(hypervolume_rows(energy[None], quality[None], reference)[0])


def hypervolume_rows(
    energy: NDArray[np.float64], quality: NDArray[np.float64], reference: tuple[float, float]
) -> NDArray[np.float64]:
    """`hypervolume` of each row: (rows, n) -> (rows,)."""
    worst_e, worst_q = np.log2(reference[0]), reference[1]
    with np.errstate(invalid="ignore"):
        x = np.log2(energy)
        inside = np.isfinite(x) & np.isfinite(quality) & (x < worst_e) & (quality > worst_q)
    order = np.argsort(np.where(inside, x, np.inf), axis=1)
    left = np.take_along_axis(np.where(inside, x, worst_e), order, 1)
    # swept from left to right, each point adds the strip by which it rises above all before it
    best = np.maximum.accumulate(np.take_along_axis(np.where(inside, quality, worst_q), order, 1), axis=1)
    rise = np.diff(best, axis=1, prepend=worst_q)
    return np.asarray(((worst_e - left) * rise).sum(1))
