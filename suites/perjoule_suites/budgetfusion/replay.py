"""Arms as arrays: a run's ladders, arms that a rule would draw on them, and arms that the run has drawn.

    ladder: scores (prompts, seeds, rungs)  ─┐
    rule: steps (prompts, levels)           ─┴─►  replayed arm: scores (prompts, seeds, levels)
    adaptive cells of the run               ───►  drawn arm: scores and steps of its own images

The image of a prompt, a seed and a number of steps does not depend on how the number was chosen. So an arm that reads
the prompt alone draws the images of the ladder, and one stored ladder serves any predictor, rule, level and control.
Arms that look at the first evaluations have to be drawn.

Joules are those of the steps: base + step · N, see `Cost`. They contain neither the noise of the windows nor the
losses of batches that are not full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.errors import EvidenceError, PerjouleError, UnknownNameError
from perjoule.runs.directory import Run
from perjoule.statistics.curves import Curve, FidelityCurve
from perjoule.statistics.facts import CellFacts, cell_facts
from perjoule.statistics.grid import Grid, read_grid
from perjoule.statistics.lines import fit_line
from perjoule.statistics.resampling import over_seeds
from perjoule.statistics.window_groups import Groups
from perjoule.suite.reading import cells_of
from perjoule.types import Cell, Role, Variant, weakest
from perjoule_suites.budgetfusion.curves import LADDER_POLICIES, Array
from perjoule_suites.budgetfusion.peek import MOST_SHARED
from perjoule_suites.budgetfusion.predictor import read_config
from perjoule_suites.budgetfusion.records import Cost
from perjoule_suites.budgetfusion.rules import CurveForecast

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOfArm:
    """The rule of an arm, for measures that depend on it; the joules are those that it reckons with."""

    name: str
    metric: str
    miss_rate: float
    base_j: float
    step_j: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """A swept arm: a ladder, or adaptive steps.

    Attributes:
        name: Unique in the evaluation.
        variant: The variant that draws (or would draw) its images.
        role: `predicted`, `control`, `fixed` or `distilled`.
        levels: (l,) values of its parameter; the steps of a ladder.
        cells: Its cells, if the run has drawn it.
        steps: (prompts, seeds, l) denoising steps of each image.
        quality: Metric -> (prompts, seeds, l) scores; higher is better.
        decision_j: (l,) joules of the decision, per image.
        rule: Its rule; None for ladders.
        development: (l,) mean steps on the predictor's calibration prompts, and savings there by metric; None if drawn.
    """

    name: str
    variant: Variant
    role: Role
    levels: tuple[float, ...]
    steps: Array
    quality: Mapping[str, Array]
    decision_j: Array
    cells: tuple[Cell, ...] = ()
    rule: RuleOfArm | None = None
    development: tuple[tuple[float, Mapping[str, float]], ...] | None = None

    @property
    def family(self) -> str:
        """The family of its variant."""
        return self.variant.family_name

    @property
    def rungs(self) -> list[int]:
        """The step counts of a ladder."""
        return [int(level) for level in self.levels]

    def index_on(self, ladder: Arm) -> Index | None:
        """Return (prompts, seeds, l) rungs of a ladder that the arm's images have; None if it lacks one of them."""
        if not set(self.steps[np.isfinite(self.steps)]) <= set(ladder.rungs):
            return None
        return np.asarray(np.searchsorted(ladder.rungs, np.nan_to_num(self.steps, nan=ladder.rungs[0])), np.intp)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arms:
    """The arms of a run.

    Attributes:
        run: The run.
        grid: Its measured joules and scores.
        ladders: Arms of fixed steps by name, in the order of the suite.
        adaptive: Other arms by name: those of the run, then those that are replayed.
        costs: Family -> joules of an image by its steps.
        kinds: (prompts,) what the table of kinds knows of each prompt: its category; empty if it has none.
    """

    run: Run
    grid: Grid
    ladders: Mapping[str, Arm]
    adaptive: Mapping[str, Arm]
    costs: Mapping[str, Cost]
    kinds: NDArray[np.str_]

    @cached_property
    def facts(self) -> Mapping[str, CellFacts]:
        """Seconds, evaluations and operations of each cell."""
        return cell_facts(self.run.trials)

    @property
    def texts(self) -> list[str]:
        """The prompts, in the order of the grid. Raises EvidenceError if the run does not contain a text."""
        if missing := [prompt for prompt in self.grid.prompts if prompt not in self.run.prompts]:
            raise EvidenceError(f"{self.run.path}: prompt {missing[0]!r} has no text: steps cannot be predicted")
        return [self.run.prompts[prompt] for prompt in self.grid.prompts]

    def anchor(self, family: str) -> Arm | None:
        """Return the first fixed ladder of a family."""
        fixed = (one for one in self.ladders.values() if one.family == family and one.variant.policy == "fixed")
        return next(fixed, None)

    def ladder_of(self, variant: Variant) -> Arm | None:
        """Return the ladder whose images a variant draws: of its family, its schedule and sampler if possible."""
        family = [one for one in self.ladders.values() if one.family == variant.family_name]
        return min(
            family,
            key=lambda one: (
                has_short_first(one.variant) != has_short_first(variant),
                replace(one.variant.pipeline, schedule="") != replace(variant.pipeline, schedule=""),
            ),
            default=None,
        )

    def curve(self, arm: Arm, metric: str, base_steps: float | None = None) -> Any:
        """Return the curve of an arm by the joules of its steps: a `Curve`, or a `FidelityCurve` of its family."""
        cost, anchor = self.costs[arm.family], self.anchor(arm.family)
        cost = cost if base_steps is None else cost.scaled(base_steps)
        work = arm.steps * (self._evaluations(arm) / self._evaluations(anchor) if anchor else 1.0)
        return self._curve(arm, metric, cost.base_j + cost.step_j * work + arm.decision_j)

    def curve_as_run(self, arm: Arm, metric: str) -> Any:
        """Return the curve of a drawn arm by the joules of its windows."""
        columns = [self.grid.cells.index(cell.cell_id) for cell in arm.cells]
        return self._curve(arm, metric, self.grid.energy_j[:, :, columns], groups=self.grid.groups[:, columns])

    def _curve(self, arm: Arm, metric: str, energy_j: Array, groups: Groups | None = None) -> Any:
        quality = arm.quality[metric]
        known = np.where(np.isfinite(quality), energy_j, np.nan)
        if self.run.metrics[metric].track == "fidelity":
            return FidelityCurve(energy_j=known, quality=quality, name=arm.name, family=arm.family, groups=groups)
        common = self._common_errors(arm, metric)
        return Curve(energy_j=known, quality=quality, name=arm.name, groups=groups, common=common)

    def _common_errors(self, arm: Arm, metric: str) -> Array | None:
        """Return (draws, levels) errors that all prompts have in common; those of a replayed arm are of its rungs."""
        errors = self.grid.common_errors.get(metric)
        if errors is None:
            return None
        ladder = arm if arm.cells else self.ladder_of(arm.variant)
        assert ladder is not None
        of_cells = self.run.metrics[metric].sign * errors[:, [self.grid.cells.index(c.cell_id) for c in ladder.cells]]
        if arm.cells:
            return of_cells
        index, known = arm.index_on(ladder), np.isfinite(arm.quality[metric])
        shares = [(known & (index == rung)).sum((0, 1)) / known.sum((0, 1)) for rung in range(len(ladder.rungs))]
        return np.asarray(of_cells @ np.array(shares), np.float64)

    def _evaluations(self, arm: Arm) -> float:
        """Return denoiser evaluations per step of the ladder whose images an arm has; 1 if they were not counted."""
        ladder = arm if arm.name in self.ladders else self.ladder_of(arm.variant)
        known = [self.facts[cell.cell_id] for cell in ladder.cells] if ladder else []
        counted = [(f.nfe_mean, f.steps_mean) for f in known if f.nfe_mean and f.steps_mean]
        return sum(n for n, _ in counted) / sum(steps for _, steps in counted) if counted else 1.0


