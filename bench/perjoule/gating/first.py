"""The verdict of the first run, which has no baseline: neutral, with what was measured and how to store it."""

from __future__ import annotations

from perjoule.display import quantity
from perjoule.gating.margins import resolvable_words
from perjoule.gating.records import GateConfig, Verdict
from perjoule.runs.directory import Run
from perjoule.types import Suite

_LISTED = 6


def first_verdict(candidate: Run, baseline: str, metric: str | None, config: GateConfig) -> Verdict:
    """Return the neutral verdict of a candidate without a baseline.

    Args:
        candidate: The run.
        baseline: Name or path that was given as the baseline.
        metric: Quality axis; the suite's primary metric by default.
        config: Configuration of the gate.
    """
    name = metric or candidate.suite.metrics.primary
    reason = _reason(baseline, "run")
    words = resolvable_words(candidate, name, config) if name else None
    return Verdict.neutral(name, config, reason, (*_measured(candidate, name), *((words,) if words else ())))


def unmeasured_verdict(suite: Suite, baseline: str, metric: str | None, config: GateConfig) -> Verdict:
    """Return the neutral verdict of a sequential gate without a baseline, which measures nothing."""
    note = f"nothing was measured: with a baseline, the suite {suite.name!r} is measured until the verdict"
    return Verdict.neutral(metric or suite.metrics.primary, config, _reason(baseline, "run or suite"), (note,))


def _reason(baseline: str, kind: str) -> str:
    if "/" in baseline:
        return (
            f"there is no {kind} {baseline} to compare with, so nothing was judged. If the base branch has no suite "
            "yet, this changes when it is merged."
        )
    return (
        f"no baseline is stored yet, so nothing was judged. The next run on the main branch stores one: perjoule "
        f"baseline save {baseline} RUN. Pull requests are judged from then on."
    )


def _measured(run: Run, metric: str) -> list[str]:
    """Return what each cell costs and how good its images are."""
    points = run.points.filter(metric=metric) if metric in run.points["metric"] else run.points
    texts = []
    for point in points.unique("cell_id").sort("cell_id").head(_LISTED).iter_rows(named=True):
        energy = point["energy_j_per_image"]
        words = "no joules" if energy is None else f"{quantity(energy, 'J')} per image ({point['provenance']})"
        if point["metric"] == metric and point["quality"] is not None:
            words += f", {metric} {point['quality']:.4g}"
        texts.append(f"{point['cell_id']}: {words}")
    return texts
