"""Prices from windows that were metered: an earlier run, or a calibration.

    the cell itself was there               ──►  mean over its windows
    other step counts of the model were     ──►  a line through them, E = e0 + e1 · N
    one step count of the model was         ──►  in proportion, with a range

Of the model's windows, those under the same sampler and batch size come first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from perjoule.forecast.published import LEAST_STEPS, calls_of, is_guided, proportional, tables
from perjoule.forecast.records import Price, Projection
from perjoule.runs.directory import Run
from perjoule.statistics.devices import require_same_device
from perjoule.statistics.lines import line_through
from perjoule.suite.reading import cells_of
from perjoule.suite.smaller import planned_name, smaller_batch, with_batch
from perjoule.types import Cell, Protocol, Provenance, Variant, weakest

LEVEL = 0.95
# standard deviation of E between sessions on one machine, as a share; assumed, since no run can see its own. A power
# model of CPUs goes by the time they take, and that by who else is there: on two busy cores the same cells took twice
# as much an hour later
SESSION_SD: dict[str | None, float] = {
    "measured": 0.03, "simulated": 0.03, "estimated": 0.3, "not stated": 0.3, None: 0.3,
}  # fmt: skip
# a line through two single windows has no scatter of its own
_UNSCATTERED = (1 / 1.3, 1.3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Windows without failures that have joules: per image, with the cell they belong to."""

    frame: pl.DataFrame
    cells: dict[str, Cell]
    protocol: Protocol
    path: str
    device: str

    @classmethod
    def of(cls, run: Run, name: str = "") -> Windows:
        """Read a run's windows; `name` is what to call the run, its path by default.

        Raises:
            RunError: If the windows belong to different devices.
        """
        require_same_device(run)
        cells = {cell.cell_id: cell for cell in cells_of(run.suite)}
        for cell_id in run.windows["cell_id"].unique(maintain_order=True):
            size, planned = smaller_batch(cell_id), cells.get(planned_name(cell_id))
            if size is not None and planned is not None:
                cells[cell_id] = with_batch(planned, size)
        calls = {cell_id: calls_of(cell) for cell_id, cell in cells.items() if cell.steps is not None}
        frame = run.windows.filter((pl.col("energy_j") > 0) & (pl.col("duration_s") > 0)).select(
            "cell_id",
            "iterations",
            "provenance",
            "boundary",
            # windows of the same prompts, in other blocks or under other seeds, are one unit of energy
            group=pl.col("prompt_ids").list.unique().list.sort(),
            # of the denoiser, by the closed count; adaptive cells have none, and no line is drawn through them
            steps=pl.col("cell_id").replace_strict(calls, default=None, return_dtype=pl.Int64),
            energy_j="energy_j_per_image",
            duration_s=pl.col("duration_s") / pl.col("images"),
        )
        device = run.system.comparability and run.system.comparability.device
        return cls(
            frame=frame,
            cells=cells,
            protocol=run.suite.protocol,
            path=name or str(run.path),
            device=(device[0] if isinstance(device, list) else device) or "a device that was not recorded",
        )

    def where(self, same: Callable[[Cell], bool]) -> pl.DataFrame:
        """The windows of the cells for which `same` holds."""
        chosen = [cell_id for cell_id, cell in self.cells.items() if same(cell)]
        return self.frame.filter(pl.col("cell_id").is_in(chosen))


def unused(run: Run) -> list[str]:
    """What of an earlier run cannot price a plan, a sentence each."""
    good = run.windows
    count, reasons = len(good), []
    unit = "rows" if run.is_imported else "windows"
    if run.is_imported:
        reasons.append(
            f"{run.path} was imported from {run.system.imported_from}: it does not state the settings of its "
            "models, so its joules price no cell of this plan; and its rows are images, not windows, so they show no "
            "scatter of energy"
        )
    for name, what in (("energy_j", "joules"), ("duration_s", "duration")):
        without = count - int((good[name] > 0).sum())
        if without:
            reasons.append(f"{run.path}: {without} of {count} {unit} have no {what}")
    vague = int((good["provenance"].fill_null("not stated") == "not stated").sum())
    if vague:
        reasons.append(f"{run.path}: {vague} of {count} {unit} do not state how their joules came about")
    return reasons


