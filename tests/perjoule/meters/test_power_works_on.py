"""A power meter whose board goes on working after the window, on virtual time with a truth in closed form."""

from __future__ import annotations

import pytest
from tests.perjoule.meters.conftest import NOT_SUPPORTED, Rig

from perjoule.meters.nvml import open_nvml


@pytest.mark.parametrize("instant", [False, True])
@pytest.mark.parametrize("length_s", [0.1, 0.2, 0.5, 1.0, 3.0])
def test_work_after_the_window_is_warned_of_and_bounded(length_s: float, instant: bool) -> None:
    rig = Rig(ripple_w=1.0)
    rig.nvml.failing = {"nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED}
    if not instant:
        rig.nvml.failing["field 186"] = NOT_SUPPORTED
    with open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}) as meter, meter.window() as window:
        begin_s = rig.clock.now()
        rig.load.add(begin_s, begin_s + length_s + 5.0, 300.0)
        rig.clock.advance(length_s)
        truth_j = rig.load.energy_j(begin_s, begin_s + length_s)
    reading = window.reading
    warned = any(said.startswith("W224") for said in reading.warnings)
    assert warned == (not instant or length_s < 0.25)
    if reading.uncertainty_j is not None:
        assert reading.energy_j is not None
        assert abs(reading.energy_j - truth_j) <= reading.uncertainty_j


def test_work_between_rests_is_not_warned_of() -> None:
    rig = Rig(ripple_w=1.0)
    rig.nvml.failing = {"nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED, "field 186": NOT_SUPPORTED}
    with open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}) as meter, meter.window() as window:
        truth_j = rig.work(0.5)
    assert not any(said.startswith("W224") for said in window.reading.warnings)
    assert window.reading.energy_j == pytest.approx(truth_j, abs=window.reading.uncertainty_j)
