"""The minimal detectable effect: the smallest change that is seen in four of five cases."""

from __future__ import annotations

POWER = 0.8


def minimal_detectable_effect(standard_error: float, alpha: float) -> float:
    """(z_{1−α} + z_{0.8}) · SE, in the unit of the standard error."""
    from scipy.special import ndtri

    return float((ndtri(1 - alpha) + ndtri(POWER)) * standard_error)
