"""One draw for everything that is said of a run: what two statements share is then not drawn twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perjoule.runs.directory import Run
from perjoule.statistics.comparisons import Evidence, arms_of
from perjoule.statistics.facts import CellFacts, cell_facts
from perjoule.statistics.grid import Draws, Grid, read_grid
from perjoule.statistics.resampling import RESAMPLES
from perjoule.statistics.tails import at_or_below

_KEPT = "perjoule.drawn"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Arrays and draws of a run. `facts`: what does not depend on the metric, by cell."""

    grid: Grid
    draws: Draws
    facts: dict[str, CellFacts]

    def of(self, metric: str) -> Grid:
        """The arrays of one metric."""
        return replace(self.grid, quality={metric: self.grid.quality[metric]})


def draw(run: Run, metrics: Sequence[str], resamples: int = RESAMPLES) -> Drawn:
    """Read the run's arrays and draw once for all `metrics`; the tails are those of the first.

    Raises:
        RunError: If a joule is not positive (names the trial).
    """
    grid = read_grid(run, metrics)
    tails = at_or_below(run.metrics[metrics[0]].sign * grid.quality[metrics[0]]) if metrics else None
    return Drawn(grid=grid, draws=grid.drawn(resamples, tails=tails), facts=cell_facts(run.trials))


def drawn_once(run: Run) -> Drawn:
    """The draws of all metrics, the primary first. They are made once and stored with the run."""
    cache = vars(run)
    if _KEPT not in cache:
        order = {name: i for i, name in enumerate((run.suite.metrics.primary, *run.suite.metrics.names))}
        cache[_KEPT] = draw(run, sorted(run.metrics, key=lambda name: (order.get(name, len(order)), name)))
    drawn: Drawn = cache[_KEPT]
    return drawn


def drawn_for(run: Run, metric: str, resamples: int) -> Drawn:
    """The draws that are stored with the run if they fit, else draws of this metric."""
    drawn: Drawn | None = vars(run).get(_KEPT)
    if drawn is not None and resamples == RESAMPLES and drawn.draws.metrics[:1] == (metric,):
        return drawn
    return draw(run, [metric], resamples)


def evidence_of(run: Run, drawn: Drawn, metric: str) -> Evidence:
    """What comparisons under one metric are made from.

    A cell that no observer was asked about is in no arm. Neither is a cell that a race dropped if others of its arm
    remain: the arm is compared on the prompts of its remaining cells.
    """
    grid = drawn.of(metric)
    spec = run.metrics[metric]
    energy = drawn.draws.energy.point
    if run.judges is not None and metric == run.suite.metrics.primary:
        energy = np.where(np.isfinite(grid.quality[metric]).any((0, 1)), energy, np.nan)
    energy = np.where(_left_by_race(run, grid, drawn.facts), np.nan, energy)
    batch_sizes = {variant.name: variant.batch_size for variant in run.suite.variants}
    return Evidence(
        grid=grid,
        draws=drawn.draws,
        spec=spec,
        quality=spec.sign * grid.quality[metric],
        arms=arms_of(grid, drawn.facts, run.families, energy, batch_sizes),
    )


def _left_by_race(run: Run, grid: Grid, facts: dict[str, CellFacts]) -> NDArray[np.bool_]:
    """(cells,) True for cells that a race dropped, unless it dropped the whole arm."""
    dropped = run.race.dropped if run.race is not None else {}
    remaining = {facts[cell].variant for cell in grid.cells if cell not in dropped}
    return np.array([cell in dropped and facts[cell].variant in remaining for cell in grid.cells], bool)
