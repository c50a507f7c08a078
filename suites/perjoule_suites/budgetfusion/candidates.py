"""Arms to replay on a ladder: predictors × rules × metrics × combinations × levels, with their controls.

    predictor      decides from the prompt
    length only    the same rule on curves of the number of tokens
    mean curve     the same rule on one curve for all prompts
    table of kinds the same rule on the mean curve of the prompt's category

The fourth control, the arm's own steps assigned to random prompts, is computed from any arm (`allocation.shuffled`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.statistics.lines import fit_line
from perjoule.statistics.resampling import over_seeds
from perjoule.weights.catalogue import weights_name
from perjoule.work.counter import WorkCounter
from perjoule_suites.budgetfusion.predictor import StepPredictor
from perjoule_suites.budgetfusion.replay import Arm, Arms, RuleOfArm, replayed, require_known, table_of_kinds
from perjoule_suites.budgetfusion.rules import (
    RULES,
    Calibration,
    CurveForecast,
    EnergyBudget,
    Rule,
    make_rule,
    saving_on,
)

TOLERANCES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
SWEEP = 15  # levels of other rules; what lies between two of them is mixed, so that few would save less
_TEXT_BATCH = 64
_MOST_J = 1e8  # of a price, beyond which no price spends less


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What to replay; the product of all.

    Attributes:
        predictors: Folders, hub ids or `builtin:NAME`.
        rules: Rules; each predictor's own if empty.
        metrics: Metrics of the rules, each on its own; the plateau rule combines them. The predictor's own if empty.
        combine: Combinations of the plateau rule; the predictor's own if empty.
        levels: Values of the rule's parameter; if empty, `default_levels`.
        miss_rate: Rate of the quality floor.
        ladders: Names of the ladders; the first fixed one if empty.
    """

    predictors: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    combine: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()
    miss_rate: float = 0.1
    ladders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for arguments that would have no effect."""
        given = {"--rule": self.rules, "--rule-metric": self.metrics, "--combine": self.combine, "--level": self.levels}
        if not self.predictors and (useless := [name for name, values in given.items() if values]):
            raise UsageError(f"{useless[0]}: there is nothing to replay: give --predictor too")
        if self.levels and len(self.rules) > 1:
            raise UsageError("--level belongs to one rule: give one --rule with it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """A rule without its level."""

    rule: str
    metric: str
    metrics: tuple[str, ...] = ()
    combine: str = "max"
    miss_rate: float = 0.1

    @property
    def words(self) -> str:
        if self.rule != "plateau":
            return f"{self.rule} {self.metric}"
        return f"plateau {self.combine} of {', '.join(self.metrics) if self.metrics else 'all'}"

    def at(self, level: float) -> Rule:
        return make_rule(
            self.rule, self.metric, level, self.miss_rate,
            metrics=self.metrics, combine=self.combine, where=f"{self.words}, level",
        )  # fmt: skip


def with_candidates(arms: Arms, candidates: Candidates, metrics: Sequence[str]) -> Arms:
    """Return the arms with replayed ones added. `metrics`: those of the evaluation, for tables without a predictor.

    Raises:
        UnknownNameError: A ladder, rule, metric or combination does not exist.
        EvidenceError: A predictor belongs to another pipeline than the ladder, looks at evaluations, or shares fewer
            than two step counts with the ladder.
    """
    require_known(candidates.ladders, arms)
    first = next(iter(arms.costs.values())).ladder
    more: dict[str, Arm] = {}
    for ladder in (arms.ladders[name] for name in candidates.ladders or (first,)):
        where = "" if ladder.name == first else f" on {ladder.name}"
        found = [arm for source in candidates.predictors for arm in _of(arms, ladder, source, candidates, where)]
        if not candidates.predictors and not arms.adaptive:
            found = list(_tables(arms, ladder, metrics, where))
        more |= {arm.name: arm for arm in found}
    return replace(arms, adaptive={**arms.adaptive, **more})


def default_levels(rule: str, metric: str, known: CurveForecast) -> tuple[float, ...]:
    """Return the levels of a sweep: `TOLERANCES`, or those that spend from the fewest to the most steps.

    Args:
        rule: Name of the rule.
        metric: Its metric.
        known: Forecasts of the development prompts, of which prices depend.

    Raises:
        UsageError: The rule is `quality-floor`, whose level is a wish.
    """
    if rule == "plateau":
        return TOLERANCES
    budgets = np.geomspace(known.energy_j[0], 0.95 * known.energy_j[-1], SWEEP + 1)[1:]
    if rule == "energy-budget":
        return tuple(budgets.tolist())
    if rule == "equal-marginal":
        prices = {EnergyBudget(metric=metric, mean_j=float(j)).price(known) for j in budgets}
        return tuple(sorted(price for price in prices if 0 < price < _MOST_J)) or (1.0,)
    raise UsageError("rule quality-floor: give the floor with --level")


def forecast_all(predictor: StepPredictor, prompts: Sequence[str]) -> CurveForecast:
    """Return the forecasts for any number of prompts."""
    if predictor.source != "network":  # controls do not read the prompt's states
        return predictor.forecast(torch.empty(0), predictor.token_counts(prompts))
    starts = range(0, len(prompts), _TEXT_BATCH)
    parts = [predictor.curves_for(prompts[start : start + _TEXT_BATCH]) for start in starts]
    return replace(parts[0], values=np.concatenate([part.values for part in parts]))


def _of(arms: Arms, ladder: Arm, source: str, candidates: Candidates, where: str) -> Iterator[Arm]:
    """Yield the arms of one predictor on one ladder. `where`: the end of their names."""
    predictor = StepPredictor.from_pretrained(source)
    _require_fit(arms, ladder, predictor, source)
    short = [Path(one.removeprefix("builtin:")).name for one in candidates.predictors]
    place = candidates.predictors.index(source)
    config, name = predictor.config, short[place] if short.count(short[place]) == 1 else source
    common = [n for n in config.grid if n in ladder.rungs]
    if len(common) < 2:
        raise EvidenceError(
            f"{source} chooses from {_listed(config.grid)} steps, but ladder {ladder.name} has {_listed(ladder.rungs)}"
        )
    calibration, texts = predictor.calibration.at(common), arms.texts
    forecasts = {
        "": forecast_all(predictor, texts).at(common),
        ", length only": forecast_all(predictor.as_control("length"), texts).at(common),
        ", mean curve": forecast_all(predictor.as_control("mean"), texts).at(common),
    }
    decision_j = _decision_j(arms, ladder, predictor)
    for setting in _settings(candidates, predictor):
        levels = candidates.levels or default_levels(setting.rule, setting.metric, calibration.forecast)
        rules = [setting.at(level) for level in levels]
        in_use = RuleOfArm(
            name=setting.rule, metric=setting.metric, miss_rate=setting.miss_rate,
            base_j=config.base_j, step_j=config.step_j,
        )  # fmt: skip
        title = f"{name} {setting.words}{where}"
        for control, forecast in forecasts.items():
            yield replayed(
                ladder, title + control, "control" if control else "predicted",
                _steps(rules, forecast, calibration), levels,
                rule=in_use, decision_j=np.full(len(levels), decision_j),
                development=None if control else _development(rules, calibration),
            )  # fmt: skip
        read = setting.metrics or config.metrics if setting.rule == "plateau" else (setting.metric,)
        energy_j = config.base_j + config.step_j * np.array(ladder.rungs, np.float64)
        table = table_of_kinds(arms, ladder, read, energy_j) if set(read) <= set(ladder.quality) else None
        if table is not None:
            yield from _table(ladder, f"{title}, table of kinds", table.at(common), rules, levels)


def _tables(arms: Arms, ladder: Arm, metrics: Sequence[str], where: str) -> Iterator[Arm]:
    """Yield the tables of kinds, one for each metric, which need no predictor."""
    cost = arms.costs[ladder.family]
    for metric in metrics:
        table = table_of_kinds(arms, ladder, (metric,), cost.base_j + cost.step_j * np.array(ladder.rungs, np.float64))
        if table is not None:
            setting = _Setting(rule="equal-marginal", metric=metric)
            levels = default_levels(setting.rule, metric, table)
            rules = [setting.at(level) for level in levels]
            yield from _table(ladder, f"table of kinds {setting.words}{where}", table, rules, levels)


def _table(
    ladder: Arm, name: str, table: CurveForecast, rules: Sequence[Rule], levels: Sequence[float]
) -> Iterator[Arm]:
    truth = np.stack([over_seeds(ladder.quality[metric]) for metric in table.metrics], axis=-1)
    truth = truth[:, np.searchsorted(ladder.rungs, table.grid)]
    known = Calibration(forecast=table, truth=truth, prompts=np.arange(len(truth)))
    try:
        steps = _steps(rules, table, known)
    except EvidenceError:  # a quality floor that the table cannot promise
        return
    yield replayed(ladder, name, "control", steps, levels)


def _steps(rules: Sequence[Rule], forecast: CurveForecast, calibration: Calibration) -> list[list[int]]:
    return [[int(forecast.grid[i]) for i in rule.choose(forecast, calibration)] for rule in rules]


def _development(rules: Sequence[Rule], calibration: Calibration) -> tuple[tuple[float, Mapping[str, float]], ...]:
    """Return mean steps and savings by metric of each level on the calibration images."""
    rows = []
    for rule in rules:
        chosen = rule.choose(calibration.forecast, calibration)
        spent = {metric: saving_on(calibration, chosen, metric) for metric in calibration.forecast.metrics}
        savings = {metric: 1 - mine_j / fixed_j for metric, (mine_j, fixed_j) in spent.items()}
        rows.append((float(calibration.forecast.grid[chosen].mean()), savings))
    return tuple(rows)


def _settings(candidates: Candidates, predictor: StepPredictor) -> Iterator[_Setting]:
    config = predictor.config
    for metric in candidates.metrics:
        if metric not in config.metrics:
            raise UnknownNameError("predicted metric", metric, config.metrics, "--rule-metric")
    rules = candidates.rules or (config.rule,)
    for rule in rules:
        if rule not in RULES:
            raise UnknownNameError("rule", rule, RULES, "--rule")
    if candidates.combine and "plateau" not in rules:
        raise UsageError("--combine belongs to the plateau rule: add --rule plateau")
    for rule in rules:
        if rule == "plateau":
            metrics = candidates.metrics or config.rule_metrics
            for combine in candidates.combine or (config.combine,):
                yield _Setting(rule=rule, metric=config.metric, metrics=metrics, combine=combine)
        else:
            for metric in candidates.metrics or (config.metric,):
                yield _Setting(rule=rule, metric=metric, miss_rate=candidates.miss_rate)


def _require_fit(arms: Arms, ladder: Arm, predictor: StepPredictor, source: str) -> None:
    config = predictor.config
    if config.peek:
        raise EvidenceError(f"{source} looks at the first evaluations, so its images have to be drawn by a suite")
    digest = arms.run.environment.get("models", {}).get(weights_name(ladder.variant))
    if digest and digest != config.model_digest:
        raise EvidenceError(
            f"{source} was trained for {config.model} ({config.model_digest[:12]}), but ladder {ladder.name} was drawn "
            f"by {ladder.variant.model} ({str(digest)[:12]}): train a predictor for it"
        )


def _decision_j(arms: Arms, ladder: Arm, predictor: StepPredictor) -> float:
    """Return joules of a decision by its share of the operations of a step; 0 if the run has not counted them."""
    flops = [arms.facts[cell.cell_id].flops_per_image for cell in ladder.cells]
    if not all(flops) or len(flops) < 2:
        return 0.0
    _, per_step = fit_line(np.array(ladder.rungs), np.array(flops, np.float64))
    prompt = arms.texts[:1]
    states, counts = predictor.states(prompt), predictor.token_counts(prompt)
    with WorkCounter(count_new=True) as counter:
        predictor.forecast(states, counts)
    return arms.costs[ladder.family].step_j * (counter.work.flops if counter.work else 0) / per_step


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
