"""Evaluation of adaptive steps on a stored ladder: savings at equal quality, controls, bounds, and guarantees.

All results are functions of the run directory and of predictors. See `replay` for what is replayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.forecast.nfe import nfe_per_image
from perjoule.runs.directory import Run
from perjoule.statistics.allocation import BOUNDS, bound_saving, headroom, shuffled
from perjoule.statistics.curves import AnyCurve, PairedCurves, pair
from perjoule.statistics.mixtures import best_buys
from perjoule.statistics.multiplicity import holm, p_differs_from_zero
from perjoule.statistics.resampling import over_seeds, resample_means
from perjoule.statistics.savings import gain_of, saving_of, saving_rows
from perjoule.types import Estimate
from perjoule_suites.budgetfusion.curves import Array
from perjoule_suites.budgetfusion.records import (
    ArmHeadroom,
    ArmLevels,
    Claim,
    Comparison,
    Evaluation,
    LadderBound,
    Level,
    LevelScore,
    Sensitivity,
)
from perjoule_suites.budgetfusion.replay import Arm, Arms
from perjoule_suites.budgetfusion.validation import validations

RESAMPLES = 10_000
# base_steps of the table of sensitivity, to which the run's own is added
BASE_STEPS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_PERMUTATIONS = 999


def metrics_of(run: Run, metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics to evaluate by, the suite's primary one by default. Raises UnknownNameError, EvidenceError."""
    if not run.metrics:
        raise EvidenceError(f"{run.path}: not scored yet: run `perjoule score {run.path}`")
    for name in metrics:
        if name not in run.metrics:
            raise UnknownNameError("scored metric", name, run.metrics, str(run.path))
    return tuple(dict.fromkeys(metrics)) or (run.suite.metrics.primary,)


def evaluate(arms: Arms, metrics: Sequence[str] = (), at_steps: int | None = None) -> Evaluation:
    """Return the study's tables.

    Args:
        arms: Ladders and adaptive arms.
        metrics: Metrics that are held equal, each on its own; by default the suite's primary metric.
        at_steps: Rung of the ladder whose quality is held equal; by default the rung in the middle.

    Raises:
        UsageError: No ladder has that rung.
    """
    run, names = arms.run, metrics_of(arms.run, metrics)
    if at_steps is not None and not any(at_steps in ladder.rungs for ladder in arms.ladders.values()):
        rungs = ", ".join(map(str, next(iter(arms.ladders.values())).rungs))
        raise UsageError(f"--at-steps {at_steps}: the ladder of {run.path} has {rungs}")
    compared = [one for name in names for one in _comparisons(arms, name, at_steps)]
    claims = [one for one in compared if _is_claim(arms, one)]
    held = holm({i: one.p_value for i, one in enumerate(claims) if one.p_value is not None})
    return Evaluation(
        suite=run.suite.name,
        metrics=names,
        prompts=len(arms.grid.prompts),
        seeds=arms.grid.energy_j.shape[1],
        provenance=tuple(sorted(set(run.trials["provenance"].drop_nulls()))),
        costs=tuple(arms.costs.values()),
        claims=tuple(
            Claim(**_parts(one), holds=i in held and (one.saving.value or 0) > 0) for i, one in enumerate(claims)
        ),
        controls=tuple(one for one in compared if not _is_claim(arms, one)),
        bounds=tuple(one for name in names for one in _bounds(arms, name, at_steps)),
        headroom=tuple(one for name in names for one in _headroom(arms, name, at_steps)),
        arms=tuple(_levels(arms, arm, names) for arm in arms.adaptive.values()),
        sensitivity=tuple(_sensitivity(arms, claims, at_steps)),
        validation=tuple(validations(arms)),
        judges=run.judges if not all(_has_bounds(arms, name) for name in names) else None,
        extra_evaluations={
            n: extra
            for n, arm in arms.adaptive.items()
            if arm.cells and (extra := _extra_evaluations(arms, arm)) is not None
        },
    )


def _is_claim(arms: Arms, one: Comparison) -> bool:
    """Return whether a comparison says that predicted steps save joules."""
    is_predicted = one.test in arms.adaptive and arms.adaptive[one.test].role == "predicted"
    return is_predicted and one.anchor in arms.ladders and one.energy == "by steps"


def _rivals(arms: Arms, arm: Arm) -> list[Arm]:
    """Return an arm's ladders: the first fixed one of its family, and one on its own schedules if they differ."""
    ladders = (arms.anchor(arm.family), arms.ladder_of(arm.variant))
    return list({one.name: one for one in ladders if one is not None and one.name != arm.name}.values())


