"""Agreement of automatic metrics with people: which metric may stand in for people, on this run.

Pairwise accuracy is the share of choices that the metric's scores of the two pictures predict; equal scores count half,
choices of "no difference" are left out. Rank correlation (Spearman) compares the means of the cells with their JOD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from perjoule.people.scaling import Fit
from perjoule.people.thurstone import Array
from perjoule.runs.directory import Run
from perjoule.statistics.resampling import LEVEL, resample_means
from perjoule.types import Estimate

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of a metric with the choices.

    Attributes:
        metric: The metric.
        pairwise_accuracy: Share of choices that it predicts; 0.5 is chance.
        rank_correlation: Spearman's, of the cells' mean scores with their JOD.
        n_choices: Choices with scores for both pictures.
    """

    metric: str
    pairwise_accuracy: Estimate
    rank_correlation: Estimate
    n_choices: int


def agreements(result: Fit, run: Run, arms: Mapping[str, str]) -> tuple[Agreement, ...]:
    """Compare every metric of a run with the choices; `arms` are those of its cells."""
    return tuple(_agreement(result, run, arms, metric) for metric in sorted(run.metrics))


def _agreement(result: Fit, run: Run, arms: Mapping[str, str], metric: str) -> Agreement:
    choices = result.choices
    table = run.metrics[metric].sign * _by_prompt(result, run, arms, metric)
    one, other = table[choices.prompt, choices.first], table[choices.prompt, choices.second]
    usable = np.isfinite(one) & np.isfinite(other) & (choices.won != 0.5)
    hit = (1 + np.sign(one - other) * np.sign(choices.won - 0.5)) / 2
    hits, counts = (
        np.bincount(choices.prompt[usable], weights, minlength=len(choices.prompts)).astype(np.float64)
        for weights in (hit[usable], np.ones(int(usable.sum())))
    )
    sums = resample_means(np.stack([hits, counts], axis=1)[:, None], resamples=RESAMPLES)

    def accuracy(rows: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(rows[:, 0] / rows[:, 1], np.float64)

    place = {arm: i for i, arm in enumerate(choices.arms)}
    columns = [place[arm] for arm in arms.values()]
    both = resample_means(
        np.concatenate([table[:, columns], result.by_prompt[:, columns]], axis=1)[:, None], resamples=RESAMPLES
    )
    count = len(columns)

    def correlation(rows: Array) -> Array:
        return _spearman(rows[:, :count], rows[:, count:])

    return Agreement(
        metric=metric,
        pairwise_accuracy=sums.estimate(accuracy, level=LEVEL, what="share of choices that the metric predicts"),
        rank_correlation=both.estimate(correlation, level=LEVEL, what="Spearman's rank correlation over cells"),
        n_choices=int(usable.sum()),
    )


def _by_prompt(result: Fit, run: Run, arms: Mapping[str, str], metric: str) -> Array:
    """(prompts, arms) mean score over seeds; NaN where there is none."""
    prompts = {prompt: i for i, prompt in enumerate(result.choices.prompts)}
    place = {arm: i for i, arm in enumerate(result.choices.arms)}
    table = np.full((len(prompts), len(place)), np.nan)
    means = (
        run.scores.filter((pl.col("metric") == metric) & pl.col("value").is_finite())
        .group_by("cell_id", "prompt_id")
        .agg(pl.col("value").mean())
    )
    for cell, prompt, value in means.iter_rows():
        if cell in arms and prompt in prompts:
            table[prompts[prompt], place[arms[cell]]] = value
    return table


def _spearman(one: Array, other: Array) -> Array:
    from scipy.stats import rankdata

    ranks = [rankdata(part, axis=1) for part in (one, other)]
    away = [part - part.mean(1, keepdims=True) for part in ranks]
    known = np.isfinite(one).all(1) & np.isfinite(other).all(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (away[0] * away[1]).sum(1) / np.sqrt((away[0] ** 2).sum(1) * (away[1] ** 2).sum(1))
    return np.where(known, value, np.nan)
