"""What a race costs and what it loses, in worlds of known truth.

    python tests/benchmarks/statistics/racing.py [--races N] [--demo RUN]
    python tests/benchmarks/statistics/racing.py --tolerance [--races N]
    python tests/benchmarks/statistics/racing.py --tails

`--tolerance` simulates what the product does not do: a cell is also dropped if another cell that stays has surely at
most 5 % (or 10 %) more energy and at most 0.02 (or 0.05) less quality. `of the near frontier` is the share of the cells
of the true frontier of which such a cell, or they themselves, got all prompts. A cell for which others were dropped is
dropped only if one surely dominates it, which then takes its place; otherwise tolerances would add up.

`--tails` prints how often a single comparison is wrong at the level of a suite of 30 cells with 5 looks, 1.1e-5, if the
differences have mean 0, without and with the imagined unit of the test.

A cell is on the true frontier if no other cell is at least as good in both means and better in one, the means being
those of infinitely many prompts: P(frontier) of the infinite design is then 1, and 0 for the other cells.

| column | |
|---|---|
| recall | share of the cells of the true frontier that were measured with all prompts, over all races |
| races with a loss | share of the races that dropped any cell of the true frontier; the design allows 5 % |
| joules | of the race, as a share of the full design's; [5 % and 95 % quantiles over races] |
| floor | the same for an oracle that measures only what may not be dropped: the true frontier and the anchor |

Synthetic worlds have 30 cells: five arms of six rungs, the first of which is the anchor that savings need. Prompts have
a difficulty in common (sd 0.15); cells differ by prompt with sd 0.08; energies by 2 % between prompts and 1 % between
windows. `clear`: the anchor and a cheap distilled arm make the frontier, three arms lie clearly below it. `crowded`:
five arms of nearly the same energy and quality. `heavy tails`: as `clear`, with Student's t of 3 degrees of freedom;
one window in 50 costs half as much again, and the distilled arm fails on one prompt in 20. `demo`: prompts of the
stored demo run, drawn with replacement; its 96 prompts are the truth.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from perjoule.runs.directory import load_run
from perjoule.statistics.comparisons import Arm
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.pareto import non_dominated
from perjoule.statistics.raced import needed_cells
from perjoule.statistics.racing import ALPHA, dominations, level_of, look_prompts, p_not_above
from perjoule.statistics.resampling import Array, over_seeds
from perjoule.types import MetricSpec

RUNGS = np.arange(6)
PROMPT_SD, CELL_SD = 0.15, 0.08
SPEC = MetricSpec(
    name="quality",
    direction="higher",
    track="absolute",
    unit="",
    needs_reference=False,
    weights_digest="none",
    bounds=(None, None),
    description="",
    licence="none",
    advisory=False,
)


@dataclass(frozen=True, kw_only=True)
class World:
    """Arms, true means, and a sampler: prompts, chance -> energies and qualities (prompts, cells)."""

    arms: tuple[Arm, ...]
    spec: MetricSpec
    energy_j: Array
    quality: Array
    sample: Callable[[int, np.random.Generator], tuple[Array, Array]]
    exact: bool = False

    @property
    def cells(self) -> list[str]:
        return [str(column) for column in range(len(self.energy_j))]


def synthetic(kind: str) -> World:
    """Five arms of six rungs: the anchor, a distilled model that is cheap, and three others."""
    factors, caps, ahead = [1.0, 0.35, 1.3, 0.6, 1.6], [0.9, 0.8, 0.8, 0.6, 0.75], [0.0, 0.5, 0.0, 0.0, 0.0]
    if kind == "crowded":
        factors, caps, ahead = [1.0, 0.9, 1.02, 0.95, 1.05], [0.9, 0.885, 0.9, 0.88, 0.895], [0, 0, 0.15, 0, 0.1]
    energy_j = np.concatenate([factor * 10 * (0.3 + 2.0**RUNGS) for factor in factors])
    quality = np.concatenate(
        [cap - 0.5 * 2.0 ** (-0.9 * (RUNGS + more)) for cap, more in zip(caps, ahead, strict=True)]
    )
    heavy = kind == "heavy tails"
    failing = np.zeros(30)
    failing[6:12] = 0.4 if heavy else 0.0

    def sample(prompts: int, chance: np.random.Generator) -> tuple[Array, Array]:
        shape = (prompts, 30)
        noise = chance.standard_t(3, shape) / np.sqrt(3) if heavy else chance.standard_normal(shape)
        fails = chance.random((prompts, 1)) < 0.05
        scores = quality + PROMPT_SD * chance.standard_normal((prompts, 1)) + CELL_SD * noise - failing * fails
        costs = energy_j * np.exp(0.02 * chance.standard_normal((prompts, 1)) + 0.01 * chance.standard_normal(shape))
        return (costs * np.where(chance.random(shape) < 0.02, 1.5, 1.0) if heavy else costs), scores

    arms = tuple(
        Arm(variant=name, role="fixed", policy="fixed", family=name, columns=tuple(6 * number + RUNGS))
        for number, name in enumerate(("anchor", "distilled", "sampler", "pruned", "larger"))
    )
    return World(arms=arms, spec=SPEC, energy_j=energy_j, quality=quality - 0.05 * failing, sample=sample)


def stored(run_path: Path) -> World:
    """The world of a stored run: its prompts, drawn with replacement."""
    run = load_run(run_path)
    metric = run.suite.metrics.primary
    evidence = evidence_of(run, draw(run, [metric], 1), metric)
    costs, scores = over_seeds(evidence.grid.energy_j), over_seeds(evidence.quality)

    def sample(prompts: int, chance: np.random.Generator) -> tuple[Array, Array]:
        rows = chance.integers(0, len(costs), prompts)
        return costs[rows], scores[rows]

    return World(
        arms=evidence.arms,
        spec=evidence.spec,
        energy_j=costs.mean(0),
        quality=scores.mean(0),
        sample=sample,
        exact=run.is_counted,
    )


Tolerance = tuple[float, float]  # a share of the energy, and a loss of quality
NONE: Tolerance = (0.0, 0.0)
TOLERANCES: tuple[Tolerance, ...] = (NONE, (0.05, 0.02), (0.05, 0.05), (0.10, 0.05))


def p_not_near(values: Array, factor: float, shift: float) -> Array:
    """As `p_not_above`, for the row's cell times `factor` plus `shift`."""
    rows = [_p_values((column[:, None] * factor + shift - values).T) for column in values.T]
    p_values = np.nan_to_num(np.stack(rows), nan=1.0)
    np.fill_diagonal(p_values, 1.0)
    return p_values


