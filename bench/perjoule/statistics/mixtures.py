"""Randomised mixtures of fixed arms, and the choice of an arm for each prompt.

    fixed arms (energy, quality)  ──cheapest_mixture──►  least energy at a mean quality   what a router must beat
    expected quality of each arm  ──choice_at─────────►  the arm of each prompt           what a router does

A mixture of two arms that ignores the prompt already reaches every point of the lower hull of the arms, so a saving
over a single arm shows nothing about a router. "Arms" are cells of any models; the energy of an arm is the same for
all images, because each does the same work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.resampling import Array

_PRICES, _BISECTIONS = 128, 60
# a mean over the same numbers in another order may differ by rounding
_ROUNDING = 1e-9


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
    wanted = at - _ROUNDING * np.maximum(1.0, np.abs(at))
    best = np.full(at.shape, np.inf)
    for good in range(energy_j.shape[1]):
        good_j, good_q = energy_j[:, good, None], quality[:, good, None]
        enough = good_q >= wanted
        best = np.where(enough, np.fmin(best, good_j), best)
        for poor in range(energy_j.shape[1]):
            poor_j, poor_q = energy_j[:, poor, None], quality[:, poor, None]
            with np.errstate(invalid="ignore", divide="ignore"):
                mixed_j = poor_j + (at - poor_q) / (good_q - poor_q) * (good_j - poor_j)
            best = np.where(enough & (poor_q < wanted), np.fmin(best, mixed_j), best)
    return best


def parts_of_mixture(energy_j: Array, quality: Array, at: float) -> tuple[Part, ...]:
    """Return the one or two arms of the cheapest mixture, the better one first; none if no arm has the quality.

    Args:
        energy_j: (arms,).
        quality: (arms,).
        at: Mean quality.
    """
    least = float(cheapest_mixture(energy_j[None], quality[None], np.array([[at]]))[0, 0])
    if not np.isfinite(least):
        return ()
    places = np.arange(len(energy_j))
    pairs = sorted(((a, b) for a in places for b in places), key=lambda pair: pair[0] != pair[1])
    for pair in pairs:
        own = list(dict.fromkeys(pair))
        value = float(cheapest_mixture(energy_j[None, own], quality[None, own], np.array([[at]]))[0, 0])
        if np.isclose(value, least, rtol=1e-12, atol=0.0):
            break
    good, poor = max(own, key=lambda arm: quality[arm]), min(own, key=lambda arm: quality[arm])
    if good == poor:
        return (Part(arm=int(good), share=1.0),)
    share = float(np.clip((at - quality[poor]) / (quality[good] - quality[poor]), 0.0, 1.0))
    return Part(arm=int(good), share=share), Part(arm=int(poor), share=1 - share)


def arms_at_price(expected: Array, energy_j: Array, units_per_joule: float) -> NDArray[np.intp]:
    """Return the arm with the largest expected quality minus price of its energy, of equal arms the cheapest.

    Args:
        expected: (n, arms) expected quality.
        energy_j: (arms,) J/image.
        units_per_joule: Units of quality that a joule must bring.
    """
    order = np.argsort(energy_j, kind="stable")
    worth = expected[:, order] - units_per_joule * energy_j[order]
    return np.asarray(order[worth.argmax(1)], np.intp)


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
    wanted = at - _ROUNDING * max(1.0, abs(at))

    def mean(price: float) -> float:
        return float(judged[rows, arms_at_price(expected, energy_j, price)].mean())

    def shares(price: float) -> Array:
        return np.asarray(np.eye(len(energy_j))[arms_at_price(expected, energy_j, price)], np.float64)

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
