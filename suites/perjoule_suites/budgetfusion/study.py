"""Evaluation of a run with adaptive arms: savings at equal quality, opponents, and guarantees.

All results are functions of the run directory and of the predictors that its arms used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import polars as pl

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.statistics.allocation import headroom, oracle, shuffled
from perjoule.statistics.curves import AnyCurve, Curve, FidelityCurve
from perjoule.statistics.facts import was_stopped
from perjoule.statistics.grid import Grid, read_grid
from perjoule.statistics.lines import fit_line
from perjoule.statistics.resampling import resample_means
from perjoule.statistics.savings import iso_energy_gain, iso_quality_saving
from perjoule.statistics.window_groups import Groups
from perjoule.suite.reading import cells_of
from perjoule.types import Cell, Variant
from perjoule_suites.budgetfusion.curves import LADDER_POLICIES, Array
from perjoule_suites.budgetfusion.predictor import read_config
from perjoule_suites.budgetfusion.records import ArmHeadroom, ArmLevels, Basis, Comparison, Evaluation, Level

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arms:
    """A run's arms as arrays: grid, cells by variant, and the steps of each image (prompts, seeds, cells)."""

    run: Run
    grid: Grid
    cells: dict[str, list[Cell]]
    steps: Array
    full_batches: bool = False

    @property
    def images_apart(self) -> bool:
        """True if joules are known for each image, which the oracle and the permutations need."""
        return self.full_batches or self.grid.images_apart

    def variant(self, name: str) -> Variant:
        """Return the variant of a name."""
        return self.cells[name][0].variant

    def columns(self, name: str) -> list[int]:
        """Return the indices of a variant's cells in the grid."""
        return [self.grid.cells.index(cell.cell_id) for cell in self.cells[name]]

    def curve(self, name: str, metric: str) -> Any:
        """Return the curve of a variant under a metric: a `Curve`, or a `FidelityCurve` of its family."""
        columns = self.columns(name)
        groups = None if self.full_batches else self.grid.groups[:, columns]
        return self._curve(name, metric, self.grid.energy_j[:, :, columns], self.quality(metric)[:, :, columns], groups)

    def quality(self, metric: str) -> Array:
        """Return scores (prompts, seeds, cells); higher is better."""
        sign = self.run.metrics[metric].sign
        return sign * self.grid.quality[metric]

    def shuffled(self, name: str, anchor: str, metric: str) -> Any:
        """Return the curve of the arm's step counts assigned to random prompts (mean of all permutations)."""
        ladder = self.curve(anchor, metric)
        rungs = {_rung(cell): i for i, cell in enumerate(self.cells[anchor])}
        parts = []
        for column in self.columns(name):
            taken = self.steps[:, :, column].ravel()
            index = np.array([rungs[int(n)] for n in taken[np.isfinite(taken)]], np.intp)
            parts.append(shuffled(ladder, index))
        energy = np.concatenate([part.energy_j for part in parts], axis=2)
        quality = np.concatenate([part.quality for part in parts], axis=2)
        groups = None if parts[0].groups is None else np.concatenate([part.groups for part in parts], axis=1)
        return self._curve(f"{name}, shuffled", metric, energy, quality, groups)

    def _curve(self, name: str, metric: str, energy_j: Array, quality: Array, groups: Groups | None) -> Any:
        if self.run.metrics[metric].track == "fidelity":
            family = name.split(",")[0]
            family = self.variant(family).family_name
            return FidelityCurve(energy_j=energy_j, quality=quality, name=name, family=family, groups=groups)
        return Curve(energy_j=energy_j, quality=quality, name=name, groups=groups)


def arms_of(run: Run) -> Arms:
    """Return the arms of a scored run. Raises EvidenceError if it is not scored."""
    if not run.metrics:
        raise EvidenceError(f"{run.path}: not scored yet: run `perjoule score {run.path}`")
    grid = read_grid(run, tuple(run.metrics))
    cells: dict[str, list[Cell]] = {}
    for cell in cells_of(run.suite):
        if cell.cell_id in grid.cells:
            cells.setdefault(cell.variant.name, []).append(cell)
    return Arms(run=run, grid=grid, cells=cells, steps=_steps(run, grid))