def arms_of(run: Run, base_steps: float | None = None) -> Arms:
    """Return the arms of a scored run. If observers chose between images: of the cells and prompts they were shown.

    Args:
        run: The run.
        base_steps: Joules of an image at 0 steps, in steps; None takes them from the run, see `_cost`.

    Raises:
        EvidenceError: It is not scored, has no fixed ladder, or a ladder has no joules.
    """
    if not run.metrics:
        raise EvidenceError(f"{run.path}: not scored yet: run `perjoule score {run.path}`")
    grid, asked = _asked(run, read_grid(run, tuple(run.metrics)))
    by_variant: dict[str, list[Cell]] = {}
    for cell in cells_of(run.suite):
        if cell.cell_id in asked:
            by_variant.setdefault(cell.variant.name, []).append(cell)
    facts, steps = cell_facts(run.trials), _steps(run, grid)
    arms = {name: _arm(run, grid, cells, steps) for name, cells in by_variant.items()}
    ladders = {name: arm for name, arm in arms.items() if arm.variant.policy in LADDER_POLICIES}
    if not any(arm.variant.policy == "fixed" for arm in ladders.values()):
        where = "in the answers of the study" if run.judges else f"{run.path}"
        raise EvidenceError(f"{where}: no variant with the policy 'fixed': there is nothing to compare with")
    costs: dict[str, Cost] = {}
    for ladder in ladders.values():
        if ladder.variant.policy == "fixed" and ladder.family not in costs:
            costs[ladder.family] = _cost(run, grid, ladder, facts, base_steps)
    arms = {name: _with_decision(arm, run, ladders, grid, facts) for name, arm in arms.items()}
    adaptive = {name: arm for name, arm in arms.items() if name not in ladders and arm.family in costs}
    categories = {prompt.prompt_id: prompt.category for prompt in run.prompt_set}
    kinds = np.array([categories.get(prompt, "") for prompt in grid.prompts])
    return Arms(run=run, grid=grid, ladders=ladders, adaptive=adaptive, costs=costs, kinds=kinds)


