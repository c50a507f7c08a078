"""Curves of few rungs, the same for every prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from perjoule.statistics import bd
from perjoule.statistics.bd import BdEnergy
from perjoule.statistics.curves import AnyCurve, Curve, Ladders, pair

QUICK: dict[str, Any] = {"resamples": 200}


def ladder(energy: list[float], quality: list[float]) -> Curve:
    """The same curve for four prompts."""
    return Curve(energy_j=np.tile(energy, (4, 1)), quality=np.tile(quality, (4, 1)))


def rows(energy: list[float], quality: list[float]) -> Ladders:
    return Ladders(energy_j=np.array([energy]), quality=np.array([quality]))


def scaled(curve: Curve, factor: float) -> Curve:
    return replace(curve, energy_j=curve.energy_j * factor)


SOME = ladder([1, 2, 4, 8, 16, 32], [0.2, 0.45, 0.6, 0.7, 0.75, 0.77])


OTHER = ladder([1.5, 2.5, 5, 9, 14, 30], [0.25, 0.4, 0.58, 0.72, 0.76, 0.775])


def bd_energy(test: AnyCurve, anchor: AnyCurve, **options: Any) -> BdEnergy:
    """BD-energy of two curves, on draws of their own."""
    return bd.bd_energy(pair(test, anchor, **options))
