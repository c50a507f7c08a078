"""Judges a variant's new step count as a change of the same cell, if the step count is the change under test.

A cell is named by its variant and step count, so without `--change steps` a run at 13 steps lacks the cell of 12. With
it, the cells of a variant that has one fixed step count in each run are the same cell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
from numpy import float64
from numpy.typing import NDArray

from perjoule.runs.directory import Run
from perjoule.suite.reading import cells_of
from perjoule.types import Cell, Judges, MetricSpec, Prompt, Suite, Work

STEPS, VARIANTS = "steps", "variants"


@dataclass(frozen=True, kw_only=True)
class RunAsBaseline(Run):
    """A run whose cells have the names of the baseline's cells.

    Attributes:
        base: The run as it is.
        names: Cell id of the run -> cell id of the baseline, for cells that are renamed.
    """

    base: Run = field(repr=False)
    names: Mapping[str, str]

    def _renamed(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("cell_id").replace(dict(self.names)))

    @cached_property
    def environment(self) -> dict[str, Any]:
        """System under test, meter and model digests."""
        return self.base.environment

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return self.base.suite

    @cached_property
    def prompt_set(self) -> tuple[Prompt, ...]:
        """Prompts of the run."""
        return self.base.prompt_set

    @cached_property
    def metrics(self) -> dict[str, MetricSpec]:
        """Specs of the scored metrics."""
        return self.base.metrics

    @cached_property
    def works(self) -> dict[str, Work]:
        """Counted work by trial id."""
        return self.base.works

    @cached_property
    def trials(self) -> pl.DataFrame:
        """One row per trial."""
        return self._renamed(self.base.trials)

    @cached_property
    def images(self) -> pl.DataFrame:
        """One row per image."""
        return self._renamed(self.base.images)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row per image and metric."""
        return self._renamed(self.base.scores)

    @property
    def judges(self) -> Judges | None:
        """Who judged the quality."""
        return self.base.judges

    @property
    def common_errors(self) -> Mapping[str, Mapping[str, NDArray[float64]]]:
        """Errors that all prompts have in common, by metric and cell."""
        return {
            metric: {self.names.get(cell, cell): draws for cell, draws in by_cell.items()}
            for metric, by_cell in self.base.common_errors.items()
        }


def with_baseline_cells(baseline: Run, candidate: Run, change: tuple[str, ...]) -> tuple[Run, tuple[str, ...]]:
    """Return the candidate with the baseline's names of cells, and a note for each variant whose step count changed."""
    changed = _changed(baseline.suite, candidate.suite, change)
    if not changed:
        return candidate, ()
    notes = tuple(
        f"{name}: {before.steps} steps in the baseline, {after.steps} in the candidate; the change under test, judged "
        f"as the cell {before.cell_id}"
        for name, (before, after) in changed.items()
    )
    names = renamed_cells(baseline.suite, candidate.suite, change)
    return RunAsBaseline(path=candidate.path, base=candidate, names=names), notes


def renamed_cells(baseline: Suite, candidate: Suite, change: Collection[str]) -> dict[str, str]:
    """Return the cell ids of the candidate, with those of the baseline, of variants whose step count changed."""
    return {after.cell_id: before.cell_id for before, after in _changed(baseline, candidate, change).values()}


def _changed(baseline: Suite, candidate: Suite, change: Collection[str]) -> dict[str, tuple[Cell, Cell]]:
    """Return both cells of each variant whose step count changed, if that is the change under test."""
    if not {STEPS, VARIANTS} & set(change):
        return {}
    before, after = _single_cells(baseline), _single_cells(candidate)
    pairs = {name: (before[name], after[name]) for name in before if name in after}
    return {name: (old, new) for name, (old, new) in pairs.items() if old.cell_id != new.cell_id}


def _single_cells(suite: Suite) -> dict[str, Cell]:
    """Return the cell of each variant that has one fixed step count."""
    by_variant: dict[str, list[Cell]] = {}
    for cell in cells_of(suite):
        by_variant.setdefault(cell.variant.name, []).append(cell)
    return {
        name: cells[0]
        for name, cells in by_variant.items()
        if len(cells) == 1 and cells[0].variant.policy == "fixed" and cells[0].steps is not None
    }
