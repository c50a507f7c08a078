"""One draw of prompts for everything that is said of a run: what two statements share is then not drawn twice.

grid (prompts, seeds, cells) ──► Drawn.means   energies of the cells, then qualities metric after metric
                             ──► Drawn.tails   shares of the worst images of the first metric, on the same draws
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from perjoule.run_directory import Run
from perjoule.statistics.comparisons import Evidence, arms_of
from perjoule.statistics.grid import Grid, read_grid
from perjoule.statistics.points import cell_facts, family_of, sign_of
from perjoule.statistics.resampling import RESAMPLES, Means
from perjoule.statistics.tails import at_or_below


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Arrays and draws of a run. `facts`: what does not depend on the metric, by cell."""

    grid: Grid
    means: Means
    tails: Means
    facts: dict[str, dict[str, Any]]

    def of(self, metric: str) -> tuple[Grid, Means]:
        """The grid and the draws of one metric: columns are the cells' energies, then their qualities."""
        count, number = len(self.grid.cells), list(self.grid.quality).index(metric) + 1
        columns = [*range(count), *range(number * count, (number + 1) * count)]
        return replace(self.grid, quality={metric: self.grid.quality[metric]}), self.means.of(columns)


def draw(run: Run, metrics: Sequence[str], resamples: int = RESAMPLES) -> Drawn:
    """Read the run's arrays and draw prompts once for all `metrics`; the tails are those of the first.

    Raises:
        RunError: If a joule is not positive (names the trial).
    """
    grid = read_grid(run, metrics)
    first = sign_of(run.metrics[metrics[0]]) * grid.quality[metrics[0]]
    drawn = grid.resampled(resamples, beside=[at_or_below(first)])
    inner = len(grid.cells) * (1 + len(metrics))
    return Drawn(grid=grid, means=drawn.of(slice(inner)), tails=drawn.of(slice(inner, None)),
                 facts=cell_facts(run.trials))  # fmt: skip


def evidence_of(run: Run, drawn: Drawn, metric: str) -> Evidence:
    """What comparisons under one metric are made from."""
    grid, means = drawn.of(metric)
    spec = run.metrics[metric]
    batch_sizes = {variant.name: variant.batch_size for variant in run.suite.variants}
    return Evidence(
        grid=grid,
        means=means,
        spec=spec,
        quality=sign_of(spec) * grid.quality[metric],
        arms=arms_of(grid, drawn.facts, family_of(run), means.point, batch_sizes),
    )
