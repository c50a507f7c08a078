"""How far a saving between arms moves if the power sensor of the board has another gain and offset.

True power is gain * reading + offset. A gain alone cancels in the ratio of two arms on one board. An offset does not if
they draw different power:

    true ratio = R * (gain + offset / P_test) / (gain + offset / P_anchor)         R: ratio of the joules as read
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from math import isfinite

GAIN, OFFSET_W = 0.10, 20.0  # external meters showed 0.87 to 1.15 and -9 to +21 W (arXiv 2312.02741)
LEAST_DIFFERENCE = 0.05  # between mean powers; with less, the offset cancels


def mean_power_w(cells: Iterable[tuple[float | None, float | None, str | None]]) -> float | None:
    """Return the mean power of an arm from (J, s) per image and provenance of its cells; None if nothing is known.

    Estimated joules come from a model, not from a sensor of power.
    """
    known = [
        (energy_j, duration_s)
        for energy_j, duration_s, provenance in cells
        if energy_j is not None and duration_s and provenance != "estimated"
    ]
    total_s = sum(duration_s for _, duration_s in known)
    return sum(energy_j for energy_j, _ in known) / total_s if total_s > 0 else None


def saving_range(saving: float, test_w: float, anchor_w: float) -> tuple[float, float]:
    """Return the lowest and the highest saving under a gain of ±10 % and an offset of ±20 W.

    Args:
        saving: 1 - ratio of the joules, as measured.
        test_w: Mean power of the arm.
        anchor_w: Mean power of the arm that it is compared with.
    """
    savings = []
    for gain, offset_w in product((1 - GAIN, 1 + GAIN), (-OFFSET_W, OFFSET_W)):
        # an offset that would leave no power is not possible
        offset_w = max(offset_w, -0.5 * gain * min(test_w, anchor_w))
        savings.append(1 - (1 - saving) * (gain + offset_w / test_w) / (gain + offset_w / anchor_w))
    return min(savings), max(savings)


def sentence(test: str, anchor: str, saving: float | None, powers_w: Mapping[str, float | None]) -> str | None:
    """Return the sensitivity of a saving in words; None if the arms draw the same power, or something is unknown."""
    test_w, anchor_w = powers_w.get(test), powers_w.get(anchor)
    if saving is None or not isfinite(saving) or not test_w or not anchor_w:
        return None
    if abs(test_w / anchor_w - 1) < LEAST_DIFFERENCE:
        return None
    low, high = saving_range(saving, test_w, anchor_w)
    return (
        f"{test} draws {test_w:.0f} W, {anchor} {anchor_w:.0f} W: with a sensor gain within ±{GAIN:.0%} and an offset "
        f"within ±{OFFSET_W:.0f} W, the saving of {saving:.1%} is {low:.1%} to {high:.1%}"
    )
