from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from perjoule.meters.conditions import POWER_CAP
from perjoule.statistics.clocks import clock_difference
from perjoule.types import Conditions, DeviceEnergy


def run_of(clocks: dict[str, list[tuple[int, int] | None]], capped: frozenset[str] = frozenset()) -> Any:
    """A run with windows of these (lowest, highest) clocks in each cell."""
    rows, devices = [], []
    for cell, windows in clocks.items():
        for i, clock in enumerate(windows):
            trial = f"{cell}.{i}"
            rows.append({"trial_id": trial, "cell_id": cell})
            conditions = Conditions(
                temperature_c=(50, 60),
                power_limit_w=(700.0, 700.0),
                sm_clock_mhz=clock,
                throttle_reasons=POWER_CAP if cell in capped else 0,
            )
            devices.append(
                (trial, DeviceEnergy(device="board-1", energy_j=1.0, uncertainty_j=0.1, conditions=conditions))
            )
    return SimpleNamespace(windows=pl.DataFrame(rows), devices=devices)


def test_cells_at_different_clocks_are_named_with_the_power_limit() -> None:
    found = clock_difference(
        run_of({"small": [(345, 1980)] * 3, "large": [(1200, 1410), (345, 1440), (900, 1425)]}, frozenset({"large"}))
    )
    assert found == (
        "W262: the SM clock differs between cells: 1425 MHz in large (at the power limit in 3 of 3 windows) and "
        "1980 MHz in small (at the power limit in 0 of 3 windows)"
    )


@pytest.mark.parametrize(
    "clocks",
    [
        {"a": [(345, 1980)] * 3, "b": [(345, 1800)] * 3},  # within a tenth
        {"a": [(345, 1980), (345, 600), (345, 1980)], "b": [(345, 1980)]},  # one short window at low clocks
        {"a": [None, None], "b": [(345, 1980)]},  # not reported
        {"a": [None]},
    ],
)
def test_equal_and_unknown_clocks_say_nothing(clocks: dict[str, list[tuple[int, int] | None]]) -> None:
    assert clock_difference(run_of(clocks)) is None
