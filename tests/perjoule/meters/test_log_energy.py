"""How a sensor responds, as learnt from its log."""

from __future__ import annotations

import numpy as np
import pytest

from perjoule.meters.log_energy import learn_response, window_energy
from perjoule.meters.logs import PowerLog
from perjoule.meters.samples import Sample


def made(averaging_s: float, column: str = "power.draw", poll_s: float = 0.01) -> tuple[PowerLog, float]:
    """A sensor refreshed every 100 ms over a rest of 5 s, 5 s of work and a rest; and the joules from 2 s to 7 s."""

    def total_j(t_s: float) -> float:
        return 60.0 * t_s + 240.0 * min(max(t_s - 5.0, 0.0), 5.0) + 0.5 * np.sin(3 * t_s)

    samples = []
    for t_s in np.arange(0.0, 15.0, poll_s):
        at_s = np.floor(t_s / 0.1 + 1e-6) * 0.1
        power_w = (total_j(at_s) - total_j(at_s - averaging_s)) / averaging_s
        samples.append(Sample(t_s=float(t_s), power_w=round(power_w, 2)))
    log = PowerLog(
        samples=tuple(samples), column=column, columns=(column,), board=None, begins_utc_s=None, source="made",
        boundary="gpu-board", provenance="simulated",
    )  # fmt: skip
    return log, total_j(7.0) - total_j(2.0)


@pytest.mark.parametrize(
    ("averaging_s", "column"),
    [(0.1, "power.draw"), (0.1, "power.draw.instant"), (1.0, "power.draw"), (1.0, "power.draw.average")],
)
def test_period_averaging_and_energy(averaging_s: float, column: str) -> None:
    log, truth_j = made(averaging_s, column)
    response = learn_response(log)
    assert response.timing.period_s == pytest.approx(0.1, abs=0.01)
    assert response.timing.averaging_s == pytest.approx(averaging_s if averaging_s > 0.1 else 0.0)
    result = window_energy(log, response, 2.0, 7.0)
    assert result.energy_j == pytest.approx(truth_j, rel=0.01)
    assert abs(result.energy_j - truth_j) <= result.uncertainty_j
    assert result.uncertainty_j < 0.2 * truth_j


def test_a_stated_averaging_time_is_used() -> None:
    assert learn_response(made(0.1)[0], 0.5).timing.averaging_s == 0.5
