"""How often a trend is flagged: in stable histories, at every weekly look, and after a drift or a step.

    nice python -m tests.benchmarks.statistics.trend_power [HISTORIES]

Noise between runs is normal, or Student's t with 3 degrees of freedom of the same standard deviation. `4 cells`: four
cells that share the noise between sessions and have a fifth of it of their own, and one quality.

`best`: Student's t of the slope of one cell, two-sided, which is told that the change can only be a straight line from
the first run on. For normal noise of unknown size it is the uniformly most powerful unbiased test of that slope, so no
test that does not know the shape can be better. Its level is that of `trend`, or 5 % over all weekly looks of 20 weeks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from perjoule.statistics import trend

Array = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Array]
RISE, STEP = 0.01, 0.05  # per week, and once; in ln J/image


def normal(sd: float) -> Noise:
    """Normal noise."""
    return lambda chance, weeks: chance.normal(0, sd, weeks)


def heavy(sd: float) -> Noise:
    """Noise with heavy tails."""
    return lambda chance, weeks: sd / np.sqrt(3) * chance.standard_t(3, weeks)


def one_cell(shape: Array, noise: Noise, chance: np.random.Generator) -> Array:
    """One series."""
    return (shape + noise(chance, len(shape)))[:, None]


def four_cells(shape: Array, noise: Noise, chance: np.random.Generator) -> Array:
    """Four cells, their mean, and a quality that does not change."""
    common = shape + noise(chance, len(shape))
    cells = common[:, None] + np.stack([0.2 * noise(chance, len(shape)) for _ in range(4)], axis=1)
    return np.column_stack([cells.mean(1), cells, noise(chance, len(shape))])


def flagged_at_a_look(make: Callable[..., Array], noise: Noise, weeks: int, histories: int) -> tuple[float, float]:
    """Share of stable histories that are flagged at any weekly look, and at the last look."""
    anywhere = last = 0
    for number in range(histories):
        table = make(np.zeros(weeks), noise, np.random.default_rng([number, weeks]))
        looks = range(trend.FEWEST_RUNS, weeks + 1)
        flags = [bool(trend.changes(table[:n], np.arange(n, dtype=float))) for n in looks]
        anywhere += any(flags)
        last += flags[-1]
    return anywhere / histories, last / histories


def flagged(make: Callable[..., Array], shape: Array, noise: Noise, histories: int) -> float:
    """Share of histories that are flagged at the last week."""
    weeks = np.arange(len(shape), dtype=float)
    return float(
        np.mean([
            bool(trend.changes(make(shape, noise, np.random.default_rng([number, 1])), weeks))
            for number in range(histories)
        ])
    )  # fmt: skip


def located(shape: Array, at: int, noise: Noise, histories: int) -> tuple[float, float, float]:
    """Share of histories with a step that are flagged, are called a step, and have it within a week."""
    weeks = np.arange(len(shape), dtype=float)
    found = steps = near = 0
    for number in range(histories):
        changes = trend.changes(one_cell(shape, noise, np.random.default_rng([number, 2])), weeks)
        places = [change.start for change in changes if change.kind == "step"]
        found += bool(changes)
        steps += bool(places)
        near += any(abs(place - at) <= 1 for place in places)
    return found / histories, steps / histories, near / histories


def slope_p_values(table: Array, weeks: int) -> Array:
    """Two-sided p-values of the slopes of the first weeks of histories, (histories, runs)."""
    line = np.arange(weeks) - (weeks - 1) / 2
    line /= np.linalg.norm(line)
    centred = table[:, :weeks] - table[:, :weeks].mean(1, keepdims=True)
    along = centred @ line
    rest = (centred**2).sum(1) - along**2
    return np.asarray(2 * stats.t.sf(np.abs(along) / np.sqrt(rest / (weeks - 2)), weeks - 2))


def level_over_looks(weeks: int, histories: int = 100_000) -> float:
    """Level of one look of the test of the slope, with which 5 % of stable histories are flagged at any look."""
    table = np.random.default_rng(3).normal(size=(histories, weeks))
    least = np.min([slope_p_values(table, n) for n in range(trend.FEWEST_RUNS, weeks + 1)], axis=0)
    return float(np.quantile(least, 0.05))


def best_power(shape: Array, sd: float, level: float, histories: int = 100_000) -> float:
    """Share of histories that the test of the slope flags at the last week."""
    table = shape + np.random.default_rng(4).normal(0, sd, (histories, len(shape)))
    return float((slope_p_values(table, len(shape)) <= level).mean())


def print_best(shape: Array) -> None:
    """Print the power of the test of the slope."""
    over = level_over_looks(20)
    print(f"best: level {trend.LEVEL:.2%} a look; {over:.2%} a look is 5 % over the weekly looks of 20 weeks")
    for sd in (0.01, 0.015, 0.02):
        powers = " ".join(f"{best_power(shape, sd, level):9.1%}" for level in (trend.LEVEL, over))
        print(f"11 runs, 1 cell, sd {sd:.1%}    {powers}", flush=True)


def main(histories: int = 400) -> None:
    """Print the table."""
    print(f"{histories} histories each, level {trend.LEVEL:.2%} a look, from {trend.FEWEST_RUNS} runs on")
    print("stable                          any look  last look")
    cases = (("1 cell", one_cell), ("4 cells", four_cells))
    for name, make in cases:
        for kind, noise in (("normal", normal(0.015)), ("heavy tails", heavy(0.015))):
            anywhere, last = flagged_at_a_look(make, noise, 20, histories)
            print(f"20 weeks, {name:8} {kind:12} {anywhere:9.1%} {last:9.1%}", flush=True)
    anywhere, last = flagged_at_a_look(one_cell, normal(0.015), 52, max(1, histories // 2))
    print(f"52 weeks, {'1 cell':8} {'normal':12} {anywhere:9.1%} {last:9.1%}", flush=True)
    print("1 % per week for 10 weeks       flagged")
    rise = RISE * np.arange(11.0)
    print_best(rise)
    late = np.concatenate([np.zeros(10), rise])
    for sd in (0.01, 0.015, 0.02):
        for name, make in cases:
            print(f"11 runs, {name:8} sd {sd:.1%}      {flagged(make, rise, normal(sd), histories):9.1%}", flush=True)
        print(f"10 stable weeks first, sd {sd:.1%}  {flagged(one_cell, late, normal(sd), histories):7.1%}", flush=True)
    print("5 % step at run 10 of 20        flagged   as a step   within a week")
    for sd in (0.01, 0.015, 0.02):
        shares = located(np.where(np.arange(20) < 10, 0.0, STEP), 10, normal(sd), histories)
        print(f"sd {sd:.1%}                  " + " ".join(f"{share:11.1%}" for share in shares), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
