"""Histories of runs that were never made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from perjoule.gating.history import LoggedCell, LoggedRun

FIRST = datetime(2026, 1, 5, tzinfo=UTC)


def logged(week: float, energies: Sequence[float], qualities: Sequence[float | None] = (), **changes: Any) -> LoggedRun:
    """A run `week` weeks after the first, with a cell for each energy."""
    date = (FIRST + timedelta(weeks=week)).isoformat()
    padded = [*qualities, *[None] * (len(energies) - len(qualities))]
    cells = {
        f"ladder-{n:03d}": LoggedCell(
            energy_j=energy, energy_low=None, energy_high=None, bound_j=0.05 * energy, provenance="measured",
            quality=quality, quality_low=None, quality_high=None, n=24,
        )
        for n, (energy, quality) in enumerate(zip(energies, padded, strict=True), 1)
    }  # fmt: skip
    usual: dict[str, Any] = {
        "id": f"{round(week * 1000):016x}", "date": date, "logged": date, "commit": f"{round(week):07d}abcde",
        "suite": "mine", "suite_digest": "0123456789ab", "prompt_set": "ba9876543210", "device": "NVIDIA L4",
        "meter": "nvml", "boundary": "gpu-board", "provenance": "measured", "counted": False, "metric": "clip_text",
        "higher": True, "margin": 0.02, "conditions": {"torch": "2.8.0"}, "cells": cells,
    }  # fmt: skip
    return LoggedRun(**usual | changes)
