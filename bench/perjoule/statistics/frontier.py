"""The frontier of a run as one record: what `perjoule frontier --json` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from perjoule.errors import UnknownNameError
from perjoule.runs.directory import Run
from perjoule.statistics import benefit
from perjoule.statistics.comparisons import Arm, Evidence, compare_all, main_anchor
from perjoule.statistics.curves import Ladders
from perjoule.statistics.drawn import Drawn, draw, evidence_of
from perjoule.statistics.grid import CELL_VALUE, Grid, read_grid
from perjoule.statistics.pareto import hypervolume
from perjoule.statistics.points import cell_facts, points_of
from perjoule.statistics.records import Corner, Frontier, Hypervolume, Knee, Marginal, Point
from perjoule.statistics.resampling import LEVEL, RESAMPLES, Array
from perjoule.statistics.tails import tail_estimates
from perjoule.types import Estimate, MetricSpec


def frontier(
    run: Run,
    metric: str | None = None,
    *,
    at_quality: float | None = None,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """`read_frontier`, ready for JSON: what `perjoule frontier --json` prints."""
    found = read_frontier(run, metric, at_quality=at_quality, temperature=temperature, resamples=resamples)
    return found.as_json()


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
    return frontier_of(run, draw(run, [name], resamples), name, at_quality=at_quality, temperature=temperature)


def frontier_of(
    run: Run, drawn: Drawn, name: str, *, at_quality: float | None = None, temperature: float | None = None
) -> Frontier:
    """`read_frontier` on draws that are there already, of which `name` is the first metric."""
    spec = run.metrics[name]
    temperature = spec.temperature if temperature is None else temperature
    grid, draws = drawn.of(name)
    evidence = evidence_of(run, drawn, name)
    tails = tail_estimates(evidence.quality, drawn.tails)
    table = points_of(run, grid, draws, drawn.facts)
    points = [
        _point(row, _turned(_untold(tail) if one else tail, spec.sign))
        for row, tail, one in zip(table.iter_rows(named=True), tails, grid.is_cell_value(name), strict=True)
    ]
    anchor = main_anchor(evidence.arms)
    best = [p for p in points if p.on_frontier and p.quality.value is not None]
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
    grid = read_grid(run, [])
    rows = points_of(run, grid, grid.drawn(resamples), cell_facts(run.trials)).to_dicts()
    nothing = Estimate(value=None, low=None, high=None, level=LEVEL, n=0, method="")
    points = tuple(replace(_point(row, nothing), quality=nothing) for row in rows)
    return Frontier(suite=run.suite.name, metric=None, direction=None, track=None, points=points)


def _untold(estimate: Estimate) -> Estimate:
    return replace(estimate, value=None, low=None, high=None, n=0)


def corner_of(run: Run, spec: MetricSpec, grid: Grid, anchor: Arm, point: Array) -> tuple[float, float]:
    """Reference point of the hypervolume: (J/image, quality turned so that higher is better).

    The suite's own if it declares one; else twice the anchor's dearest rung, and the quality of its cheapest.
    """
    declared = run.suite.metrics.reference.get(spec.name)
    sign = spec.sign
    if declared is not None:
        return declared[0], sign * declared[1]
    return (
        2 * float(point[0, anchor.columns[-1]]),
        sign * float(point[0, len(grid.cells) + anchor.columns[0]]),
    )


def _hypervolume(run: Run, evidence: Evidence, anchor: Arm) -> Hypervolume | None:
    """The area dominated by the cells that share the anchor's scale."""
    grid, point, spec = evidence.grid, evidence.means.point, evidence.spec
    count, sign = len(grid.cells), spec.sign
    # full-reference scores of other models are no points of this plane
    members = [a for a in evidence.arms if spec.track != "fidelity" or a.family == anchor.family]
    columns = np.array([c for arm in members for c in arm.columns])
    energy, quality = point[0, columns], sign * point[0, count + columns]
    corner = corner_of(run, spec, grid, anchor, point)
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
    count, sign = len(grid.cells), spec.sign
    place = {cell: i for i, cell in enumerate(grid.cells)}
    stated = grid.is_cell_value(spec.name)
    turned = evidence.means.times(np.repeat([1.0, sign], count))
    for lower, upper in pairwise(best):
        if spec.track == "fidelity" and lower.family != upper.family:
            continue
        one, other = (place[lower.cell_id], place[upper.cell_id])
        estimate, reason = benefit.gain_per_joule(turned, (other, count + other), (one, count + one))
        if stated[one] or stated[other]:
            estimate = replace(estimate, low=None, high=None, method=CELL_VALUE)
        yield Marginal(from_=lower.cell_id, to=upper.cell_id, gain_per_joule=estimate, reason=reason)


def _knee(evidence: Evidence, anchor: Arm) -> Knee | None:
    """A hint, and how often each rung is it."""
    count, sign = len(evidence.grid.cells), evidence.spec.sign
    columns = np.array(anchor.columns)

    def rungs(rows: Array) -> Array:
        return benefit.knee(Ladders(energy_j=rows[:, columns], quality=sign * rows[:, count + columns]))

    if len(columns) < 3 or evidence.states_once(anchor):
        return None
    point = rungs(evidence.means.point)[0]
    if not np.isfinite(point):
        return None
    drawn = rungs(evidence.means.resamples)
    if not np.isfinite(drawn).any():  # an energy of one window group has no draws
        return None
    shares = {
        evidence.grid.cells[columns[int(r)]]: float((drawn == r).mean()) for r in np.unique(drawn[np.isfinite(drawn)])
    }
    return Knee(cell_id=evidence.grid.cells[columns[int(point)]], shares=shares)


def _point(row: dict[str, Any], tail: Estimate) -> Point:
    values: dict[str, Any] = {field.name: row.get(field.name) for field in fields(Point)} | {
        "energy_j_per_image": _estimate(row, "energy_j_per_image", "energy"),
        "quality": _estimate(row, "quality", "quality"),
        "quality_p10": tail,
    }
    return Point(**values)


def _turned(estimate: Estimate, sign: float) -> Estimate:
    """An estimate of turned quality on the metric's own scale."""
    value, low, high = (None if v is None else sign * v for v in (estimate.value, estimate.low, estimate.high))
    if sign < 0:
        low, high = high, low
    return replace(estimate, value=value, low=low, high=high)


def _estimate(row: dict[str, Any], value: str, prefix: str) -> Estimate:
    return Estimate(
        value=row[value],
        low=row[f"{prefix}_low"],
        high=row[f"{prefix}_high"],
        level=LEVEL,
        n=row[f"{prefix}_n"],
        method=row[f"{prefix}_method"],
    )
