"""How often 95 % intervals of energy hold the truth where windows hold several prompts.

    nice python -m tests.benchmarks.statistics.window_coverage [WORLDS] [WORLDS OF SAVINGS] [RESAMPLES]

`windows`: only windows scatter, by 2 %. `prompts`: the test arm gives each prompt its own steps, so that prompts differ
by 30 % in joules, and joules and qualities go together. `drift`: the machine gets 3 % more expensive from the first
window to the last, and prompts differ by 10 %.

energy: J/image of a cell. ratio: that cell over the anchor's. saving: at equal quality, of the whole arm. gate: the
energy axis of a verdict between two runs. Two seeds: every group has two windows in a cell.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from perjoule.gating.decide import decide
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import Findings, GateConfig, Margin, Margins
from perjoule.statistics.curves import Curve, pair
from perjoule.statistics.grid import Grid
from perjoule.statistics.points import energy_estimates
from perjoule.statistics.savings import saving_rows
from tests.support.worlds import LADDER, WindowWorld

RUNG = 7  # 20 steps
MARGINS = Margins(energy=Margin(value=0.05, origin="default"), quality=Margin(value=0.15, origin="default"))
WORLDS = {
    "windows": WindowWorld(),
    "prompts": WindowWorld(prompt_sd=0.3),
    "drift": WindowWorld(prompt_sd=0.1, drift=0.03),
}
SIZES = (*((4, g) for g in (5, 6, 8, 12, 24)), (16, 6), (16, 12), *((60, g) for g in (5, 6, 8, 12, 24)))
STATISTICS = ("energy", "ratio", "gate", "saving")
Limits = tuple[float | None, float | None]


def limits_at_a_rung(world: WindowWorld, chance: np.random.Generator, resamples: int) -> Iterator[tuple[str, Limits]]:
    """The intervals of single cells in one draw of a world."""
    hard, ladder = world.hard(chance), LADDER[[RUNG]]
    test, again, anchor = (
        world.arm(chance, hard, factor, prompt_sd, ladder)
        for factor, prompt_sd in ((world.factor, world.prompt_sd), (1.0, world.prompt_sd), (1.0, 0.0))
    )
    grid = Grid(
        cells=("c",),
        prompts=tuple(map(str, range(world.prompts))),
        energy_j=test.energy_j,
        quality={},
        groups=test.window_groups,
    )
    (energy,) = energy_estimates(grid, grid.drawn(resamples).joint)
    yield "energy", (energy.low, energy.high)
    ratio = pair(test, anchor, resamples=resamples).estimate(lambda t, a: t.energy_j[:, 0] / a.energy_j[:, 0], "")
    yield "ratio", (ratio.low, ratio.high)
    yield "gate", gate_limits(test, again, world)


def limits_of_saving(world: WindowWorld, chance: np.random.Generator, resamples: int) -> Iterator[tuple[str, Limits]]:
    """The interval of a whole arm's saving in one draw of a world."""
    saving = pair(*world.sample(chance), resamples=resamples).estimate(lambda t, a: saving_rows(t, a, None, RUNG), "")
    yield "saving", (saving.low, saving.high)


def gate_limits(candidate: Curve, baseline: Curve, world: WindowWorld) -> Limits:
    """Of the change of energy between two runs of an arm on the same prompts, by the gate's own rule."""
    c, b = (run.energy_j[:: world.prompts_per_window, :, 0].mean(1) for run in (candidate, baseline))
    pairs = Pairs(
        cells=("c",),
        log_energy=np.log(c / b)[:, None],
        energy_j=(c - b)[:, None],
        quality=np.zeros((world.prompts, 1)),
        total_energy_change=0.0,
        identical_images=False,
        provenance=("simulated",),
    )
    change = decide(pairs, "q", GateConfig(alpha=0.025), Findings(), MARGINS).energy.change
    return change.low, change.high


def coverage(world: WindowWorld, worlds: int, savings: int, resamples: int) -> dict[str, float]:
    """Share of the worlds whose interval holds the truth, by statistic; an open end holds everything.

    Args:
        world: What is drawn.
        worlds: How many draws for single cells.
        savings: How many draws for the saving, which takes longer.
        resamples: Of each interval.
    """
    truth = world.truth(RUNG) | {"gate": world.factor - 1}
    kind = [world.groups, world.prompts_per_window, round(100 * world.prompt_sd), round(100 * world.drift)]
    found: dict[str, float] = {}
    for draw, count in ((limits_at_a_rung, worlds), (limits_of_saving, savings)):
        held: defaultdict[str, int] = defaultdict(int)
        for number in range(count):
            chance = np.random.default_rng([number, count, *kind])
            for name, (low, high) in draw(world, chance, resamples):
                held[name] += (-math.inf if low is None else low) <= truth[name] <= (math.inf if high is None else high)
        found |= {name: hits / count for name, hits in held.items()}
    return found


def main(worlds: int = 2_000, savings: int = 500, resamples: int = 800) -> None:
    """Print one line per world and size."""
    print(f"{worlds} worlds, {savings} of savings, {resamples} resamples, nominal 95 %, {len(LADDER)} rungs")
    print(f"{'world':8} {'images':>6} {'groups':>6} " + " ".join(f"{name:>7}" for name in STATISTICS))
    for name, world in WORLDS.items():
        for size, groups in SIZES:
            found = coverage(replace(world, groups=groups, prompts_per_window=size), worlds, savings, resamples)
            shares = " ".join(f"{found[s]:7.3f}" for s in STATISTICS)
            print(f"{name:8} {size:6} {groups:6} {shares}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
