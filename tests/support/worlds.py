"""Worlds with a known truth: prompts of unlike hardness, rungs that level off, seeds that scatter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

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


@dataclass(frozen=True, kw_only=True)
class WindowWorld:
    """Windows of several prompts. Each group of prompts has a window per cell and seed; cells take turns.

    The anchor is a ladder of fixed steps. The test arm costs `factor` of it and gives each prompt its own steps: hard
    prompts get more, by `prompt_sd`, so that its joules and its qualities have the prompts in common. `drift` is the
    relative change of the machine's joules from the first window to the last, the same for all cells.
    """

    groups: int = 12
    prompts_per_window: int = 4
    seeds: int = 2
    factor: float = 0.8
    prompt_sd: float = 0.0
    hardness_sd: float = 0.35
    seed_sd: float = 0.03
    window_sd: float = 0.02
    drift: float = 0.0

    @property
    def prompts(self) -> int:
        return self.groups * self.prompts_per_window

    def sample(self, chance: np.random.Generator) -> tuple[Curve, Curve]:
        """One draw. -> (test, anchor)"""
        hard = self.hard(chance)
        return self.arm(chance, hard, self.factor, self.prompt_sd), self.arm(chance, hard, 1.0, 0.0)

    def hard(self, chance: np.random.Generator) -> np.ndarray:
        return np.asarray(chance.normal(size=(self.prompts, 1, 1)))

    def steps(self, hard: np.ndarray, prompt_sd: float, ladder: np.ndarray = LADDER) -> np.ndarray:
        return np.asarray(ladder * np.exp(prompt_sd * hard))

    def quality(self, hard: np.ndarray, prompt_sd: float, ladder: np.ndarray = LADDER) -> np.ndarray:
        return mean_quality(self.steps(hard, prompt_sd, ladder), 4.0 * np.exp(self.hardness_sd * hard))

    def arm(
        self,
        chance: np.random.Generator,
        hard: np.ndarray,
        factor: float,
        prompt_sd: float,
        ladder: np.ndarray = LADDER,
    ) -> Curve:
        rungs, size = len(ladder), self.prompts_per_window
        quality = self.quality(hard, prompt_sd, ladder) + self.seed_sd * chance.normal(
            size=(self.prompts, self.seeds, rungs)
        )
        image = np.broadcast_to(factor * (0.5 + 0.4 * self.steps(hard, prompt_sd, ladder)), quality.shape)
        window = image.reshape(self.groups, size, self.seeds, rungs).mean(1)
        window = window * np.exp(self.window_sd * chance.normal(size=window.shape))
        # windows in the order of a plan: all groups under the first seed, then under the second
        place = np.arange(self.groups)[:, None] + self.groups * np.arange(self.seeds)
        window = window * (1 + self.drift * (place / max(1, place.max()) - 0.5))[..., None]
        first = np.repeat(size * np.arange(self.groups), size)
        return Curve(
            energy_j=np.repeat(window, size, axis=0),
            quality=quality,
            name=f"x{factor}",
            groups=np.tile(first[:, None], (1, rungs)),
        )

    def truth(self, rung: int) -> dict[str, float]:
        """See `_truth`: it does not depend on how many prompts and windows there are."""
        return _truth(replace(self, groups=1, prompts_per_window=1, seeds=1), rung)


@cache
def _truth(world: WindowWorld, rung: int) -> dict[str, float]:
    """Energy of the test arm at a rung, its ratio to the anchor's, and the saving at the anchor's quality there."""
    hard = np.random.default_rng(0).normal(size=(20_000, 1))
    noise = np.exp(world.window_sd**2 / 2)
    test_j, anchor_j = (
        noise * f * (0.5 + 0.4 * world.steps(hard, sd).mean(0)) for f, sd in ((world.factor, world.prompt_sd), (1, 0))
    )
    dense = np.geomspace(1, 60, 400)
    curves = []
    for f, sd in ((world.factor, world.prompt_sd), (1.0, 0.0)):
        stretch = np.exp(sd * hard)
        quality = np.array([mean_quality(n * stretch, 4.0 * np.exp(world.hardness_sd * hard)).mean() for n in dense])
        curves.append((quality, np.log(f * (0.5 + 0.4 * dense * stretch.mean()))))
    at = world.quality(hard, 0.0).mean(0)[rung]
    logs = [np.interp(at, quality, cost) for quality, cost in curves]
    return {
        "energy": float(test_j[rung]),
        "ratio": float(test_j[rung] / anchor_j[rung]),
        "saving": float(1 - np.exp(logs[0] - logs[1])),
    }
