"""Randomised mixtures of fixed arms, and the choice of an arm for each prompt.

    fixed arms (energy, quality)  ──cheapest_mixture──►  least energy at a mean quality   what a router must beat
    expected quality of each arm  ──choice_at─────────►  the arm of each prompt           what a router does

A mixture of two arms that ignores the prompt already reaches every point of the lower hull of the arms, so a saving
over a single arm shows nothing about a router. "Arms" are cells of any models; the energy of an arm is the same for
all images, because each does the same work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.hulls import Array, Hulls

_PRICES, _BISECTIONS, _ROUNDING = 128, 60, 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An arm of a mixture, by its place, and the share of the images that it gets."""

    arm: int
    share: float


def cheapest_mixture(energy_j: Array, quality: Array, at: Array) -> Array:
    """Return the least mean energy of a random choice among arms with at least a mean quality.

    The best choice is between two arms, or it is one arm.

    Args:
        energy_j: (rows, arms).
        quality: (rows, arms), higher is better; arms with NaN in either are left out.
        at: (rows, k) mean qualities.

    Returns:
        (rows, k), infinite where no arm has that quality.
    """
    hulls = Hulls.of(energy_j, quality)
    best = np.fmax.reduce(hulls.quality, axis=1)[:, None]
    enough = best >= _less(at)
    least_j = hulls.energy_at(np.clip(at, hulls.quality[:, :1], best))
    return np.where(enough, least_j, np.inf)


def parts_of_mixture(energy_j: Array, quality: Array, at: float) -> tuple[Part, ...]:
    """Return the one or two arms of the cheapest mixture, the better one first; none if no arm has the quality.

    Args:
        energy_j: (arms,).
        quality: (arms,).
        at: Mean quality.
    """
    hulls = Hulls.of(energy_j[None], quality[None])
    knots, arms = hulls.quality[0, : hulls.count[0]], hulls.arm[0]
    enough = np.flatnonzero(knots >= _less(at))
    if not len(enough):
        return ()
    good = int(enough[0])
    share = 1.0 if good == 0 else float(min((at - knots[good - 1]) / (knots[good] - knots[good - 1]), 1.0))
    parts = Part(arm=int(arms[good]), share=share), Part(arm=int(arms[good - 1]), share=1 - share)
    return parts if share < 1 else parts[:1]


def best_buys(expected: Array, costs: Array, prices: Array) -> NDArray[np.intp]:
    """Where a further joule buys less than elsewhere: the arm with the largest λ·Q − E at each price λ.

    Args:
        expected: (..., arms) expected quality, higher is better; an arm without a number is not chosen.
        costs: (arms,) J/image.
        prices: (k,) J per unit of quality; at an infinite price, the best arm.

    Returns:
        (..., k) arms; of equal ones the cheapest.
    """
    order = np.argsort(costs, kind="stable")
    ranked = np.asarray(expected)[..., order]
    known = np.isfinite(ranked)
    bought = []
    for price in prices:
        worth = np.where(known, ranked, 0.0) if np.isinf(price) else price * np.where(known, ranked, 0.0) - costs[order]
        bought.append(order[np.where(known, worth, -np.inf).argmax(-1)])
    return np.stack(bought, axis=-1)


def choice_at(expected: Array, judged: Array, energy_j: Array, at: float) -> Array | None:
    """Choose an arm for each unit at the highest price of a joule with which the mean judged quality reaches `at`.

    Between two prices whose choices differ the choice is random, so that the mean is `at` exactly.

    Args:
        expected: (n, arms) quality by which arms are chosen.
        judged: (n, arms) quality by which the choice is judged.
        energy_j: (arms,) J/image.
        at: Mean quality.

    Returns:
        (n, arms) probability of each arm; None if no price reaches the quality. If even the cheapest arm has more than
        `at`, all units get it.
    """
    rows = np.arange(len(expected))

    def arms(units_per_joule: float) -> NDArray[np.intp]:
        price = 1 / units_per_joule if units_per_joule > 0 else np.inf
        return best_buys(expected, energy_j, np.array([price]))[:, 0]

    def mean(price: float) -> float:
        return float(judged[rows, arms(price)].mean())

    def shares(price: float) -> Array:
        return np.asarray(np.eye(len(energy_j))[arms(price)], np.float64)

    wanted = _less(at)
    height, width = float(np.ptp(expected)), float(np.ptp(energy_j))
    if height <= 0 or width <= 0:
        return shares(0.0) if mean(0.0) >= wanted else None
    gap = float(np.diff(np.unique(energy_j)).min())
    prices = [0.0, *np.geomspace(1e-6 * height / width, 2 * height / gap, _PRICES)]
    enough = [place for place, price in enumerate(prices) if mean(price) >= wanted]
    if not enough:
        return None
    if enough[-1] == len(prices) - 1:
        return shares(prices[-1])
    low, high = prices[enough[-1]], prices[enough[-1] + 1]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) >= wanted else (low, middle)
    more, less = mean(low), mean(high)
    share = float(np.clip((at - less) / (more - less), 0.0, 1.0))
    return share * shares(low) + (1 - share) * shares(high)


def _less(quality: Any) -> Any:
    """Return a little less, as a mean over the same numbers in another order may differ by rounding."""
    return quality - _ROUNDING * np.maximum(1.0, np.abs(quality))