def measured_price(cell: Cell, windows: Windows, protocol: Protocol, device: str | None) -> Price:
    """What an image of the cell costs by windows that were metered.

    Args:
        cell: The cell to price.
        windows: Windows of the earlier run.
        protocol: Protocol of the plan.
        device: Device that the run is planned for; a device other than the run's widens the range.
    """
    twins = windows.where(lambda other: _task(other) == _task(cell))
    if len(twins):
        repeats = _repeats(twins, windows.protocol, protocol)
        return _price(twins, windows, "the cell's own windows", _mean, repeats, device)
    if cell.steps is None:
        return Price(reason=f"its step policy decides when it sees the prompt, and {windows.path} has no such cell")
    wanted = float(calls_of(cell))
    rungs = windows.where(lambda other: other.steps is not None and _work(other) == _work(cell))
    if rungs["steps"].n_unique() < 2:
        others = windows.where(lambda other: other.steps is not None and _engine(other) == _engine(cell))
        rungs = others if others["steps"].n_unique() > rungs["steps"].n_unique() else rungs
    if rungs.is_empty():
        return Price(reason=f"{windows.path} has no windows of {cell.variant.model} at this size and dtype")
    counts = rungs["steps"].unique().to_list()
    batches = {windows.cells[cell_id].batch_size or 1 for cell_id in rungs["cell_id"]}
    fuller = _of_batches(batches, cell.batch_size or 1)
    if len(counts) > 1:
        source = f"line through {len(rungs)} windows of {len(counts)} step counts"
        line = _price(rungs, windows, source, lambda rows, name: _on_line(rows, name, wanted), None, device)
        return _widened(line, fuller)
    (steps,) = counts
    if min(steps, wanted) < LEAST_STEPS:
        return Price(reason=f"{windows.path} has {cell.variant.model} at {steps:.0f} steps only: a line needs two")
    source = f"in proportion to {steps:.0f} steps"
    return _widened(
        _price(rungs, windows, source, lambda rows, name: _scaled(steps, rows, name, wanted), None, device), fuller
    )


def _of_batches(there: set[int], here: int) -> tuple[float, float]:
    """What a call of another size may change, by published figures: fuller calls cost less an image, never more."""
    least = tables()["spread"]["more_images_per_call"]["low"]
    return (least if min(there) < here else 1.0), (1 / least if max(there) > here else 1.0)


def _widened(price: Price, factors: tuple[float, float]) -> Price:
    energy_j, duration_s = (p and p.widened(*factors) for p in (price.energy_j, price.duration_s))
    return replace(price, energy_j=energy_j, duration_s=duration_s)


def _price(
    rows: pl.DataFrame,
    windows: Windows,
    how: str,
    project: Callable[[pl.DataFrame, str], Projection],
    repeats: Projection | None,
    device: str | None,
) -> Price:
    rests_on = weakest(rows["provenance"])
    energy_j, duration_s = (_over_sessions(project(rows, name), rests_on) for name in ("energy_j", "duration_s"))
    elsewhere = device is not None and device != windows.device
    if elsewhere:
        spread = tables()["spread"]["other_device"]
        energy_j, duration_s = (p.widened(spread["low"], spread["high"]) for p in (energy_j, duration_s))
    return Price(
        energy_j=energy_j,
        duration_s=duration_s,
        source=f"{windows.path}: {how}, on {windows.device}{' (another device than here)' if elsewhere else ''}",
        rests_on=rests_on,
        boundary=", ".join(sorted(rows["boundary"].drop_nulls().unique())) or None,
        repeats=repeats,
    )


def _by_group(rows: pl.DataFrame, name: str, *more: str) -> pl.DataFrame:
    """Means over the windows of the same prompts in one cell."""
    keys = ["cell_id", "group", *more]
    return rows.group_by(keys, maintain_order=True).agg(pl.col(name).mean())


