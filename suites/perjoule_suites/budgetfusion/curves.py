"""Curves of quality over steps, for each prompt and seed, read from the run of `collect`.

The run directory is the data set: its scores are the curves, and its trials give the energy. Metrics of the fidelity
track compare with the longest run of the same prompt and seed, like the paper's D-SIM and I-CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.statistics.devices import require_same_device
from perjoule.statistics.grid import read_grid
from perjoule.statistics.lines import fit_line
from perjoule.suite.reading import cells_of
from perjoule.types import Provenance, Variant, weakest
from perjoule.weights.catalogue import weights_name

Array = NDArray[np.float64]

LEAST_PROMPTS = 20
LADDER_POLICIES = ("fixed", "shared-start")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Energy of an image of N steps, base_j + step_j · N in J, with its provenance."""

    base_j: float
    step_j: float
    provenance: Provenance
    boundary: str

    def energy_j(self, steps: NDArray[np.int64]) -> Array:
        """Return J/image at each step count."""
        return self.base_j + self.step_j * np.asarray(steps, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """Scores of each metric for each image along the step grid.

    Attributes:
        variant: The ladder: model, sampler and guidance that the curves belong to.
        prompts: (n,) texts.
        seeds: Number of seeds per prompt.
        grid: (g,) step counts, increasing.
        metrics: (m,) names; higher is better for all.
        values: (n, seeds, g, m) float64.
        cost: Energy model fitted to the run's windows.
        collected_j: Energy of the ladder's images, None if it was not measured.
        image_count: Number of these images.
        digest: SHA-256 of the pipeline's weights.
    """

    variant: Variant
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: tuple[int, ...]
    metrics: tuple[str, ...]
    values: Array
    cost: StepCost
    collected_j: float | None
    image_count: int
    digest: str

    def of(self, metric: str) -> Array:
        """Return the values of one metric: (n, seeds, g)."""
        return np.asarray(self.values[..., self.metrics.index(metric)], np.float64)


def curves_of(run: Run, variant: str | None = None) -> Curves:
    """Return the curves of a scored run.

    Args:
        run: A run with a fixed ladder.
        variant: Name of the ladder; the only one if None.

    Raises:
        EvidenceError: The ladder does not exist, has fewer than three rungs or too few prompts, scores are missing or
            NaN, lower values of a metric are better, or windows have no joules.
    """
    ladder = _ladder(run, variant)
    # the levels of a ladder on schedules with a shared start are its step counts
    cells = {cell.steps or int(cell.level or 0): cell.cell_id for cell in cells_of(run.suite) if cell.variant == ladder}
    grid = tuple(sorted(cells))
    if len(grid) < 3:
        raise EvidenceError(f"{run.path}: variant {ladder.name!r} has {len(grid)} step counts: a curve needs 3")
    if not run.metrics:
        raise EvidenceError(f"{run.path}: not scored yet: run `perjoule score {run.path}`")
    table = read_grid(run, tuple(run.metrics))
    columns = [table.cells.index(cells[steps]) for steps in grid]
    metrics = tuple(run.metrics)
    for name, spec in run.metrics.items():
        if spec.direction != "higher":
            raise EvidenceError(f"{run.path}: metric {name!r}: lower is better; curves need the opposite")
    values = np.stack([table.quality[name][:, :, columns] for name in metrics], axis=-1)
    missing = ~np.isfinite(values)
    if missing.any():
        worst = metrics[int(missing.any(axis=(0, 1, 2)).argmax())]
        raise EvidenceError(
            f"{run.path}: {int(missing.sum())} scores are missing or NaN, e.g. of {worst!r}: a predictor "
            f"cannot be trained on them; see reason_unscored in scores.parquet, then `perjoule score {run.path}`"
        )
    if len(values) < LEAST_PROMPTS:
        raise EvidenceError(
            f"{run.path}: {len(values)} prompts are too few for training; use at least {LEAST_PROMPTS}, better hundreds"
        )
    trials = run.trials.filter(pl.col("variant") == ladder.name)
    joules = trials["energy_j"].drop_nulls()
    return Curves(
        variant=ladder,
        prompts=tuple(run.prompts[prompt_id] for prompt_id in table.prompts),
        seeds=run.suite.protocol.seeds,
        grid=grid,
        metrics=metrics,
        values=values,
        cost=_fit_cost(run, np.array(grid), table.energy_j[:, :, columns]),
        collected_j=float(joules.sum()) if len(joules) else None,
        image_count=int(trials["image_count"].sum()),
        digest=str(run.environment.get("models", {}).get(weights_name(ladder), "")),
    )


def _ladder(run: Run, name: str | None) -> Variant:
    fixed = [v for v in run.suite.variants if v.policy in LADDER_POLICIES]
    ladders = [v for v in fixed if name is None or v.name == name]
    if len(ladders) == 1:
        return ladders[0]
    known = ", ".join(v.name for v in fixed) or "none"
    wanted = "several" if name is None and ladders else f"no variant {name!r}" if name else "no"
    raise EvidenceError(f"{run.path}: {wanted} with a fixed ladder; name one with --variant: {known}")


def _fit_cost(run: Run, grid: NDArray[np.int64], energy_j: Array) -> StepCost:
    """Fit energy to the rungs' means by least squares; it is linear in steps, because each step does the same work."""
    require_same_device(run)
    known = np.isfinite(energy_j)
    if not known.any(axis=(0, 1)).all():
        raise EvidenceError(f"{run.path}: a step count has no joules, but rules about energy need all of them")
    mean_j = np.where(known, energy_j, 0.0).sum((0, 1)) / known.sum((0, 1))
    base_j, step_j = fit_line(grid, mean_j)
    if step_j <= 0:
        raise EvidenceError(f"{run.path}: more steps did not need more joules: measure again on an idle machine")
    return StepCost(
        base_j=max(base_j, 0.0),
        step_j=step_j,
        provenance=weakest(run.trials["provenance"]) or "not stated",
        boundary=str(next(iter(run.trials["boundary"].drop_nulls()), "not stated")),
    )
