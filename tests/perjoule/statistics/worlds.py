"""Worlds with a known truth: prompts of unlike hardness, rungs that level off, seeds that scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perjoule.statistics.curves import Curve

LADDER = np.array([1, 2, 3, 4, 6, 8, 12, 20, 35, 50])


@dataclass(frozen=True, kw_only=True)
class World:
    """Quality 1 − exp(−(steps / hardness)^0.7) plus noise; `factor` multiplies the test arm's joules."""

    prompts: int = 50
    seeds: int = 2
    factor: float = 0.8
    prompt_sd: float = 0.35
    seed_sd: float = 0.03
    window_sd: float = 0.02

    def sample(self, chance: np.random.Generator, ladder: np.ndarray = LADDER) -> tuple[Curve, Curve]:
        """One draw. -> (test, anchor)"""
        hardness = 4.0 * np.exp(self.prompt_sd * chance.normal(size=(self.prompts, 1, 1)))
        return (
            self._arm(chance, hardness, ladder, self.factor),
            self._arm(chance, hardness, ladder, 1.0),
        )

    def _arm(self, chance: np.random.Generator, hardness: np.ndarray, ladder: np.ndarray, factor: float) -> Curve:
        shape = (self.prompts, self.seeds, len(ladder))
        quality = mean_quality(ladder, hardness) + self.seed_sd * chance.normal(size=shape)
        energy = factor * (0.5 + 0.4 * ladder) * np.exp(self.window_sd * chance.normal(size=shape))
        return Curve(energy_j=energy, quality=quality, name=f"x{factor}")


def mean_quality(steps: np.ndarray, hardness: np.ndarray) -> np.ndarray:
    return np.asarray(1 - np.exp(-((steps / hardness) ** 0.7)))