def with_full_batches(arms: Arms) -> Arms:
    """Return the arms as if images of equal steps always filled a batch, e.g. in a queue of many prompts.

    Each image has the energy of the fixed ladder of its family for its number of steps, a + b · N by least squares on
    that ladder's cells, and the decision has its measured seconds at the ladder's mean power. Losses of groups of
    different sizes inside a batch, and disturbances of the machine, are left out.
    """
    energy_j = arms.grid.energy_j.copy()
    durations = _durations(arms.run)
    for anchor in _ladders(arms).values():
        columns = arms.columns(anchor)
        mean_j = np.nanmean(energy_j[:, :, columns], axis=(0, 1))
        rungs = np.array([float(cell.steps or 0) for cell in arms.cells[anchor]])
        base_j, step_j = fit_line(rungs, mean_j)
        power_w = mean_j.sum() / sum(durations[cell.cell_id] for cell in arms.cells[anchor])
        for name in arms.cells:
            if arms.variant(name).family_name == arms.variant(anchor).family_name:
                for cell, column in zip(arms.cells[name], arms.columns(name), strict=True):
                    decision_j = _predictor_s(arms.run, cell.cell_id) * power_w
                    energy_j[:, :, column] = base_j + step_j * arms.steps[:, :, column] + decision_j
    return replace(arms, grid=replace(arms.grid, energy_j=energy_j), full_batches=True)


def _ladders(arms: Arms) -> dict[str, str]:
    """Return the first fixed ladder of each family."""
    return {arms.variant(n).family_name: n for n in reversed(arms.cells) if arms.variant(n).policy == "fixed"}


def _steps(run: Run, grid: Grid) -> Array:
    """Return the steps of every image, as in the grid."""
    places = (
        run.scores.select("prompt_id", "seed").unique().sort("prompt_id", "seed")
        .with_columns(place=pl.int_range(pl.len()).over("prompt_id"))
    )  # fmt: skip
    rows = {prompt: i for i, prompt in enumerate(grid.prompts)}
    columns = {cell: i for i, cell in enumerate(grid.cells)}
    steps = np.full(grid.energy_j.shape, np.nan)
    for image in run.images.join(places, on=["prompt_id", "seed"]).iter_rows(named=True):
        steps[rows[image["prompt_id"]], image["place"], columns[image["cell_id"]]] = image["steps"]
    return steps


def evaluate(run: Run, *, metric: str | None = None, at_steps: int | None = None) -> Evaluation:
    """Return the study's table.

    Args:
        run: A scored run with a fixed ladder and adaptive arms of its family.
        metric: The metric that is held equal; by default the suite's primary metric.
        at_steps: Rung of the ladder whose quality is held equal; by default the rung in the middle.

    Raises:
        EvidenceError: The run is not scored, or has no fixed ladder.
    """
    arms, name = arms_of(run), metric or run.suite.metrics.primary
    if not _ladders(arms):
        raise EvidenceError(f"{run.path}: no variant with the policy 'fixed': there is nothing to compare with")
    adaptive = [n for n in arms.cells if arms.variant(n).role == "predicted"]
    controls = [n for n in arms.cells if arms.variant(n).role == "control"]
    return Evaluation(
        suite=run.suite.name,
        metric=name,
        prompts=len(arms.grid.prompts),
        seeds=arms.grid.energy_j.shape[1],
        provenance=tuple(sorted(set(run.trials["provenance"].drop_nulls()))),
        as_run=_basis(arms, adaptive, controls, name, at_steps),
        full_batches=_basis(with_full_batches(arms), adaptive, controls, name, at_steps),
        extra_evaluations={n: _extra_evaluations(run, n, arms) for n in adaptive},
    )


