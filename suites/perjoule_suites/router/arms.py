"""The arms of a scored run: quality and joules of each image in every cell of fixed steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import EvidenceError, UnknownNameError
from perjoule.runs.directory import Run
from perjoule.statistics.devices import devices_of, require_same_device
from perjoule.statistics.grid import Grid, read_grid
from perjoule.statistics.resampling import Array, over_seeds
from perjoule.statistics.window_groups import Groups
from perjoule.suite.reading import cells_of
from perjoule.types import Cell, Prompt, Provenance, Variant, weakest
from perjoule.weights.catalogue import weights_name


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterArm:
    """A cell that a router can choose.

    Attributes:
        cell_id: Its name in the suite.
        variant: Model, sampler and guidance.
        steps: Step count.
        energy_j: J/image.
        digest: SHA-256 of the weights; empty if the run does not state it.
    """

    cell_id: str
    variant: Variant
    steps: int
    energy_j: float
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmScores:
    """Scores and joules of the images of all arms.

    Attributes:
        run: Path of the run.
        arms: The arms, the cheapest first.
        prompts: (prompts,).
        metric: The metric; higher is better.
        quality: (prompts, seeds, arms).
        energy_j: (prompts, seeds, arms) J/image of the windows.
        groups: (prompts, arms) window groups.
        device: Device of the joules in words.
        provenance: Provenance of the joules.
        boundary: Boundary of the joules.
        spent_j: Energy of all images, None if it was not measured.
        common: (draws, arms) error of the quality that all prompts have in common, e.g. that of few observers; None if
            there is none.
    """

    run: str
    arms: tuple[RouterArm, ...]
    prompts: tuple[Prompt, ...]
    metric: str
    quality: Array
    energy_j: Array
    groups: Groups
    device: str
    provenance: Provenance
    boundary: str
    spent_j: float | None
    common: Array | None = None

    @property
    def prices(self) -> Array:
        """(arms,) J/image."""
        return np.array([arm.energy_j for arm in self.arms])

    def of(self, places: Sequence[int] | NDArray[np.intp]) -> ArmScores:
        """Return some of the arms."""
        index = [int(place) for place in places]
        return replace(
            self,
            arms=tuple(self.arms[i] for i in index),
            quality=self.quality[:, :, index],
            energy_j=self.energy_j[:, :, index],
            groups=self.groups[:, index],
            common=None if self.common is None else self.common[:, index],
        )


def read_arms(run: Run, metric: str | None = None, variants: Sequence[str] = ()) -> ArmScores:
    """Return the arms of a scored run. If observers chose between images: the arms and prompts that they were shown.

    Args:
        run: A run with fixed step counts of one or several models.
        metric: The metric; the suite's primary one by default.
        variants: Use only these variants; all by default.

    Raises:
        UnknownNameError: The run has no such metric or variant.
        EvidenceError: It has fewer than two arms, scores or joules are missing, or the metric does not compare them.
    """
    cells = _cells(run, variants)
    name = _checked_metric(run, metric or run.suite.metrics.primary, cells)
    require_same_device(run)
    grid = read_grid(run, (name,))
    columns = [grid.cells.index(cell.cell_id) for cell in cells]
    if run.metrics[name].track == "preference":
        grid, columns = _shown(run, grid, name, columns)
        cells = [next(cell for cell in cells if cell.cell_id == grid.cells[column]) for column in columns]
    quality, energy_j = grid.quality[name][:, :, columns], grid.energy_j[:, :, columns]
    _require_complete(run, name, cells, quality, energy_j)
    by_id = {prompt.prompt_id: prompt for prompt in run.prompt_set}
    if not all(prompt_id in by_id and by_id[prompt_id].text for prompt_id in grid.prompts):
        raise EvidenceError(f"{run.path}: some prompts have no text, which a router reads: add the column `prompt`")
    prices = over_seeds(energy_j)
    means = np.where(np.isfinite(prices), prices, 0.0).sum(0) / np.isfinite(prices).sum(0)
    spent = run.trials["energy_j"].drop_nulls()
    digests = run.environment.get("models", {})
    scores = ArmScores(
        run=str(run.path),
        arms=tuple(
            RouterArm(
                cell_id=cell.cell_id,
                variant=cell.variant,
                steps=cell.steps or 0,
                energy_j=float(price),
                digest=str(digests.get(weights_name(cell.variant), "")),
            )
            for cell, price in zip(cells, means, strict=True)
        ),
        prompts=tuple(by_id[prompt_id] for prompt_id in grid.prompts),
        metric=name,
        quality=quality,
        energy_j=energy_j,
        groups=grid.groups[:, columns],
        device=device_of(run),
        provenance=weakest(run.trials["provenance"]) or "not stated",
        boundary=str(next(iter(run.trials["boundary"].drop_nulls()), "not stated")),
        spent_j=float(spent.sum()) if len(spent) else None,
        common=grid.common_errors[name][:, columns] if name in grid.common_errors else None,
    )
    return scores.of(np.argsort(means, kind="stable"))


def device_of(run: Run) -> str:
    """Return the device of a run's joules in words: a board, the CPU, or a profile of counted work."""
    gpus = run.environment.get("gpu") or [{}]
    known = ", ".join(devices_of(run.trials)) or gpus[0].get("name") or run.environment.get("cpu")
    return str(known or "not stated")