def replayed(
    ladder: Arm, name: str, role: Role, steps: Sequence[Sequence[int]], levels: Sequence[float], **more: Any
) -> Arm:
    """Return the arm that would draw `steps` (levels, prompts) on a ladder. **more: further fields of `Arm`."""
    counts = np.array(steps, np.float64).T  # (prompts, levels)
    rungs = np.searchsorted(ladder.rungs, counts)[:, None]
    drawn = {
        metric: np.take_along_axis(values, np.broadcast_to(rungs, (*values.shape[:2], rungs.shape[2])), 2)
        for metric, values in ladder.quality.items()
    }
    shape = next(iter(drawn.values())).shape
    return Arm(
        name=name, variant=ladder.variant, role=role, levels=tuple(levels),
        steps=np.broadcast_to(counts[:, None], shape).copy(), quality=drawn,
        **({"decision_j": np.zeros(len(levels))} | more),
    )  # fmt: skip


def table_of_kinds(arms: Arms, ladder: Arm, metrics: Sequence[str], energy_j: Array) -> CurveForecast | None:
    """Return the curves that a table of prompt categories forecasts, or None if the prompts have fewer than two kinds.

    The control of any predictor: it knows the kind and nothing else. The mean curve of a kind is that of the other half
    of the prompts, so no prompt is forecast by its own scores.
    """
    kinds = arms.kinds
    if len(np.unique(kinds)) < 2:
        return None
    truth = np.stack([over_seeds(ladder.quality[metric]) for metric in metrics], axis=-1)  # (prompts, rungs, metrics)
    values, half = np.empty_like(truth), np.zeros(len(kinds), np.intp)
    for kind in np.unique(kinds):
        half[kinds == kind] = np.arange((kinds == kind).sum()) % 2
    for side in (0, 1):
        others = half != side
        for kind in np.unique(kinds):
            same = others & (kinds == kind)
            values[(half == side) & (kinds == kind)] = np.nanmean(truth[same if same.any() else others], axis=0)
    return CurveForecast(grid=np.array(ladder.rungs), energy_j=energy_j, metrics=tuple(metrics), values=values)


def has_short_first(variant: Variant) -> bool:
    """Return whether a variant's schedules begin with a short step."""
    arguments = variant.policy_args
    if variant.schedule:
        return True
    if variant.policy == "budgetfusion-peek":
        return read_config(arguments["predictor"]).peek == MOST_SHARED
    return bool(arguments.get("shared", MOST_SHARED if variant.policy == "shared-start" else 1) == MOST_SHARED)


def _asked(run: Run, grid: Grid) -> tuple[Grid, set[str]]:
    """Return the grid of the prompts about which observers were asked, and the cells; all if metrics judge."""
    if run.judges is None:
        return grid, set(grid.cells)
    asked = np.isfinite(over_seeds(grid.quality[run.suite.metrics.primary]))
    rows = np.flatnonzero(asked.any(1))
    return grid.of_prompts(rows), {cell for column, cell in enumerate(grid.cells) if asked[:, column].any()}


def _arm(run: Run, grid: Grid, cells: list[Cell], steps: Array) -> Arm:
    """Return the arm of a variant's cells; a ladder's by rising steps."""
    variant = cells[0].variant
    values = {cell.cell_id: float(cell.steps or cell.level or 0) for cell in cells}
    if variant.policy in LADDER_POLICIES:
        cells = sorted(cells, key=lambda cell: values[cell.cell_id])
    columns = [grid.cells.index(cell.cell_id) for cell in cells]
    return Arm(
        name=variant.name,
        variant=variant,
        role=variant.role,
        levels=tuple(values[cell.cell_id] for cell in cells),
        cells=tuple(cells),
        steps=steps[:, :, columns],
        quality={name: spec.sign * grid.quality[name][:, :, columns] for name, spec in run.metrics.items()},
        decision_j=np.zeros(len(cells)),
        rule=_rule(variant),
    )


def _rule(variant: Variant) -> RuleOfArm | None:
    arguments = variant.policy_args
    if "predictor" not in arguments:
        return None
    try:
        config = read_config(arguments["predictor"])
    except PerjouleError:  # it was moved or deleted after the run
        return None
    return RuleOfArm(
        name=arguments.get("rule", "equal-marginal"),
        metric=arguments.get("metric") or config.metric,
        miss_rate=arguments.get("miss_rate", 0.1),
        base_j=config.base_j,
        step_j=config.step_j,
    )