def _held(arms: Arms, arm: Arm, metric: str, at_steps: int | None) -> float | None:
    """Return the quality of a rung of the fixed ladder of an arm's family; an arm of one rung has its own."""
    anchor = arms.anchor(arm.family)
    if anchor is None or len(arm.levels) < 2:
        return None
    place = anchor.rungs.index(at_steps) if at_steps in anchor.rungs else len(anchor.rungs) // 2
    return float(np.nanmean(over_seeds(anchor.quality[metric][:, :, place])))


def _comparisons(arms: Arms, metric: str, at_steps: int | None) -> Iterator[Comparison]:
    """Yield all comparisons of arms under one metric."""
    sign = arms.run.metrics[metric].sign
    for arm in arms.adaptive.values():
        curve, at = arms.curve(arm, metric), _held(arms, arm, metric, at_steps)
        for ladder in _rivals(arms, arm):
            fixed = arms.curve(ladder, metric)
            yield _compare(curve, fixed, metric, at, sign)
            rungs = arm.index_on(ladder) if ladder is arms.ladder_of(arm.variant) else None
            if arm.role == "predicted" and rungs is not None and len(arm.levels) > 1:
                dealt = shuffled(fixed, rungs[np.isfinite(curve.quality).all(2)])
                yield _compare(curve, replace(dealt, name=f"{arm.name}, shuffled"), metric, at, sign)
            if arm.cells:
                as_run = arms.curve_as_run(arm, metric), arms.curve_as_run(ladder, metric)
                yield _compare(*as_run, metric, at, sign, energy="as run")
        if arm.role == "predicted":
            for other in _weaker(arms, arm):
                yield _compare(curve, arms.curve(other, metric), metric, at, sign)
    for ladder in arms.ladders.values():
        anchor = arms.anchor(ladder.family)
        if anchor is not None and anchor.name != ladder.name:
            at = _held(arms, ladder, metric, at_steps)
            yield _compare(arms.curve(ladder, metric), arms.curve(anchor, metric), metric, at, sign)


def _weaker(arms: Arms, arm: Arm) -> list[Arm]:
    """Return swept arms that know less: the table of kinds of the same rule; for a peek, arms of the prompt alone."""
    others = [one for one in arms.adaptive.values() if one.family == arm.family and len(one.levels) > 1]
    if arm.variant.policy == "budgetfusion-peek":
        prompt_only = [one for one in others if one.role == "predicted" and one.variant.policy != arm.variant.policy]
        return [one for one in prompt_only if one.rule == arm.rule or one.cells]
    return [one for one in others if one.name == f"{arm.name}, table of kinds"]


def _compare(
    test: AnyCurve, anchor: AnyCurve, metric: str, at: float | None, sign: float, energy: str = "by steps"
) -> Comparison:
    """Return the saving of mixtures of levels at the quality `at`, or with None that of one rung over a curve."""
    paired = pair(test, anchor, mixes=at is not None, resamples=RESAMPLES)
    saving = saving_of(paired, at)
    drawn, fixed = paired.split(paired.means.resamples)
    is_known = saving.estimate.value is not None and paired.is_drawn
    return Comparison(
        test=test.name,
        anchor=anchor.name,
        metric=metric,
        energy=energy,
        at_quality=None if saving.at is None else sign * saving.at,
        saving=saving.estimate,
        reason=saving.reason,
        p_value=p_differs_from_zero(saving_rows(drawn, fixed, at)) if is_known else None,
    )


def _bounds(arms: Arms, metric: str, at_steps: int | None) -> Iterator[LadderBound]:
    if not _has_bounds(arms, metric):
        return
    for ladder in arms.ladders.values():
        at = _held(arms, ladder, metric, at_steps)
        if at is not None:
            for kind in BOUNDS:
                saving = bound_saving(arms.curve(ladder, metric), kind, at_quality=at, resamples=RESAMPLES)
                yield LadderBound(ladder=ladder.name, metric=metric, **_parts(saving))


def _has_bounds(arms: Arms, metric: str) -> bool:
    """Return whether scores of single prompts have a meaning; choices about one prompt are too few for that."""
    return arms.run.metrics[metric].track != "preference"


