"""W215 for a trial whose denoising steps keep step with the power sensor, without `repeat`."""

from __future__ import annotations

import numpy as np
import pytest

from perjoule.meters.nvml import open_nvml
from perjoule.protocols import Generation
from perjoule.running.trial import _with_steps
from perjoule.warnings import read_warning
from tests.perjoule.meters.conftest import NOT_SUPPORTED, Rig


@pytest.mark.parametrize(
    ("step_s", "nfe_per_step", "expected"), [(0.1, 1, True), (0.2, 2, True), (0.137, 1, False), (0.0713, 2, False)]
)
def test_a_trial_says_its_period(step_s: float, nfe_per_step: int, expected: bool) -> None:
    rig = Rig(ripple_w=1.0)
    rig.nvml.failing = {"nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED}
    with open_nvml(nvml=rig.nvml, clock=rig.clock, environ={}) as meter:
        with meter.window() as window:
            for _ in window.repeat():
                rig.work(20 * step_s)
        drawn = Generation(images=np.empty((0, 8, 8, 3), np.uint8), steps=(20,), nfe_per_image=20.0 * nfe_per_step)
        assert not any(read_warning(said).code == "W215" for said in window.reading.warnings)
        reading = _with_steps(window.reading, meter, drawn, 1)
    assert any(read_warning(said).code == "W215" for said in reading.warnings) == expected
