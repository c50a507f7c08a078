"""The frontier of a run as one record: what `perjoule frontier --json` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from perjoule.errors import UnknownNameError
from perjoule.runs.directory import Run
from perjoule.statistics import benefit
from perjoule.statistics.comparisons import Arm, Evidence, compare_all, main_anchor
from perjoule.statistics.curves import Ladders
from perjoule.statistics.drawn import Drawn, drawn_for, evidence_of
from perjoule.statistics.grid import CELL_VALUE
from perjoule.statistics.pareto import hypervolume
from perjoule.statistics.point_rows import point_rows
from perjoule.statistics.points import energy_points, points_of
from perjoule.statistics.records import Corner, Frontier, Hypervolume, Knee, Marginal, Point
from perjoule.statistics.resampling import LEVEL, RESAMPLES, Array
from perjoule.statistics.tails import tail_estimates
from perjoule.types import Estimate
from perjoule.types.documents import document


def frontier(
    run: Run,
    metric: str | None = None,
    *,
    at_quality: float | None = None,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """`read_frontier`, ready for JSON: what `perjoule frontier --json` prints."""
    return document(read_frontier(run, metric, at_quality=at_quality, temperature=temperature, resamples=resamples))


def read_frontier(
    run: Run,
    metric: str | None = None,
    *,
    at_quality: float | None = None,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
) -> Frontier:
    """Operating points of one metric, the cells no other cell beats, and each arm against its anchor.

    Args:
        run: A scored run.
        metric: Defaults to the suite's primary metric.
        at_quality: Where savings are looked up; by default at the quality of the anchor's longest rung.
        temperature: For the preference that the metric predicts; by default the metric's own, and if it has none wins
            are counted.
        resamples: Bootstrap draws.

    Raises:
        UnknownNameError: If the run was not scored under `metric`.
    """
    name = metric or run.suite.metrics.primary
    if run.is_imported and not run.metrics and metric is None:
        return _joules_alone(run, resamples)
    if name not in run.metrics:
        raise UnknownNameError("scored metric", name, set(run.metrics), str(run.path))
    return frontier_of(run, drawn_for(run, name, resamples), name, at_quality=at_quality, temperature=temperature)


def frontier_of(
    run: Run, drawn: Drawn, name: str, *, at_quality: float | None = None, temperature: float | None = None
) -> Frontier:
    """`read_frontier` on draws that are there already, of which `name` is the first metric."""
    spec = run.metrics[name]
    temperature = spec.temperature if temperature is None else temperature
    evidence = evidence_of(run, drawn, name)
    grid = evidence.grid
    tails = tail_estimates(evidence.quality, drawn.draws.tails)
    table = points_of(run, grid, drawn.draws, drawn.facts)
    points = [
        row.point(_turned(_unknown(tail) if is_cell_value or spec.track == "preference" else tail, spec.sign))
        for row, tail, is_cell_value in zip(point_rows(table), tails, grid.is_cell_value(name), strict=True)
    ]
    anchor = main_anchor(evidence.arms)
    # a cell that a race dropped was compared on fewer prompts than the others
    best = [p for p in points if p.on_frontier and p.quality.value is not None and p.dropped is None]
    best.sort(key=lambda p: p.energy_j_per_image.value or 0.0)
    return Frontier(
        suite=run.suite.name,
        metric=name,
        direction=spec.direction,
        track=spec.track,
        points=tuple(points),
        frontier=tuple(p.cell_id for p in best),
        hypervolume=None if anchor is None else _hypervolume(run, evidence, anchor),
        marginal=tuple(_marginal(evidence, best)),
        knee=None if anchor is None else _knee(evidence, anchor),
        comparisons=compare_all(evidence, at_quality, temperature),
    )


def _joules_alone(run: Run, resamples: int) -> Frontier:
    """The record of a table without any quality: what each cell costs, and no frontier."""
    rows = energy_points(run, resamples)
    nothing = Estimate(value=None, low=None, high=None, level=LEVEL, n=0, method="")
    points = tuple(row.point(nothing) for row in rows)
    return Frontier(suite=run.suite.name, metric=None, direction=None, track=None, points=points)


def _unknown(estimate: Estimate) -> Estimate:
    return replace(estimate, value=None, low=None, high=None, n=0)


def _corner(run: Run, evidence: Evidence, anchor: Arm) -> tuple[float, float]:
    """Reference point of the hypervolume: (J/image, quality turned so that higher is better).

    The suite's own if it declares one; else twice the anchor's most expensive rung, and the quality of its cheapest.
    """
    declared = run.suite.metrics.reference.get(evidence.spec.name)
    sign = evidence.spec.sign
    if declared is not None:
        return declared[0], sign * declared[1]
    energy, quality = evidence.point
    return 2 * float(energy[anchor.columns[-1]]), sign * float(quality[anchor.columns[0]])


def _hypervolume(run: Run, evidence: Evidence, anchor: Arm) -> Hypervolume | None:
    """The area dominated by the cells that share the anchor's scale."""
    grid, spec, sign = evidence.grid, evidence.spec, evidence.spec.sign
    # full-reference scores of other models are not points of this plane
    members = [a for a in evidence.arms if spec.track != "fidelity" or a.family == anchor.family]
    dropped = run.race.dropped if run.race is not None else {}
    columns = np.array([c for arm in members for c in arm.columns if grid.cells[c] not in dropped], np.intp)
    energy, quality = evidence.point
    energy, quality = energy[columns], sign * quality[columns]
    corner = _corner(run, evidence, anchor)
    known = np.isfinite(energy) & np.isfinite(quality)
    if not known.any() or not np.isfinite(corner).all():
        return None
    energy, quality = energy[known], quality[known]
    beyond = [
        grid.cells[c] for c, e, q in zip(columns[known], energy, quality, strict=True) if e > corner[0] or q < corner[1]
    ]
    return Hypervolume(
        value=hypervolume(energy, quality, corner),
        reference=Corner(energy_j_per_image=corner[0], quality=sign * corner[1]),
        unit="quality × octave",
        family=anchor.family if spec.track == "fidelity" else None,
        beyond_reference=tuple(beyond),
    )