def nearly_dominated(
    energy_j: Array, quality: Array, level: float, tolerance: Tolerance, places: set[int], stays: set[int]
) -> set[int]:
    """Columns that another one matches within the tolerance, the most expensive first; `places` gets the others."""
    p_values = np.maximum(p_not_near(energy_j, 1 + tolerance[0], 0.0), p_not_near(-quality, 1.0, tolerance[1]))
    dropped: set[int] = set()
    for one in sorted(set(range(len(p_values))) - stays, key=lambda column: -energy_j[:, column].mean()):
        if one in places:
            continue
        others = [other for other in np.argsort(p_values[one]) if other not in dropped and p_values[one, other] < level]
        if others:
            dropped.add(one)
            places.add(int(others[0]))
    return dropped


def race(world: World, prompts: int, chance: np.random.Generator, tolerance: Tolerance = NONE) -> tuple[Array, float]:
    """One race -> how many prompts each cell got, and the joules as a share of the full design's."""
    energy_j, quality = world.sample(prompts, chance)
    looks, cells = look_prompts(prompts), world.cells
    level = level_of(ALPHA, len(looks), len(cells))
    counts, remaining = np.full(len(cells), prompts), list(range(len(cells)))
    places: set[int] = set()
    for count in looks:
        needed = needed_cells(world.arms, cells, {cells[column] for column in remaining}, world.spec)
        part = np.ix_(range(count), remaining)
        found = dominations(energy_j[part], quality[part], level, exact_energy=world.exact)
        by = {remaining[one.column]: remaining[one.by] for one in found}
        dropped = {column for column in by if cells[column] not in needed}
        while lost := places & dropped:  # whatever dominates a place takes it
            places = (places - lost) | {by[column] for column in lost}
        if tolerance != NONE:
            left = [column for column in remaining if column not in dropped]
            near = np.ix_(range(count), left)
            at = {column: place for place, column in enumerate(left)}
            taken = {at[column] for column in places}
            stays = {place for column, place in at.items() if cells[column] in needed}
            more = nearly_dominated(energy_j[near], quality[near], level, tolerance, taken, stays)
            places |= {left[place] for place in taken}
            dropped |= {left[place] for place in more}
        counts[list(dropped)] = count
        remaining = [column for column in remaining if column not in dropped]
    measured = np.arange(prompts)[:, None] < counts
    return counts, float((energy_j * measured).sum() / energy_j.sum())