def _headroom(arms: Arms, metric: str, at_steps: int | None) -> Iterator[ArmHeadroom]:
    """Yield the shares of the bounds that predicted arms capture, where a ladder has seeds enough."""
    if not _has_bounds(arms, metric):
        return
    predicted = [arm for arm in arms.adaptive.values() if arm.role == "predicted"]
    for arm, kind in product(predicted, BOUNDS):
        for ladder in _rivals(arms, arm):
            curves, at = (arms.curve(arm, metric), arms.curve(ladder, metric)), _held(arms, arm, metric, at_steps)
            try:
                share = headroom(*curves, kind, at_quality=at, resamples=RESAMPLES)
            except EvidenceError:  # named in `bounds`
                continue
            yield ArmHeadroom(test=arm.name, anchor=ladder.name, metric=metric, **_parts(share))


def _sensitivity(arms: Arms, claims: Sequence[Comparison], at_steps: int | None) -> Iterator[Sensitivity]:
    """Yield the claims' savings by other shares of the work that does not depend on the steps."""
    for one in claims:
        arm, ladder = arms.adaptive[one.test], arms.ladders[one.anchor]
        at = _held(arms, arm, one.metric, at_steps)
        for base_steps in sorted({*BASE_STEPS, arms.costs[arm.family].base_steps}):
            test, fixed = (arms.curve(each, one.metric, base_steps) for each in (arm, ladder))
            saving = saving_of(pair(test, fixed, mixes=at is not None, resamples=0), at).estimate.value
            yield Sensitivity(base_steps=base_steps, test=one.test, anchor=one.anchor, metric=one.metric, saving=saving)


def _extra_evaluations(arms: Arms, arm: Arm) -> float | None:
    """Return denoiser evaluations of all the arm's images beyond those of images of the same fixed steps.

    0 if a peek is free, None if steps or evaluations were not recorded. Those of fixed steps are counted on a ladder of
    the same sampler and guidance, else computed.
    """
    settings = ("scheduler", "scheduler_args", "guidance", "guidance_share", "guidance_mode")
    same = [
        ladder
        for ladder in arms.ladders.values()
        if all(getattr(ladder.variant, key) == getattr(arm.variant, key) for key in settings)
    ]
    counted = {cell.steps: arms.facts[cell.cell_id].nfe_mean for ladder in same for cell in ladder.cells}
    trials = arms.run.windows.filter(pl.col("variant") == arm.variant.name)
    steps, drawn = trials["steps"].explode(), trials["nfe_per_image"] * trials["image_count"]
    if steps.null_count() or drawn.null_count():
        return None
    return float(drawn.sum()) - sum(counted.get(n) or nfe_per_image(arm.variant, n) for n in steps)


def _levels(arms: Arms, arm: Arm, metrics: Sequence[str]) -> ArmLevels:
    """Return each level of an arm."""
    anchor = arms.anchor(arm.family)
    assert anchor is not None  # adaptive arms without one are left out
    pairs = {m: pair(arms.curve(arm, m), arms.curve(anchor, m), resamples=RESAMPLES) for m in metrics}
    best: dict[str, float] = {}
    if arm.development:
        savings = [savings for _, savings in arm.development]
        best = {m: arm.levels[int(np.argmax([one[m] for one in savings]))] for m in metrics if m in savings[0]}
    return ArmLevels(
        arm=arm.name,
        role=arm.role,
        drawn=bool(arm.cells),
        anchor=anchor.name,
        best_on_development=best,
        levels=tuple(_level(arms, arm, place, anchor, pairs) for place in range(len(arm.levels))),
    )


def _level(arms: Arms, arm: Arm, place: int, anchor: Arm, pairs: Mapping[str, PairedCurves]) -> Level:
    cost = arms.costs[arm.family]
    mine = next(iter(pairs.values())).point[0]
    as_run = arms.grid.energy_j[:, :, arms.grid.cells.index(arm.cells[place].cell_id)] if arm.cells else None
    promised, missed = _promise(arm, place)
    development = arm.development[place] if arm.development else None
    return Level(
        level=arm.levels[place],
        cell_id=arm.cells[place].cell_id if arm.cells else None,
        energy_j_per_image=float(mine.energy_j[0, place]),
        energy_j_as_run=None if as_run is None else float(np.nanmean(over_seeds(as_run))),
        decision_j=float(arm.decision_j[place]),
        steps_mean=float(np.nanmean(arm.steps[:, :, place])),
        saved_against_longest=1 - float(mine.energy_j[0, place]) / (cost.base_j + cost.step_j * anchor.rungs[-1]),
        promised_miss_rate=promised,
        miss_rate=missed,
        rank_correlation=_rank_correlation(arm, place, anchor),
        development_steps=development[0] if development else None,
        development_saving=development[1] if development else None,
        scores={
            metric: _score(arm, place, anchor, metric, paired, not _has_bounds(arms, metric))
            for metric, paired in pairs.items()
        },
    )


