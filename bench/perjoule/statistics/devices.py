"""Which devices the windows of a run were metered on: windows of different ones are not pooled into one cell.

Boards of one model with one power limit count as the same device; which of them it was is in `device_digest`. What an
older run, or a source that does not know, left out is not held against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from perjoule.errors import RunError
from perjoule.runs.columns import FINISHED
from perjoule.runs.directory import Run
from perjoule.warnings import warning

_KEYS = ("device", "power_limit_w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A cell whose windows belong to different devices: the key, two of its values, and a trial of each."""

    cell_id: str
    key: str
    values: tuple[str | float, str | float]
    trials: tuple[str, str]

    def __str__(self) -> str:
        one, other = self.values
        return (
            f"cell {self.cell_id} holds windows of different devices: {self.key} is {one!r} in trial {self.trials[0]} "
            f"and {other!r} in trial {self.trials[1]}"
        )


def mixtures(trials: pl.DataFrame) -> list[Mixture]:
    """The cells whose finished windows were metered on different devices, one line for each key, by cell."""
    mixed = []
    for key in _KEYS:
        if key not in trials.columns:
            continue
        known = trials.filter(FINISHED & pl.col("energy_j").is_not_null()).drop_nulls(key)
        firsts = known.group_by("cell_id", key, maintain_order=True).agg(pl.col("trial_id").first())
        for (cell_id,), part in firsts.group_by("cell_id", maintain_order=True):
            if len(part) > 1:
                first, second = part.head(2).to_dicts()
                mixed.append(
                    Mixture(
                        cell_id=str(cell_id),
                        key=key,
                        values=(first[key], second[key]),
                        trials=(first["trial_id"], second["trial_id"]),
                    )
                )
    return sorted(mixed, key=lambda mixture: mixture.cell_id)


def require_one_device(run: Run) -> None:
    """Refuse a run that has windows of different devices in one cell.

    Raises:
        RunError: Names the cell, the key and both values.
    """
    for mixture in mixtures(run.trials):
        text = warning("W265", str(mixture))
        raise RunError(f"{run.path}: {text}; their joules are not pooled: measure each device in a run of its own")


def require_same_device(run: Run) -> None:
    """Refuse a run of several devices where a line is drawn through its cells.

    Raises:
        RunError: Names the devices.
    """
    require_one_device(run)
    devices = devices_of(run.trials)
    if len(devices) > 1:
        text = warning("W265", f"the cells were measured on {', '.join(devices)}")
        raise RunError(f"{run.path}: {text}: no line can be drawn through them; measure all cells on one device")


def devices_of(trials: pl.DataFrame) -> tuple[str, ...]:
    """The devices of the finished windows in words, e.g. `NVIDIA A100-PCIE-40GB at 250 W`; empty if none is known."""
    if "device" not in trials.columns:
        return ()
    known = trials.filter(FINISHED & pl.col("energy_j").is_not_null()).drop_nulls("device")
    limits = known["power_limit_w"] if "power_limit_w" in known.columns else [None] * len(known)
    pairs = dict.fromkeys(zip(known["device"], limits, strict=True))
    return tuple(name if limit_w is None else f"{name} at {limit_w:g} W" for name, limit_w in pairs)
