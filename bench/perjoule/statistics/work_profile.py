"""Fits a profile of counted work to a run, for `perjoule calibrate --work`.

windows of a cell with the same work ─► point: work and energy ─► fit ─► profile, with the error of new work
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, median
from typing import Any

import polars as pl

from perjoule.errors import MeterError, RunError
from perjoule.runs.directory import Run
from perjoule.text import one_line
from perjoule.types import COUNTED, Boundary, Provenance, Work
from perjoule.work.fitting import WorkFit, fit_work
from perjoule.work.profile import WorkProfile

ESTIMATE_ERROR = 0.5  # of the level of estimated joules, as in the readings of `estimate`
# which kind of device the joules of a boundary belong to; those of `system` to any
_DEVICES = {"gpu-board": "cuda", "gpu-module": "cuda", "system": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPoint:
    """Windows of one cell with the same work per repetition.

    Attributes:
        cell_id: The cell.
        windows: How many windows.
        images: Images of a repetition, in one or more pipeline calls.
        flops_per_image: Counted operations.
        energy_j_per_image: Energy of the windows: the mean of measured joules, the least of estimated ones.
        predicted_j_per_image: Energy by the profile.
        ratio: The predicted energy over the other.
    """

    cell_id: str
    windows: int
    images: int
    flops_per_image: float
    energy_j_per_image: float
    predicted_j_per_image: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCalibration:
    """A profile that was fitted to a run.

    Attributes:
        run: The run directory.
        provenance: How its joules were obtained.
        windows: Windows with joules and counted work.
        profile: The profile; its `shape_error` is the error of work that was left out of the fit, 95 %.
        r_squared: Share of the variance of the energies that the profile explains.
        worst: Largest relative error of a point that was in the fit,
        worst_cell: and its cell.
        points: The points.
        file: Where the profile was written.
    """

    run: str
    provenance: Provenance
    windows: int
    profile: WorkProfile
    r_squared: float
    worst: float
    worst_cell: str
    points: tuple[WorkPoint, ...]
    file: str | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """Windows with the same work: cell, images and work of the first window, and joules of each repetition."""

    cell_id: str
    images: int
    iterations: int
    work: Work
    energies_j: list[float]


def calibrate_work(run: Run) -> WorkCalibration:
    """Fit a profile to the counted work and the joules of a run.

    Raises:
        RunError: The run has no counted work, its joules cannot be the basis of a profile, or there are too few
            different amounts of work.
    """
    windows = run.windows.filter((pl.col("energy_j") > 0) & pl.col("trial_id").is_in(list(run.works)))
    if windows.is_empty():
        raise RunError(
            f"{run.path}: no window has both joules and counted work (work.jsonl): measure again with this version; "
            "networks of torch are counted in the process of the run"
        )
    provenance = _provenance(run, windows)
    boundary: Boundary = _only(run, windows["boundary"].unique(), "boundaries", "energy")
    works = [run.works[trial_id] for trial_id in windows["trial_id"]]
    kind: str = _only(run, {one for work in works for one in work.devices}, "kinds of devices", "work")
    if _DEVICES.get(boundary, "cpu") not in (kind, None):
        raise RunError(f"{run.path}: the joules cover {boundary}, the work was done on {kind}: measure that device")
    model: str | None = _only(run, windows["device"].unique(), "devices", "energy")
    _only(run, windows["device_digest"].unique(), "devices", "energy")
    if " + " in (model or ""):
        raise RunError(f"{run.path}: the joules are those of several boards, {model}: measure one of them")
    groups = _groups(windows, works)
    energy = min if provenance == "estimated" else fmean
    energies_j = [energy(group.energies_j) for group in groups]
    try:
        fit = fit_work([group.work for group in groups], [
            energy_j * group.iterations for energy_j, group in zip(energies_j, groups, strict=True)
        ])  # fmt: skip
    except MeterError as error:
        raise RunError(f"{run.path}: {error}") from error
    profile = _profile(run, windows, works, fit, device=kind, model=model, boundary=boundary, provenance=provenance)
    points = [_point(group, profile, energy_j) for group, energy_j in zip(groups, energies_j, strict=True)]
    worst = max(points, key=lambda point: abs(point.ratio - 1))
    return WorkCalibration(
        run=str(run.path),
        provenance=provenance,
        windows=len(windows),
        profile=profile,
        r_squared=fit.r_squared,
        worst=fit.worst,
        worst_cell=worst.cell_id,
        points=tuple(points),
    )


def _provenance(run: Run, windows: pl.DataFrame) -> Provenance:
    """Return how the joules were obtained; raises RunError if they say nothing of the device."""
    provenance: Provenance = _only(run, windows["provenance"].unique(), "provenances", "energy")
    if provenance not in ("measured", "estimated"):
        raise RunError(f"{run.path}: its joules are {provenance}: a profile needs measured or estimated ones")
    if windows["method"].str.starts_with(COUNTED).any():
        raise RunError(
            f"{run.path}: its joules are counted work themselves ({run.path / 'trials.jsonl'}, method): measure it "
            "with --meter nvml, rapl or estimate"
        )
    return provenance


def _only(run: Run, values: Iterable[Any], what: str, whose: str) -> Any:
    """Return the only value; raises RunError if there are several."""
    distinct = sorted(set(values), key=str)
    if len(distinct) != 1:
        listed = ", ".join(str(one) for one in distinct) or "none"
        raise RunError(f"{run.path}: its {whose} has several {what}, a profile has one ({listed}): fit one run of each")
    return distinct[0]


def _groups(windows: pl.DataFrame, works: Iterable[Work]) -> list[_Group]:
    """Group windows by cell and work of a repetition."""
    groups: dict[Any, _Group] = {}
    columns = windows.select("cell_id", "iterations", "image_count", "energy_j")
    for (cell_id, iterations, images, energy_j), work in zip(columns.iter_rows(), works, strict=True):
        amounts = (work.flops, work.bytes_moved, work.operators, work.calls)
        key = cell_id, *(Fraction(amount, iterations) for amount in amounts)
        group = groups.setdefault(key, _Group(cell_id, images, iterations, work, []))
        group.energies_j.append(energy_j / iterations)
    return sorted(groups.values(), key=lambda group: (group.cell_id, group.images))


def _profile(
    run: Run,
    windows: pl.DataFrame,
    works: Iterable[Work],
    fit: WorkFit,
    *,
    device: str,
    model: str | None,
    boundary: Boundary,
    provenance: Provenance,
) -> WorkProfile:
    flops, moved, operators, calls = fit.coefficients
    bounds = (windows["uncertainty_j"] / windows["energy_j"]).drop_nulls()
    measured = provenance == "measured" and len(bounds)
    return WorkProfile(
        name=run.path.name,
        device=device,
        device_model=one_line(model or "unknown model"),
        dtypes=tuple(sorted({one for work in works for one in work.dtypes})),
        j_per_flop=flops,
        j_per_byte=moved,
        j_per_operator=operators,
        j_per_call=calls,
        level_error=float(median(bounds)) if measured else ESTIMATE_ERROR,
        shape_error=fit.held_out,
        boundary=boundary,
        origin=f"fitted to {provenance} joules of {len(windows)} windows of suite {run.suite.name}, {fit.points} "
        "amounts of work",
    )


def _point(group: _Group, profile: WorkProfile, energy_j: float) -> WorkPoint:
    drawn = group.images * group.iterations
    predicted_j = profile.energy_j(group.work) / drawn
    return WorkPoint(
        cell_id=group.cell_id,
        windows=len(group.energies_j),
        images=group.images,
        flops_per_image=group.work.flops / drawn,
        energy_j_per_image=energy_j / group.images,
        predicted_j_per_image=predicted_j,
        ratio=predicted_j / (energy_j / group.images),
    )