def _score(arm: Arm, place: int, anchor: Arm, metric: str, paired: PairedCurves, is_preference: bool) -> LevelScore:
    alone = paired.only([place], range(len(anchor.rungs)))
    saving, gain = saving_of(alone), gain_of(alone)
    quality = arm.quality[metric][:, :, place]
    return LevelScore(
        quality=float(np.nanmean(over_seeds(quality))),
        quality_p10=None if is_preference else float(np.nanquantile(quality, 0.1)),
        saving_at_own_quality=saving.estimate,
        saving_reason=saving.reason,
        gain_at_equal_energy=gain.estimate,
        gain_reason=gain.reason,
        permutation_p=_permutation_p(arm, place, anchor, metric),
        gain_per_step=_gain_per_step(arm, place, anchor, metric),
    )


def _permutation_p(arm: Arm, place: int, anchor: Arm, metric: str) -> float | None:
    """Return the share of permutations of the prompts whose mean quality is at least that of the arm.

    All have the same steps and therefore the same joules. None if the seeds of a prompt have different steps, or the
    ladder lacks some of the steps.
    """
    index = arm.index_on(anchor)
    if index is None or (np.nanmax(arm.steps, 1) != np.nanmin(arm.steps, 1))[:, place].any():
        return None
    rungs, quality = index[:, 0, place], over_seeds(anchor.quality[metric])
    chance, rows = np.random.default_rng(0), np.arange(len(rungs))
    known = np.isfinite(quality).all(1)
    quality, rungs, rows = quality[known], rungs[known], rows[: known.sum()]
    mine = quality[rows, rungs].mean()
    others = [quality[rows, chance.permutation(rungs)].mean() for _ in range(_PERMUTATIONS)]
    return float((1 + (np.array(others) >= mine - 1e-12).sum()) / (1 + _PERMUTATIONS))


def _gain_per_step(arm: Arm, place: int, anchor: Arm, metric: str) -> dict[int, float]:
    """Return the paper's gain, (Q − Q(N₀)) / mean steps, relative to uniform steps at the same mean, for each N₀."""
    means = np.nanmean(over_seeds(anchor.quality[metric]), axis=0)
    steps = float(np.nanmean(arm.steps[:, :, place]))
    quality = float(np.nanmean(over_seeds(arm.quality[metric][:, :, place])))
    uniform = float(np.interp(np.log2(steps), np.log2(anchor.rungs), means))
    origins = {n: float(mean) for n, mean in zip(anchor.rungs, means, strict=True) if n < steps and mean < uniform}
    return {n: (quality - mean) / (uniform - mean) - 1 for n, mean in origins.items()}


def _promise(arm: Arm, place: int) -> tuple[float | None, Estimate | None]:
    """Return the promised share of images below a quality floor, and the share that misses it, mean over prompts."""
    if arm.rule is None or arm.rule.name != "quality-floor" or arm.rule.metric not in arm.quality:
        return None, None
    values = arm.quality[arm.rule.metric][:, :, place]
    missed = np.where(np.isfinite(values), values < arm.levels[place], np.nan)
    by_prompt = resample_means(missed[..., None], resamples=RESAMPLES)
    rate = by_prompt.estimate(lambda rows: rows[:, 0], what="mean over prompts of the share of their images")
    return arm.rule.miss_rate, rate


def _rank_correlation(arm: Arm, place: int, anchor: Arm) -> float | None:
    """Return Spearman's ρ over prompts of the arm's steps and the ideal steps from true mean curves.

    It is for equal-marginal arms; None if either does not vary. The true curves are the ladder's, mean over seeds.
    """
    true = true_steps(arm, place, anchor)
    if true is None:
        return None
    taken = np.nanmean(arm.steps[:, :, place], axis=1)
    if len(set(true)) < 2 or len(set(taken)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(taken, true).statistic)


def true_steps(arm: Arm, place: int, anchor: Arm) -> Array | None:
    """Return the steps of an equal-marginal level's rule on the true mean curve of each prompt: (prompts,)."""
    rule = arm.rule
    if rule is None or rule.name != "equal-marginal" or rule.metric not in anchor.quality:
        return None
    rungs, price = np.array(anchor.rungs, np.float64), arm.levels[place]
    costs = rule.base_j + rule.step_j * rungs
    return rungs[best_buys(over_seeds(anchor.quality[rule.metric]), costs, np.array([price]))[:, 0]]


def _parts(record: Any) -> dict[str, Any]:
    """Return the fields of a record, to add to them."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
