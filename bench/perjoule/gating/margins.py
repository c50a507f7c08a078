"""The margins of a verdict, and their origins.

energy     as given, else 5 %; 0 between runs of counted work, whose joules have no noise
quality    as given, else as the suite declares (`metrics.margins`), else as the metric does (`MetricSpec.margin`), else
           the gate asks for one

The suite of the candidate counts, and that of the baseline if the candidate's declares none. `"resolvable"` is the
metric's own margin, or if the prompts of the baseline cannot show it, the smallest loss that they can, see
`perjoule.gating.resolution`. It is fixed before there is a candidate.

A run scored before metrics declared margins has none in its metrics.json: then the installed metric of the same name
and unit supplies it. Imported scores get no such margin, because their scale may be a different one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from perjoule.errors import PerjouleError, UsageError
from perjoule.gating.records import ENERGY_MARGIN, EXACT_MARGIN, GateConfig, Margin, Margins
from perjoule.gating.resolution import resolution
from perjoule.runs.directory import Run
from perjoule.suite.reading import IMPORTED
from perjoule.types import MetricSpec

GIVEN = "given"
IN_SUITE = "suite"
RESOLVED = "smallest that the prompts can show"
_BY_RESOLVABLE = ', by "resolvable"'


def margins_for(metric: str, config: GateConfig, runs: Sequence[Run]) -> Margins:
    """Return the margins on both axes; the value for quality is None if none was declared.

    Args:
        metric: Quality axis.
        config: Margins as given.
        runs: Baseline and candidate, or one run. Of two that a metrics.json declares, the smaller one is used.

    Raises:
        UsageError: If a metric declares an invalid margin, or the suite of a sequential gate one that the growing
            baseline would decide.
    """
    energy = Margin(value=ENERGY_MARGIN, origin="default")
    if all(run.is_counted for run in runs):
        energy = Margin(value=EXACT_MARGIN, origin="default of counted work")
    if config.margin_energy is not None:
        energy = Margin(value=config.margin_energy, origin=GIVEN)
    if config.margin_quality is not None:
        return Margins(energy=energy, quality=Margin(value=config.margin_quality, origin=GIVEN))
    return Margins(energy=energy, quality=_in_suites(metric, config, runs) or _of_metric(metric, runs))


def _in_suites(metric: str, config: GateConfig, runs: Sequence[Run]) -> Margin | None:
    before, now = (run.suite.metrics.margins.get(metric) for run in (runs[0], runs[-1]))
    stated = before if now is None else now
    if stated is None:
        return None
    if isinstance(stated, float):
        changed = f"margins.{metric} was {before} in the baseline's suite and is {now} in the candidate's"
        return Margin(value=stated, origin=IN_SUITE, note="" if before in (None, stated) else changed)
    require_fixed(metric, stated, sequential=config.look is not None)
    own, found = _of_metric(metric, runs), resolution(runs[0], metric, config.nominal())
    if found is None or (own.value is not None and own.value >= found.loss):
        return own if own.value is None else replace(own, origin=f"{own.origin}{_BY_RESOLVABLE}")
    smaller = "" if own.value is None else f": {found.smaller(own.value)}"
    return Margin(
        value=found.loss,
        origin=RESOLVED,
        note=f"the margin on {metric}, {found.loss:g}, is the smallest loss that {found.prompts} prompts can show, and "
        f"not known to be negligible{smaller}. State the loss that you accept: margins.{metric} in the suite",
    )


def is_left_to_prompts(origin: str) -> bool:
    """Return whether the suite states no number: the margin is what its prompts can show, or the metric's own."""
    return origin == RESOLVED or origin.endswith(_BY_RESOLVABLE)


def require_fixed(
    metric: str, stated: float | str | None, *, sequential: bool, usual: float | None = None, file: str = "the suite"
) -> None:
    """Raise UsageError if the suite leaves the margin of a sequential gate to its baseline, which grows.

    Args:
        metric: Quality axis.
        stated: What the suite states.
        sequential: Whether the gate is sequential.
        usual: The metric's own margin, which the message proposes.
        file: The suite.
    """
    if sequential and isinstance(stated, str):
        number = 0.02 if usual is None else usual
        line = f"margins.{metric} = {number:g}"
        origin = "e.g." if usual is None else "e.g. the metric's own margin,"
        raise UsageError(
            f"metrics.margins.{metric} = {stated!r}: a sequential gate needs a margin that is fixed before it measures",
            remedy=f"write the loss that you accept, {origin} `{line}`, under [metrics] in {file}, or give "
            f"--margin-quality {number:g}",
        )


def resolvable_words(run: Run, metric: str, config: GateConfig) -> str | None:
    """Return what the prompts of a first run or baseline can show, and what to write if its margin needs more.

    None if the run has no scores of the metric that differ between prompts.
    """
    found = resolution(run, metric, config.nominal())
    if found is None:
        return None
    margin = margins_for(metric, config, (run,)).quality
    if margin.note:
        return margin.note
    shown = f"{metric}: {found.prompts} prompts can show a loss of {found.loss:g}"
    if margin.value is None:
        return f"{shown}, and no margin is declared: write {found.remedy}"
    if margin.value >= found.loss:
        return f"{shown}; the margin is {margin.value:g} ({margin.origin})"
    return (
        f"{shown}; the margin ({margin.origin}) of {found.smaller(margin.value)}, and with fewer, changed images may "
        f"get no verdict. Add prompts, or write {found.remedy}"
    )


def _of_metric(metric: str, runs: Sequence[Run]) -> Margin:
    specs = [run.metrics[metric] for run in runs if metric in run.metrics]
    declared = [margin for spec in specs if (margin := _declared(spec)) is not None]
    for value in declared:
        if not 0 < value < float("inf"):
            raise UsageError(f"metric {metric}: margin = {value!r}: must be above 0, in units of the metric")
    if not declared:
        return Margin(value=None, origin="")
    return Margin(value=min(declared), origin=f"default of {metric}")


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