def places_of(arms: Sequence[RouterArm], run: ArmScores) -> NDArray[np.intp]:
    """Return the place of each of a router's arms among those of a run.

    Raises:
        EvidenceError: The run has no such arm, or one with other settings or weights (the message names both).
    """
    known = {arm.cell_id: place for place, arm in enumerate(run.arms)}
    missing = [arm.cell_id for arm in arms if arm.cell_id not in known]
    if missing:
        raise EvidenceError(
            f"{run.run} has other arms than the router: {', '.join(missing)} are missing; it has {', '.join(known)}: "
            "measure the router's arms, or train a router on this suite"
        )
    for arm in arms:
        other = run.arms[known[arm.cell_id]]
        for key, own, its in _differences(arm, other):
            raise EvidenceError(
                f"{run.run}: arm {arm.cell_id}: {key} is {its!r}, but the router was trained with {own!r}: "
                "train a router on this suite"
            )
    return np.array([known[arm.cell_id] for arm in arms], np.intp)


def require_disjoint(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> None:
    """Refuse prompts that two sets have in common. Raises EvidenceError."""
    shared = set(first) & set(second)
    if shared:
        raise EvidenceError(
            f"{len(shared)} prompts are in both {names[0]} and {names[1]}, e.g. {min(shared)!r}: a promise holds only "
            "for prompts that the router has not seen: use other prompts"
        )


def _cells(run: Run, variants: Sequence[str]) -> list[Cell]:
    if not run.metrics:
        raise EvidenceError(f"{run.path}: not scored yet: run `perjoule score {run.path}`")
    seen = set(run.windows["cell_id"])
    fixed = [cell for cell in cells_of(run.suite) if cell.steps is not None and cell.variant.role != "predicted"]
    names = list(dict.fromkeys(cell.variant.name for cell in fixed))
    for name in variants:
        if name not in names:
            raise UnknownNameError("variant of fixed steps", name, names, str(run.path))
    cells = [cell for cell in fixed if cell.cell_id in seen and (not variants or cell.variant.name in variants)]
    if len(cells) < 2:
        raise EvidenceError(
            f"{run.path}: {len(cells)} finished arms of fixed steps: a router chooses between 2 or more; add variants "
            "or step counts to the suite"
        )
    return cells


def _shown(run: Run, grid: Grid, metric: str, columns: Sequence[int]) -> tuple[Grid, list[int]]:
    """Return the grid of the prompts about which observers were asked, with means over their seeds, and their arms."""
    asked = np.isfinite(over_seeds(grid.quality[metric]))
    arms = [column for column in columns if asked[:, column].any()]
    rows = np.flatnonzero(asked[:, arms].all(1))
    if len(arms) < 2 or not len(rows):
        raise EvidenceError(
            f"{run.path}: {len(arms)} arms of fixed steps, and {len(rows)} prompts for all of them, in the answers: a "
            "router is judged by choices between the images of 2 arms or more"
        )
    left = grid.of_prompts(rows)
    quality = {metric: over_seeds(left.quality[metric])[:, None]}
    return replace(left, energy_j=over_seeds(left.energy_j)[:, None], quality=quality), arms


def _checked_metric(run: Run, name: str, cells: Sequence[Cell]) -> str:
    if name not in run.metrics:
        raise UnknownNameError("metric of the run", name, run.metrics, str(run.path))
    spec = run.metrics[name]
    if spec.direction != "higher":
        raise EvidenceError(f"{run.path}: metric {name!r}: lower is better; routers need the opposite")
    models = {(cell.variant.family_name, weights_name(cell.variant)): cell.variant.name for cell in cells}
    if (spec.track == "fidelity" or spec.needs_reference) and len(models) > 1:
        others = [m for m, s in run.metrics.items() if s.track != "fidelity" and not s.needs_reference]
        raise EvidenceError(
            f"{run.path}: metric {name!r} compares an image with the longest run of its own model, so its numbers say "
            f"nothing about which of {', '.join(models.values())} is better: use another --metric "
            f"({', '.join(others) or 'score an absolute one first'}), or the arms of one model (--variant)"
        )
    return name


def _require_complete(run: Run, metric: str, cells: Sequence[Cell], quality: Array, energy_j: Array) -> None:
    missing = ~np.isfinite(quality)
    if missing.any():
        worst = cells[int(missing.sum((0, 1)).argmax())].cell_id
        raise EvidenceError(
            f"{run.path}: {int(missing.sum())} scores of {metric} are missing or NaN, e.g. of {worst}: see "
            f"reason_unscored in scores.parquet, then `perjoule score {run.path}`"
        )
    silent = [cell.cell_id for i, cell in enumerate(cells) if not np.isfinite(energy_j[..., i]).any()]
    if silent:
        raise EvidenceError(f"{run.path}: {', '.join(silent)} have no joules, by which a router chooses: measure them")


def _differences(one: RouterArm, other: RouterArm) -> list[tuple[str, object, object]]:
    """Return what the images of two arms differ in: key and both values."""
    pairs: list[tuple[str, object, object]] = [("steps", one.steps, other.steps)]
    first, second = one.variant.pipeline, other.variant.pipeline
    pairs += [(field.name, getattr(first, field.name), getattr(second, field.name)) for field in fields(Variant)]
    if one.digest and other.digest:
        pairs.append(("the digest of the weights", one.digest[:12], other.digest[:12]))
    return [pair for pair in pairs if pair[1] != pair[2]]
