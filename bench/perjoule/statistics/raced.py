"""A race on a run's files: its design, and each of its looks, which can be computed again at any time.

A look rests on the trials and scores of the first prompts of the run, of the cells that earlier looks have left, and on
nothing else: no random numbers, no clock. `replay` computes all looks of a stored run again.

Some cells are needed even if they are dominated, and stay as long as the cells that need them:

| needed | as long as | because |
|---|---|---|
| the anchor of an arm: the ladder it is compared with | a cell of the arm is measured | savings and BD-energy |
| the controls of a step policy | a cell of the policy is measured | the comparison with controls |
| the reference of full-reference scores | another cell of its family is measured | these scores |
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.errors import EvidenceError, UsageError
from perjoule.runs.directory import Run
from perjoule.runs.race_record import DroppedCell, Race, RaceLook
from perjoule.runs.references import references
from perjoule.statistics.comparisons import Arm, anchor_of, arms_of
from perjoule.statistics.facts import cell_facts
from perjoule.statistics.grid import Grid, read_grid
from perjoule.statistics.racing import ALPHA, FIRST_LOOK, dominations, level_of, look_prompts
from perjoule.statistics.resampling import Array, over_seeds
from perjoule.statistics.window_groups import common_groups
from perjoule.suite.reading import cells_of, images_per_window
from perjoule.types import MetricSpec, Suite


def new_race(suite: Suite, prompts: int, full_reference: Sequence[str] = ()) -> Race:
    """Return the design of a race, before anything is measured.

    Args:
        suite: The suite.
        prompts: Number of its prompts.
        full_reference: Those of its metrics that compare images with the longest run of their family.

    Raises:
        UsageError: If the suite has one cell, too few prompts, or cells that may change during the run.
    """
    cells = tuple(cell.cell_id for cell in cells_of(suite))
    if len(cells) < 2:
        raise UsageError(
            f"--race: suite {suite.name!r} has one cell ({cells[0]}), and a race compares cells: add cells"
        )
    looks = look_prompts(prompts, images_per_window(suite))
    if not looks:
        raise UsageError(
            f"--race: {prompts} prompts in windows of {images_per_window(suite)} images are too few: the first look is "
            f"after {FIRST_LOOK} prompts or more, in whole windows, and a fifth of the prompts must be left then; use "
            "more prompts, smaller windows (protocol.images_per_window), or leave --race out"
        )
    if suite.protocol.on_out_of_memory != "fail":
        raise UsageError(
            f"--race: protocol.on_out_of_memory = {suite.protocol.on_out_of_memory!r} replaces cells during the run: "
            "set it to 'fail', or leave --race out"
        )
    return Race(
        metric=suite.metrics.primary,
        alpha=ALPHA,
        level=level_of(ALPHA, len(looks), len(cells)),
        prompts=prompts,
        cells=cells,
        look_prompts=looks,
        full_reference=tuple(full_reference),
    )


def take_look(run: Run, race: Race) -> RaceLook:
    """Compare the cells that the looks of `race` have left, after the prompts of its next look.

    Raises:
        EvidenceError: If no two cells can be compared, because they have no scores or no joules.
    """
    prompts = race.look_prompts[len(race.looks)]
    grid = _grid_of(run, race, prompts)
    spec = run.metrics[race.metric]
    quality = spec.sign * over_seeds(grid.quality[race.metric])
    energy_j = _by_window_group(grid, exact=run.is_counted)
    _require_comparable(run, race, quality, energy_j)
    facts = cell_facts(run.trials)
    families = [run.families[facts[cell].variant] for cell in grid.cells]
    needed = _needed(run, race, spec)
    dominated = dominations(
        energy_j,
        quality,
        race.level,
        families=np.array(families) if spec.track == "fidelity" else None,
        exact_energy=run.is_counted,
    )
    dropped = tuple(
        DroppedCell(
            cell_id=grid.cells[one.column],
            by=grid.cells[one.by],
            prompts=prompts,
            energy_difference_j=one.energy_difference_j,
            quality_difference=spec.sign * one.quality_difference,
            p_value=one.p_value,
        )
        for one in dominated
        if grid.cells[one.column] not in needed
    )
    return RaceLook(prompts=prompts, compared=race.remaining, needed=needed, dropped=dropped)


def replay(run: Run) -> Iterator[tuple[RaceLook, RaceLook]]:
    """Yield each stored look of a race with the same look computed again from the run's trials and scores.

    Raises:
        EvidenceError: If the run is not a race.
    """
    stored = run.race
    if stored is None:
        raise EvidenceError(f"{run.path} is not a race: it has no race.json")
    for number, look in enumerate(stored.looks):
        yield look, take_look(run, replace(stored, looks=stored.looks[:number]))


def dropped_cells(run: Run) -> dict[str, str]:
    """Return why a race stopped measuring cells, by cell id; empty for other runs."""
    return {} if run.race is None else {cell_id: cell.words for cell_id, cell in run.race.dropped.items()}


def prompt_places(run: Run, grid: Grid, prompts: int) -> NDArray[np.intp]:
    """Return the places in `grid` of the first `prompts` prompts of the run."""
    place = {prompt: number for number, prompt in enumerate(grid.prompts)}
    first = [prompt.prompt_id for prompt in run.prompt_set[:prompts]]
    return np.array([place[prompt] for prompt in first if prompt in place], np.intp)


def _grid_of(run: Run, race: Race, prompts: int) -> Grid:
    grid = read_grid(run, [race.metric])
    grid = grid.of_prompts(prompt_places(run, grid, prompts))
    remaining = set(race.remaining)
    return grid.of_cells([column for column, cell in enumerate(grid.cells) if cell in remaining])


def _by_window_group(grid: Grid, *, exact: bool) -> Array:
    """(window groups, cells) J/image; NaN for cells of a single group, of whose scatter nothing is known."""
    energy_j = over_seeds(grid.energy_j)
    labels, lone = common_groups(grid.groups, grid.energy_known)
    if not exact:
        energy_j = np.where(lone, np.nan, energy_j)
    return np.stack([_mean(energy_j[labels == label]) for label in np.unique(labels)])


def _mean(values: Array) -> Array:
    known = np.isfinite(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _require_comparable(run: Run, race: Race, quality: Array, energy_j: Array) -> None:
    for values, what, remedy in (
        (quality, f"scores of {race.metric}", "mend the metric"),
        (energy_j, "joules", "see `perjoule doctor`"),
    ):
        if np.isfinite(values).any(0).sum() < 2:
            raise EvidenceError(
                f"{run.path}: the race cannot compare cells after {race.look_prompts[len(race.looks)]} prompts: fewer "
                f"than two cells have {what}{_reasons(run, race)}: {remedy} and continue with --resume, or start again "
                "without --race"
            )


def _reasons(run: Run, race: Race) -> str:
    scores = run.scores.filter(pl.col("metric") == race.metric)["reason_unscored"].drop_nulls()
    reason = next(iter(scores), None)
    return f" ({reason})" if reason else ""


def needed_cells(
    arms: Sequence[Arm], cells: Sequence[str], remaining: Collection[str], spec: MetricSpec
) -> dict[str, str]:
    """Return the cells of anchors and controls that arms with remaining cells need, each with the reason."""
    needed: dict[str, str] = {}
    for arm in arms:
        if any(cells[column] in remaining for column in arm.columns):
            for other, why in _needed_by(arm, arms, spec):
                needed |= {cells[column]: why for column in other.columns if cells[column] not in needed}
    return needed


def _needed(run: Run, race: Race, spec: MetricSpec) -> dict[str, str]:
    """Return the cells that a look must not drop, with the reason."""
    grid = read_grid(run, [])
    batch_sizes = {variant.name: variant.batch_size for variant in run.suite.variants}
    arms = arms_of(grid, cell_facts(run.trials), run.families, grid.drawn(0).energy.point, batch_sizes)
    remaining = set(race.remaining)
    needed = _references(run, remaining, race.full_reference) | needed_cells(arms, grid.cells, remaining, spec)
    return {cell: why for cell, why in sorted(needed.items()) if cell in remaining}


def _needed_by(arm: Arm, arms: Sequence[Arm], spec: MetricSpec) -> Iterator[tuple[Arm, str]]:
    anchor = anchor_of(arm, arms, spec)
    if anchor is not None:
        yield anchor, f"{arm.variant} is compared with {anchor.variant}"
    if arm.role == "predicted":
        for other in arms:
            if other.role == "control" and other.family == arm.family:
                yield other, f"{other.variant} is a control of {arm.variant}"


def _references(run: Run, remaining: set[str], metrics: Sequence[str]) -> dict[str, str]:
    """Return the cells whose images are references of images of other cells that are still measured."""
    if not metrics:
        return {}
    images = run.images.filter(pl.col("cell_id").is_in(list(remaining)))
    cell_of = dict(zip(images["image_id"], images["cell_id"], strict=True))
    pairs = {(cell_of[image], cell_of[reference]) for image, reference in references(images, run.suite).items()}
    return {reference: f"reference of {', '.join(metrics)}" for cell, reference in pairs if cell != reference}