def row(name: str, world: World, prompts: int, races: int) -> str:
    true = non_dominated(world.energy_j, world.quality)
    chance = np.random.default_rng(1)
    outcomes = [race(world, prompts, chance) for _ in range(races)]
    kept = np.array([counts[true] == prompts for counts, _ in outcomes])
    joules = np.array([share for _, share in outcomes])
    low, high = np.quantile(joules, [0.05, 0.95])
    anchor = max((arm for arm in world.arms if arm.role == "fixed"), key=lambda arm: len(arm.columns))
    stays = true.copy()
    stays[list(anchor.columns)] = True
    floor = world.energy_j[stays].sum() / world.energy_j.sum()
    return (
        f"| {name} | {len(true)} | {true.sum()} | {prompts} | {races} | {kept.mean():.2%} "
        f"| {(~kept.all(1)).mean():.1%} | {joules.mean():.0%} [{low:.0%}, {high:.0%}] | {floor:.0%} |"
    )


def near_row(name: str, world: World, prompts: int, races: int, tolerance: Tolerance) -> str:
    """A row of the table of `--tolerance`."""
    true, chance = np.flatnonzero(non_dominated(world.energy_j, world.quality)), np.random.default_rng(1)
    outcomes = [race(world, prompts, chance, tolerance) for _ in range(races)]
    kept = np.array([counts == prompts for counts, _ in outcomes])
    cheap = world.energy_j <= (1 + tolerance[0] + 1e-12) * world.energy_j[true, None]
    good = world.quality >= world.quality[true, None] - tolerance[1] - 1e-12
    near = (kept[:, None] & (cheap & good)).any(2)
    joules = np.array([share for _, share in outcomes])
    low, high = np.quantile(joules, [0.05, 0.95])
    return (
        f"| {name} | {prompts} | {tolerance[0]:.0%}, {tolerance[1]:g} | {races} | {kept[:, true].mean():.2%} "
        f"| {near.mean():.2%} | {joules.mean():.0%} [{low:.0%}, {high:.0%}] |"
    )


def tails(samples: int = 400_000) -> None:
    """Print shares of wrong comparisons of differences with mean 0."""
    chance, level = np.random.default_rng(0), level_of(ALPHA, 5, 30)
    kinds: dict[str, Callable[[tuple[int, int]], Array]] = {
        "normal": chance.standard_normal,
        "exponential": lambda shape: 1 - chance.exponential(size=shape),
        "log-normal": lambda shape: np.exp(0.5) - np.exp(chance.standard_normal(shape)),
        "Student's t, 2.5 degrees of freedom": lambda shape: chance.standard_t(2.5, shape),
        "1 in 10 fails": lambda shape: 0.05 + 0.03 * chance.standard_normal(shape) - 0.5 * (chance.random(shape) < 0.1),
    }
    print("| differences | prompts | without | with the imagined unit |\n|---|---|---|---|")
    for name, drawn in kinds.items():
        for prompts in (12, 18, 27, 41):
            values = drawn((samples, prompts))
            wrong = [float((_p_values(values, imagined=one) < level).mean()) for one in (False, True)]
            # the same as what a race computes
            assert np.isclose(p_not_above(np.stack([values[0], 0 * values[0]], 1))[0, 1], _p_values(values[:1])[0])
            print(f"| {name} | {prompts} | {wrong[0]:.1e} | {wrong[1]:.1e} |", flush=True)


def _p_values(values: Array, *, imagined: bool = True) -> Array:
    """(samples, prompts) differences -> (samples,) p-values for a mean that is not positive."""
    n = values.shape[1]
    units = n + imagined
    farthest = np.abs(values).max(1) * imagined
    mean = (values.sum(1) - farthest) / units
    squares = (values**2).sum(1) + farthest**2
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt((squares - units * mean**2) / (units - 1) / units)
        return np.asarray(stats.t.sf(mean / error, n - 1))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--tails", action="store_true")
    parser.add_argument("--tolerance", action="store_true")
    parser.add_argument("--demo", type=Path, default=Path("docs/demo-run.zip"))
    options = parser.parse_args(arguments)
    if options.tails:
        tails()
        return
    demo = tempfile.TemporaryDirectory()
    zipfile.ZipFile(io.BytesIO(options.demo.read_bytes())).extractall(demo.name)
    worlds = [(kind, synthetic(kind), (64, 200), options.races) for kind in ("clear", "crowded", "heavy tails")]
    worlds.append(("demo", stored(Path(demo.name)), (96, 384), max(options.races // 2, 1)))
    if options.tolerance:
        print(
            "| world | prompts | tolerance | races | recall | of the near frontier | joules |\n"
            "|---|---|---|---|---|---|---|"
        )
    else:
        print(
            "| world | cells | on the true frontier | prompts | races | recall | races with a loss | joules | floor |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
    for name, world, sizes, races in worlds:
        for prompts in sizes:
            if options.tolerance:
                for tolerance in TOLERANCES:
                    print(near_row(name, world, prompts, races, tolerance), flush=True)
            else:
                print(row(name, world, prompts, races), flush=True)
    demo.cleanup()


if __name__ == "__main__":
    main()
