"""How often the 95 % intervals hold the truth, in worlds whose truth is known.

    nice python -m tests.benchmarks.statistics.coverage [WORLDS] [RESAMPLES]

`same rungs`: the test arm costs four fifths of the anchor at every step count; the truth is −20 % whatever the
interpolator.
`other rungs`: it also stands at other step counts, so that interpolation has something to get wrong.
`noisy seeds`: seeds scatter more than prompts do, where drawing seeds as well would count them twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from perjoule.statistics.bd import bd_energy_rows
from perjoule.statistics.curves import Curve, pair
from perjoule.statistics.savings import saving_rows
from tests.support.worlds import LADDER, World, mean_quality

# the rung whose quality is q*: 20 steps
DEFAULT = 7
OTHER = np.array([1, 2, 3, 5, 7, 10, 15, 25, 40, 55])
WORLDS: dict[str, tuple[World, np.ndarray]] = {
    "same rungs": (World(), LADDER),
    "other rungs": (World(), OTHER),
    "noisy seeds": (World(prompt_sd=0.05, seed_sd=0.1), LADDER),
}


def truth(world: World, rungs: np.ndarray) -> tuple[float, float]:
    """(saving, BD-energy) of the expected curves, read off 4,000 step counts."""
    grid = np.random.default_rng(0).normal(size=20_000)
    hardness = 4.0 * np.exp(world.prompt_sd * grid)[:, None]

    def expected(steps: np.ndarray) -> np.ndarray:
        return np.concatenate([mean_quality(part, hardness).mean(0) for part in np.array_split(steps, 80)])

    dense = np.linspace(1, 60, 4_000)
    quality, energy = expected(dense), 0.5 + 0.4 * dense
    noise = np.exp(world.window_sd**2 / 2)  # of a log-normal window, the same for both

    def log_energy(q: np.ndarray, factor: float) -> np.ndarray:
        return np.asarray(np.log(factor * noise * np.interp(q, quality, energy)))

    top = expected(np.array([LADDER[DEFAULT]]))
    saving = 1 - np.exp(log_energy(top, world.factor) - log_energy(top, 1.0))[0]
    low = max(expected(np.array([r[0]]))[0] for r in (LADDER, rungs))
    high = min(expected(np.array([r[-1]]))[0] for r in (LADDER, rungs))
    q = np.linspace(low, high, 4_000)
    return float(saving), float(np.expm1(np.mean(log_energy(q, world.factor) - log_energy(q, 1.0))))


def main(worlds: int = 400, resamples: int = 2_000) -> None:
    """Print one line per world, number of prompts and statistic."""
    print(f"{worlds} worlds each, {resamples} resamples, nominal 95 %")
    print(f"{'world':12} {'prompts':>7} {'statistic':>9} {'truth':>7} {'coverage':>8} {'mean width':>10} {'open':>5}")
    for name, (world, rungs) in WORLDS.items():
        expected = truth(world, rungs)
        for prompts in (50, 200):
            sized = replace(world, prompts=prompts)
            found: dict[str, list[tuple[float | None, float | None]]] = {"saving": [], "BD-energy": []}
            for number in range(worlds):
                chance = np.random.default_rng([number, prompts])
                test, anchor = _arms(sized, rungs, chance)
                paired = pair(test, anchor, resamples=resamples)
                statistics: dict[str, Callable[..., np.ndarray]] = {
                    "saving": lambda t, a: saving_rows(t, a, None, DEFAULT),
                    "BD-energy": bd_energy_rows,
                }
                for statistic, rows in statistics.items():
                    estimate = paired.estimate(rows, "")
                    found[statistic].append((estimate.low, estimate.high))
            for (statistic, limits), value in zip(found.items(), expected, strict=True):
                ends = np.array([[-np.inf if a is None else a, np.inf if b is None else b] for a, b in limits])
                inside = ((ends[:, 0] <= value) & (value <= ends[:, 1])).mean()
                closed = np.isfinite(ends).all(1)
                width = np.ptp(ends[closed], axis=1).mean() if closed.any() else np.nan
                print(
                    f"{name:12} {prompts:7} {statistic:>9} {value:+7.4f} {inside:8.3f} {width:10.4f}"
                    f" {1 - closed.mean():5.2f}",
                    flush=True,
                )


def _arms(world: World, rungs: np.ndarray, chance: np.random.Generator) -> tuple[Curve, Curve]:
    if rungs is LADDER:
        return world.sample(chance)
    both, anchor = world.sample(chance, np.concatenate([LADDER, rungs]))
    here, there = np.arange(len(LADDER)), len(LADDER) + np.arange(len(rungs))
    return (
        replace(both, energy_j=both.energy_j[..., there], quality=both.quality[..., there]),
        replace(anchor, energy_j=anchor.energy_j[..., here], quality=anchor.quality[..., here]),
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