def _marginal(evidence: Evidence, best: list[Point]) -> Iterator[Marginal]:
    """What the next joule buys between neighbours on the frontier."""
    grid, spec = evidence.grid, evidence.spec
    place = {cell: i for i, cell in enumerate(grid.cells)}
    stated = grid.is_cell_value(spec.name)
    for lower, upper in pairwise(best):
        if spec.track == "fidelity" and lower.family != upper.family:
            continue
        one, other = place[lower.cell_id], place[upper.cell_id]
        means = evidence.draws.paired(spec.name, [one], [other]).times([1.0, spec.sign, 1.0, spec.sign])
        estimate, reason = benefit.gain_per_joule(means, (2, 3), (0, 1))
        if stated[one] or stated[other]:
            estimate = replace(estimate, low=None, high=None, method=CELL_VALUE)
        yield Marginal(from_=lower.cell_id, to=upper.cell_id, gain_per_joule=estimate, reason=reason)


def _knee(evidence: Evidence, anchor: Arm) -> Knee | None:
    """A hint, and how often each rung is it."""
    columns, sign = np.array(anchor.columns), evidence.spec.sign
    energy, quality = evidence.draws.energy, evidence.draws.quality(evidence.spec.name)

    def rungs(energy: Array, quality: Array) -> Array:
        return benefit.knee(Ladders(energy_j=energy[:, columns], quality=sign * quality[:, columns]))

    if len(columns) < 3 or evidence.states_once(anchor):
        return None
    point = rungs(energy.point, quality.point)[0]
    if not np.isfinite(point):
        return None
    drawn = rungs(energy.resamples, quality.resamples)
    if not np.isfinite(drawn).any():  # an energy of one window group has no draws
        return None
    shares = {
        evidence.grid.cells[columns[int(r)]]: float((drawn == r).mean()) for r in np.unique(drawn[np.isfinite(drawn)])
    }
    return Knee(cell_id=evidence.grid.cells[columns[int(point)]], shares=shares)


def _turned(estimate: Estimate, sign: float) -> Estimate:
    """An estimate of turned quality on the metric's own scale."""
    value, low, high = (None if v is None else sign * v for v in (estimate.value, estimate.low, estimate.high))
    if sign < 0:
        low, high = high, low
    return replace(estimate, value=value, low=low, high=high)