def _mean(rows: pl.DataFrame, name: str) -> Projection:
    """Mean over window groups; from one group the scatter is not known, so the ends are judged."""
    values = _by_group(rows, name)[name].to_numpy().astype(np.float64)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Projection(value=mean, low=mean * _UNSCATTERED[0], high=mean * _UNSCATTERED[1], level=None)
    from scipy.special import stdtrit

    return _interval(mean, float(stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(count)))


def _on_line(rows: pl.DataFrame, name: str, wanted: float) -> Projection:
    groups = _by_group(rows, name, "steps")
    line = line_through(groups["steps"].to_numpy(), groups[name].to_numpy().astype(np.float64))
    value = line.at(wanted)
    if not line.freedom:
        return Projection(value=value, low=value * _UNSCATTERED[0], high=value * _UNSCATTERED[1], level=None)
    return _interval(value, line.half_width(wanted, LEVEL))


def _scaled(steps: float, rows: pl.DataFrame, name: str, wanted: float) -> Projection:
    base = _mean(rows, name)
    mean, ratio = base.value, proportional(int(steps), 1.0, wanted)
    return Projection(value=mean * ratio.value, low=base.low * ratio.low, high=base.high * ratio.high, level=None)


def _over_sessions(projection: Projection, rests_on: Provenance | None) -> Projection:
    """Widened by the scatter between sessions."""
    from scipy.special import ndtri

    session = float(ndtri((1 + LEVEL) / 2)) * SESSION_SD[rests_on] * projection.value
    below, above = (float(np.hypot(end - projection.value, session)) for end in (projection.low, projection.high))
    return Projection(
        value=projection.value,
        low=_lowered(projection.value, below),
        high=projection.value + above,
        level=projection.level,
    )


def _interval(value: float, half: float) -> Projection:
    return Projection(value=value, low=_lowered(value, half), high=value + half, level=LEVEL)


def _lowered(value: float, half: float) -> float:
    """`value - half`; joules cannot be negative, so a wide interval ends at a ratio instead."""
    return value - half if half < value / 2 else value**2 / (value + 2 * half)


def _repeats(rows: pl.DataFrame, there: Protocol, here: Protocol) -> Projection | None:
    """How often a window did its work under the same bound and size."""
    same = ("max_uncertainty", "iterations", "images_per_window")
    if here.max_uncertainty is None or any(getattr(there, key) != getattr(here, key) for key in same):
        return None
    seen = rows["iterations"].to_numpy().astype(np.float64)
    return Projection(value=float(seen.mean()), low=float(seen.min()), high=float(seen.max()), level=None)


def _task(cell: Cell) -> Hashable:
    """Equal for cells that do the same: same work, same steps or same policy at the same level."""
    variant = cell.variant
    policy = (variant.policy, repr(sorted(variant.policy_args.items())), cell.level)
    return (_work(cell), cell.steps, policy if cell.steps is None else ())


def _work(cell: Cell) -> Hashable:
    """Equal for cells whose images cost the same at equal steps."""
    return (_settings(cell.variant), cell.batch_size)


def _engine(cell: Cell) -> Hashable:
    """Equal for cells of one model, whatever the sampler and the batch size."""
    return _settings(replace(cell.variant, scheduler="", scheduler_args={}, schedule=""))


def _settings(variant: Variant) -> str:
    """All that decides what an image costs; the names, the words and the height of the guidance do not."""
    told_apart: dict[str, Any] = asdict(variant)
    for key in ("name", "role", "policy", "policy_args", "steps", "levels", "family", "negative_prompt", "batch_size"):
        told_apart.pop(key)
    told_apart["guidance"] = is_guided(variant)
    return repr(sorted(told_apart.items()))


def calibration_plan(cells: Sequence[Cell]) -> list[Cell]:
    """The cells to meter so that all others can be priced: both ends of each ladder, and adaptive cells."""
    chosen: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        key = _work(cell) if cell.steps is not None else _task(cell)
        chosen.setdefault(key, []).append(cell)
    cells_to_meter: list[Cell] = []
    for group in chosen.values():
        ordered = sorted(group, key=lambda cell: cell.steps or 0)
        cells_to_meter += [ordered[0]] if ordered[0].steps == ordered[-1].steps else [ordered[0], ordered[-1]]
    return cells_to_meter