def _basis(arms: Arms, adaptive: list[str], controls: list[str], metric: str, at_steps: int | None) -> Basis:
    """Return comparisons, headroom and levels for one way to count joules.

    If windows contain several prompts, there is no oracle and no mean over permutations, which choose single images.
    """
    ladders = _ladders(arms)
    comparisons: list[Comparison] = []
    captured: list[ArmHeadroom] = []
    for test in adaptive + controls:
        if arms.variant(test).family_name not in ladders:
            continue
        at, curve = _held(arms, test, metric, at_steps), arms.curve(test, metric)
        for anchor in _rivals(arms, test):
            ladder = arms.curve(anchor, metric)
            comparisons.append(_compare(curve, ladder, metric, at))
            if test in adaptive and arms.images_apart:
                share = headroom(curve, ladder, at_quality=at if curve.rungs > 1 else None, resamples=RESAMPLES)
                parts = {field.name: getattr(share, field.name) for field in fields(share)}
                captured.append(ArmHeadroom(test=test, anchor=anchor, **parts))
                if _on_the_ladder(arms, test, anchor) and curve.rungs > 1:
                    comparisons.append(_compare(curve, arms.shuffled(test, anchor, metric), metric, at))
    for anchor in (n for n in arms.cells if arms.variant(n).policy in LADDER_POLICIES and len(arms.cells[n]) > 1):
        if arms.variant(anchor).family_name in ladders and arms.images_apart:
            ladder = arms.curve(anchor, metric)
            comparisons.append(_compare(oracle(ladder), ladder, metric, _held(arms, anchor, metric, at_steps)))
    swept = [n for n in adaptive if len(arms.cells[n]) > 1]
    for test in swept:
        for other in swept:
            looks = [arms.variant(n).policy == "budgetfusion-peek" for n in (test, other)]
            if looks == [True, False] and arms.variant(test).family_name == arms.variant(other).family_name:
                at = _held(arms, test, metric, at_steps)
                comparisons.append(_compare(arms.curve(test, metric), arms.curve(other, metric), metric, at))
    return Basis(
        comparisons=tuple(comparisons),
        headroom=tuple(captured),
        arms=tuple(_arm(arms, n, ladders, metric) for n in adaptive + controls),
    )


def _on_the_ladder(arms: Arms, name: str, anchor: str) -> bool:
    """Return whether the ladder contains the number of steps of every image of the arm."""
    taken = arms.steps[:, :, arms.columns(name)]
    return set(taken[np.isfinite(taken)]) <= {_rung(cell) for cell in arms.cells[anchor]}


def _rung(cell: Cell) -> float:
    """Return the steps of a ladder's cell: `steps`, or the level of a ladder with a shared start."""
    return float(cell.steps or cell.level or 0)


def _rivals(arms: Arms, test: str) -> list[str]:
    """Return an arm's opponents: the fixed ladder of its family, and one on its own schedules if they differ."""
    variant = arms.variant(test)
    own = [
        name
        for name in arms.cells
        if name != test
        and arms.variant(name).policy == "shared-start"
        and arms.variant(name).family_name == variant.family_name
        and shared_start(arms.variant(name)) == shared_start(variant)
    ]
    return [_ladders(arms)[variant.family_name], *own]


def shared_start(variant: Variant) -> int:
    """Return the number of first timesteps that all schedules of a variant share; 1 for trailing spacing."""
    arguments = variant.policy_args
    if variant.policy == "budgetfusion-peek":
        return read_config(arguments["predictor"]).peek
    return int(arguments.get("shared", 2 if variant.policy == "shared-start" else 1))


