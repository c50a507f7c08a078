"""One draw for everything that is said of a run: what two statements share is then not drawn twice.

grid (prompts, seeds, cells) ──► Drawn.means      energies of the cells, then qualities metric after metric
                                                  drawn by window groups: statistics that hold energy
                             ──► Drawn.by_prompt  qualities metric after metric, drawn by prompts
                             ──► Drawn.tails      shares of the worst images of the first metric, drawn by prompts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from perjoule.runs.directory import Run
from perjoule.statistics.comparisons import Evidence, arms_of
from perjoule.statistics.grid import Draws, Grid, read_grid
from perjoule.statistics.points import cell_facts
from perjoule.statistics.resampling import RESAMPLES, Means
from perjoule.statistics.tails import at_or_below


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Arrays and draws of a run. `facts`: what does not depend on the metric, by cell."""

    grid: Grid
    means: Means
    by_prompt: Means
    tails: Means
    facts: dict[str, dict[str, Any]]

    def of(self, metric: str) -> tuple[Grid, Draws]:
        """The grid and the draws of one metric: columns are the cells' energies, then their qualities."""
        count, number = len(self.grid.cells), list(self.grid.quality).index(metric)
        qualities = range(number * count, (number + 1) * count)
        joint = self.means.of([*range(count), *(count + c for c in qualities)])
        grid = replace(self.grid, quality={metric: self.grid.quality[metric]})
        return grid, Draws(joint=joint, by_prompt=self.by_prompt.of(list(qualities)))


def draw(run: Run, metrics: Sequence[str], resamples: int = RESAMPLES) -> Drawn:
    """Read the run's arrays and draw once for all `metrics`; the tails are those of the first.

    Raises:
        RunError: If a joule is not positive (names the trial).
    """
    grid = read_grid(run, metrics)
    first = run.metrics[metrics[0]].sign * grid.quality[metrics[0]]
    drawn = grid.drawn(resamples, further=[at_or_below(first)])
    inner = len(grid.cells) * len(metrics)
    return Drawn(
        grid=grid,
        means=drawn.joint,
        by_prompt=drawn.by_prompt.of(slice(inner)),
        tails=drawn.by_prompt.of(slice(inner, None)),
        facts=cell_facts(run.trials),
    )


def evidence_of(run: Run, drawn: Drawn, metric: str) -> Evidence:
    """What comparisons under one metric are made from."""
    grid, draws = drawn.of(metric)
    spec = run.metrics[metric]
    batch_sizes = {variant.name: variant.batch_size for variant in run.suite.variants}
    return Evidence(
        grid=grid,
        means=draws.joint,
        by_prompt=draws.by_prompt,
        spec=spec,
        quality=spec.sign * grid.quality[metric],
        arms=arms_of(grid, drawn.facts, run.families, draws.joint.point, batch_sizes),
    )