def _with_decision(arm: Arm, run: Run, ladders: Mapping[str, Arm], grid: Grid, facts: Mapping[str, CellFacts]) -> Arm:
    """Return a drawn arm with the joules of its decisions: their measured seconds at the mean power of the ladder."""
    ladder = next((one for one in ladders.values() if one.family == arm.family), None)
    if ladder is None or arm.name in ladders:
        return arm
    seconds = sum(facts[cell.cell_id].duration_s_per_image or 0.0 for cell in ladder.cells)
    columns = [grid.cells.index(cell.cell_id) for cell in ladder.cells]
    power_w = float(np.nanmean(grid.energy_j[:, :, columns], axis=(0, 1)).sum()) / seconds if seconds else 0.0
    return replace(arm, decision_j=np.array([power_w * _decision_s(run, cell.cell_id) for cell in arm.cells]))


def _decision_s(run: Run, cell_id: str) -> float:
    """Return seconds per image of the decision."""
    trials = run.windows.filter(pl.col("cell_id") == cell_id)
    spent = [json.loads(phases or "{}").get("predictor", 0.0) for phases in trials["phases_s"]]
    return float(sum(spent)) / max(int(trials["image_count"].sum()), 1)


def _cost(run: Run, grid: Grid, ladder: Arm, facts: Mapping[str, CellFacts], base_steps: float | None) -> Cost:
    """Return the joules of an image by its steps.

    The share of an image that does not depend on its steps (text encoder, VAE) is counted where the run has counted
    work, because windows of a busy machine show it badly. The ladder's joules give the scale.
    """
    rungs = np.array(ladder.rungs, np.float64)
    columns = [grid.cells.index(cell.cell_id) for cell in ladder.cells]
    energy_j = grid.energy_j[..., columns]
    known = np.isfinite(energy_j).any((0, 1))
    if not known.all():
        raise EvidenceError(f"{run.path}: {ladder.cells[int(known.argmin())].cell_id} has no joules")
    mean_j = np.nanmean(energy_j, axis=(0, 1))
    flops = np.array([facts[cell.cell_id].flops_per_image or np.nan for cell in ladder.cells], np.float64)
    if base_steps is not None:
        origin = "given"
    elif len(rungs) < 2:
        base_steps, origin = 0.0, "a single rung"
    else:
        if run.is_counted or not np.isfinite(flops).all():
            work, origin = mean_j, "counted work" if run.is_counted else "least squares"
        else:
            work, origin = flops, "floating-point operations"
        base, step = fit_line(rungs, work)
        if step <= 0:
            raise EvidenceError(
                f"{run.path}: more steps of {ladder.name} did not need more joules: state the work that does not "
                "depend on the steps with --base-steps, e.g. 1.5"
            )
        base_steps = max(base / step, 0.0)
    trials = run.trials.filter(pl.col("variant") == ladder.name)
    step_j = float(mean_j.sum() / (base_steps + rungs).sum())
    return Cost(
        family=ladder.family,
        ladder=ladder.name,
        base_j=base_steps * step_j,
        step_j=step_j,
        base_steps=base_steps,
        origin=origin,
        rungs=tuple(ladder.rungs),
        provenance=weakest(trials["provenance"]) or "not stated",
        boundary=str(next(iter(trials["boundary"].drop_nulls()), "not stated")),
    )


def _steps(run: Run, grid: Grid) -> Array:
    """Return the steps of every image, as in the grid."""
    steps = np.full(grid.energy_j.shape, np.nan)
    for place, image in images_in(run, grid):
        steps[place] = image["steps"]
    return steps


def images_in(run: Run, grid: Grid) -> list[tuple[tuple[int, int, int], dict[str, Any]]]:
    """Return the images of a run with their places in the grid: (prompt, seed, cell)."""
    places = (
        run.scores.select("prompt_id", "seed").unique().sort("prompt_id", "seed")
        .with_columns(place=pl.int_range(pl.len()).over("prompt_id"))
    )  # fmt: skip
    rows = {prompt: i for i, prompt in enumerate(grid.prompts)}
    columns = {cell: i for i, cell in enumerate(grid.cells)}
    images = run.images.filter(pl.col("prompt_id").is_in(grid.prompts)).join(places, on=["prompt_id", "seed"])
    return [
        ((rows[image["prompt_id"]], image["place"], columns[image["cell_id"]]), image)
        for image in images.iter_rows(named=True)
    ]


def require_known(names: Sequence[str], arms: Arms) -> None:
    """Raise UnknownNameError for a ladder that the run does not have."""
    for name in names:
        if name not in arms.ladders:
            raise UnknownNameError("ladder", name, arms.ladders, str(arms.run.path))
