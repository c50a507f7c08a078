"""The margins of a verdict, and their origins.

energy     as given, else 5 %; 0 between runs of counted work, whose joules have no noise
quality    as given, else as the metric declares (`MetricSpec.margin`), else the gate asks for one

A run scored before metrics declared margins has none in its metrics.json: then the installed metric of the same name
and unit supplies it. Imported scores get no such margin, because their scale may be a different one.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from perjoule.errors import PerjouleError, UsageError
from perjoule.gating.records import ENERGY_MARGIN, EXACT_MARGIN, GateConfig, Margin, Margins
from perjoule.runs.directory import Run
from perjoule.suite.reading import IMPORTED
from perjoule.types import MetricSpec

GIVEN = "given"


def margins_for(metric: str, config: GateConfig, runs: Sequence[Run]) -> Margins:
    """Return the margins on both axes; the value for quality is None if none was declared.

    Args:
        metric: Quality axis.
        config: Margins as given.
        runs: Baseline and candidate, whose metrics.json may declare one; the smaller of two is used.

    Raises:
        UsageError: If a metric declares an invalid margin.
    """
    energy = Margin(value=ENERGY_MARGIN, origin="default")
    if all(run.is_counted for run in runs):
        energy = Margin(value=EXACT_MARGIN, origin="default of counted work")
    if config.margin_energy is not None:
        energy = Margin(value=config.margin_energy, origin=GIVEN)
    if config.margin_quality is not None:
        return Margins(energy=energy, quality=Margin(value=config.margin_quality, origin=GIVEN))
    specs = [run.metrics[metric] for run in runs if metric in run.metrics]
    declared = [margin for spec in specs if (margin := _declared(spec)) is not None]
    for value in declared:
        if not 0 < value < float("inf"):
            raise UsageError(f"metric {metric}: margin = {value!r}: must be above 0, in units of the metric")
    if not declared:
        return Margins(energy=energy, quality=Margin(value=None, origin=""))
    return Margins(energy=energy, quality=Margin(value=min(declared), origin=f"default of {metric}"))


def require_margin(metric: str, margins: Margins, scored: Run) -> None:
    """Raise UsageError if there is no margin on quality; the message names the option and how to choose a value.

    `scored` is a run with scores of the metric, whose range is given as orientation.
    """
    if margins.quality.value is not None:
        return
    unit = scored.metrics[metric].unit
    raise UsageError(
        f"gate: metric {metric!r} declares no margin",
        remedy=f"give --margin-quality (in Python GateConfig.margin_quality): the largest loss"
        f"{f' in {unit}' if unit else ''} that you would accept without a second look, e.g. a tenth of the "
        f"difference between a good and a poor setting{_span(scored, metric)}; docs/metrics.md has the margins of "
        "other metrics and their reasons",
    )


def _declared(spec: MetricSpec) -> float | None:
    if spec.margin is not None or spec.weights_digest == IMPORTED:
        return spec.margin
    installed = _installed(spec.name)
    if installed is None or (installed.unit, installed.direction) != (spec.unit, spec.direction):
        return None
    return installed.margin


def _installed(name: str) -> MetricSpec | None:
    """Return the spec of the installed metric, read without its weights; None if that is not possible."""
    from perjoule.quality import load_metric, metric_names

    if name not in metric_names():
        return None
    try:
        card = getattr(load_metric(name, {}, f"metric {name}"), "card", None)
    except PerjouleError:  # it needs options, or an extra that is not installed
        return None
    return card if isinstance(card, MetricSpec) else None


def _span(run: Run, metric: str) -> str:
    means = (
        run.scores.filter((pl.col("metric") == metric) & pl.col("value").is_finite())
        .group_by("cell_id")
        .agg(pl.col("value").mean())["value"]
    )
    low, high = means.min(), means.max()
    if len(means) < 2 or not isinstance(low, float) or not isinstance(high, float):
        return ""
    return f" (cells of {run.path.name} have means from {low:.4g} to {high:.4g})"