def _held(arms: Arms, name: str, metric: str, at_steps: int | None) -> float:
    """Return the quality of a rung of the fixed ladder of a variant's family."""
    anchor = _ladders(arms)[arms.variant(name).family_name]
    rungs = [cell.steps for cell in arms.cells[anchor]]
    wanted = at_steps if at_steps in rungs else rungs[len(rungs) // 2]
    column = arms.columns(anchor)[rungs.index(wanted)]
    return float(np.nanmean(np.nanmean(arms.quality(metric)[:, :, column], 1)))


def _compare(test: AnyCurve, anchor: AnyCurve, metric: str, at: float) -> Comparison:
    """Return the saving at the quality `at`; an arm of one rung is compared at its own quality."""
    at_quality = at if test.rungs > 1 else None
    saving = iso_quality_saving(test, anchor, at_quality=at_quality, resamples=RESAMPLES)
    return Comparison(
        test=test.name,
        anchor=anchor.name,
        metric=metric,
        at_quality=saving.at,
        saving=saving.estimate,
        reason=saving.reason,
    )


def _extra_evaluations(run: Run, name: str, arms: Arms) -> float:
    """Return denoiser evaluations beyond steps × (2 with guidance) of all the arm's images: 0 if a peek is free."""
    variant = arms.variant(name)
    trials = run.windows.filter(pl.col("variant") == name)
    evaluations = float((trials["nfe_per_image"] * trials["image_count"]).sum())
    steps = float(trials["steps"].explode().sum())
    per_step = round(evaluations / steps) if steps else 0
    return evaluations - (per_step or (2 if variant.guidance > 1 else 1)) * steps


def _arm(arms: Arms, name: str, ladders: dict[str, str], metric: str) -> ArmLevels:
    """Return each level of an arm: energy, quality, steps, gain over the ladder, time relative to the longest run."""
    anchor = ladders.get(arms.variant(name).family_name)
    levels = []
    durations = _durations(arms.run)
    for cell, column in zip(arms.cells[name], arms.columns(name), strict=True):
        energy = np.nanmean(np.nanmean(arms.grid.energy_j[:, :, column], 1))
        quality = arms.quality(metric)[:, :, column]
        level = Level(
            cell_id=cell.cell_id,
            level=cell.level if cell.level is not None else cell.steps,
            energy_j_per_image=float(energy),
            quality=float(np.nanmean(np.nanmean(quality, 1))),
            quality_p10=float(np.nanquantile(quality, 0.1)),
            steps_mean=float(np.nanmean(arms.steps[:, :, column])),
            duration_s_per_image=durations[cell.cell_id],
        )
        level = _with_promise(level, arms, cell, column)
        if anchor is not None:
            longest = max((c for c in arms.cells[anchor] if c.steps), key=lambda c: c.steps or 0)
            level = replace(
                _with_gain_and_saving(level, arms, name, column, anchor, metric),
                time_saved_against_longest=1 - durations[cell.cell_id] / durations[longest.cell_id],
                predictor_share_of_longest=_predictor_s(arms.run, cell.cell_id) / durations[longest.cell_id],
                rank_correlation=_rank_correlation(arms, cell, column, anchor),
                gain_per_step_against_uniform=_gain_per_step(arms, column, anchor, metric),
            )
        levels.append(level)
    return ArmLevels(arm=name, anchor=anchor, levels=tuple(levels))


def _with_gain_and_saving(level: Level, arms: Arms, name: str, column: int, anchor: str, metric: str) -> Level:
    """Add the gain of a level at its own energy, and its saving at its own quality. Only the ladder is interpolated."""
    full = arms.curve(name, metric)
    place = arms.columns(name).index(column)
    groups = None if full.groups is None else full.groups[:, [place]]
    single = replace(full, energy_j=full.energy_j[:, :, [place]], quality=full.quality[:, :, [place]], groups=groups)
    ladder = arms.curve(anchor, metric)
    gain = iso_energy_gain(single, ladder, resamples=RESAMPLES)
    saving = iso_quality_saving(single, ladder, resamples=RESAMPLES)
    return replace(
        level,
        gain_at_equal_energy=gain.estimate,
        gain_reason=gain.reason,
        saving_at_own_quality=saving.estimate,
        saving_reason=saving.reason,
    )


def _gain_per_step(arms: Arms, column: int, anchor: str, metric: str) -> float | None:
    """Return the paper's gain: (Q − Q at the fewest steps) / mean steps, relative to uniform steps at the same mean."""
    cells = arms.cells[anchor]
    ladder = np.array([float(c.steps or 0) for c in cells])
    means = np.array([np.nanmean(arms.quality(metric)[:, :, c]) for c in arms.columns(anchor)])
    order = np.argsort(ladder)
    steps = float(np.nanmean(arms.steps[:, :, column]))
    uniform = np.interp(np.log2(steps), np.log2(ladder[order]), means[order])
    floor = means[order][0]
    if uniform - floor <= 0:
        return None
    return float((np.nanmean(arms.quality(metric)[:, :, column]) - floor) / (uniform - floor) - 1)


def _durations(run: Run) -> dict[str, float]:
    frame = run.windows.filter(~was_stopped()).group_by("cell_id").agg(
        (pl.col("duration_s").sum() / pl.col("images").sum()).alias("s")
    )  # fmt: skip
    return dict(zip(frame["cell_id"], frame["s"], strict=True))


def _predictor_s(run: Run, cell_id: str) -> float:
    """Return seconds per image of the decision."""
    trials = run.windows.filter(pl.col("cell_id") == cell_id)
    spent = [json.loads(phases).get("predictor", 0.0) for phases in trials["phases_s"]]
    return float(sum(spent)) / max(int(trials["image_count"].sum()), 1)


def _with_promise(level: Level, arms: Arms, cell: Cell, column: int) -> Level:
    """Add the share of images below the quality floor, mean over prompts, and the guaranteed share."""
    arguments = cell.variant.policy_args
    if arguments.get("rule") != "quality-floor" or "predictor" not in arguments:
        return level
    values = arms.quality(_metric_of_rule(cell))[:, :, column]
    missed = np.where(np.isfinite(values), values < float(cell.level or 0), np.nan)
    by_prompt = resample_means(missed[..., None], resamples=RESAMPLES)
    rate = by_prompt.estimate(lambda rows: rows[:, 0], what="mean over prompts of the share of their images")
    promised = arguments.get("miss_rate", 0.1)
    return replace(level, promised_miss_rate=promised, miss_rate=rate.value, miss_rate_interval=rate)


def _metric_of_rule(cell: Cell) -> str:
    """Return the metric that a cell's rule works on: its own, or the predictor's."""
    arguments = cell.variant.policy_args
    return str(arguments.get("metric") or read_config(arguments["predictor"]).metric)


def _rank_correlation(arms: Arms, cell: Cell, column: int, anchor: str) -> float | None:
    """Return Spearman's ρ over prompts of the arm's steps and the ideal steps from true mean curves.

    It is for equal-marginal arms; None if either does not vary. The true curves are the ladder's, mean over seeds.
    """
    true = true_steps(arms, cell, anchor)
    if true is None:
        return None
    taken = np.nanmean(arms.steps[:, :, column], axis=1)
    if len(set(true)) < 2 or len(set(taken)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(taken, true).statistic)


def true_steps(arms: Arms, cell: Cell, anchor: str) -> Array | None:
    """Return the steps of an equal-marginal cell's rule on the true mean curve of each prompt: (prompts,)."""
    arguments = cell.variant.policy_args
    if "predictor" not in arguments or arguments.get("rule", "equal-marginal") != "equal-marginal":
        return None
    config = read_config(arguments["predictor"])
    metric = _metric_of_rule(cell)
    rungs = np.array([float(c.steps or 0) for c in arms.cells[anchor]])
    curves = np.nanmean(arms.quality(metric)[:, :, arms.columns(anchor)], axis=1)
    worth = float(cell.level or 0) * curves - (config.base_j + config.step_j * rungs)
    return np.asarray(rungs[worth.argmax(1)], np.float64)
