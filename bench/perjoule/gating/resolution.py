"""The smallest loss of quality that the prompts of a run can show, before there is a candidate.

    loss = (z_{1−α} + z_{0.8}) · sd / √n          sd² = 2 · mean over n prompts of (variance between seeds / seeds)

A candidate with other images of the same quality differs from the baseline like other seeds do: sd is then the standard
deviation of the paired differences. A loss of this size is detected in four of five cases; a smaller one needs more
prompts or seeds. A change that suits some prompts better than others has a larger sd, which only the verdict can show.
The variance between prompts would not do instead: it is the same on both sides, and a margin of its size would pass
ruined images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from perjoule.gating.decide import prompts_needed
from perjoule.runs.directory import Run
from perjoule.statistics.detectable import minimal_detectable_effect

_DIGITS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What the prompts of a run can show.

    Attributes:
        metric: Quality axis.
        prompts: Number of prompts with two seeds or more.
        sd: Standard deviation of paired differences if only the images change, in units of the metric.
        alpha: One-sided level of the gate.
        loss: Smallest loss that is detected in four of five cases, rounded up to two digits.
    """

    metric: str
    prompts: int
    sd: float
    alpha: float
    loss: float

    def needed(self, margin: float) -> int | None:
        """Return the number of prompts that a margin needs; None if no number is enough."""
        return prompts_needed(self.sd, margin, 0.0, self.alpha)

    def smaller(self, margin: float) -> str:
        """Return what a smaller margin needs, e.g. `0.01 would need about 200 prompts`."""
        return f"{margin:.4g} would need about {self.needed(margin) or 0:,} prompts"

    @property
    def remedy(self) -> str:
        """Return what to write into the suite, if this loss is acceptable."""
        return f"margins.{self.metric} = {self.loss:g} under [metrics] in the suite, if you accept that loss"


def resolution(run: Run, metric: str, alpha: float) -> Resolution | None:
    """Return what the prompts of a run can show; None with fewer than two prompts or seeds, or if no score differs."""
    scores = run.scores.filter((pl.col("metric") == metric) & pl.col("value").is_finite())
    images = scores.group_by("prompt_id", "seed").agg(pl.col("value").mean())
    prompts = images.group_by("prompt_id").agg(variance=pl.col("value").var() / pl.len()).drop_nulls()
    variance = prompts["variance"].mean() if len(prompts) > 1 else None
    if not isinstance(variance, float) or not 0 < variance < math.inf:
        return None
    sd = math.sqrt(2 * variance)
    loss = minimal_detectable_effect(sd / math.sqrt(len(prompts)), alpha)
    return Resolution(metric=metric, prompts=len(prompts), sd=sd, alpha=alpha, loss=rounded_up(loss))


def rounded_up(value: float) -> float:
    """Return a positive value with two digits, at least as large."""
    place = _DIGITS - 1 - math.floor(math.log10(value))
    scaled = value * 10.0**place
    return float(f"{math.ceil(scaled * (1 - 1e-12)) / 10.0**place:.{_DIGITS}g}")
