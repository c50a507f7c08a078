"""The fit of lag and averaging time, on counters whose response is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.response import fit_response

REST_W, WORK_W = 120.0, 380.0


def updates_of(at_work: list[tuple[float, float]], *, lag_s: float, box_s: float) -> list[tuple[float, float, float]]:
    """Updates every 0.1 s of a counter that integrates a late, averaged sensor, by summing over a fine grid."""
    dt = 1e-4
    times = np.arange(0.0, at_work[-1][1] + 2.0, dt)
    power_w = np.full_like(times, REST_W)
    for begin_s, end_s in at_work:
        power_w[(times >= begin_s) & (times < end_s)] = WORK_W
    seen = np.interp(times - lag_s, times, power_w, left=REST_W)
    width = max(round(box_s / dt), 1)
    averaged = np.convolve(np.concatenate([np.full(width - 1, REST_W), seen]), np.full(width, 1 / width), "valid")
    energy_j = np.concatenate([[0.0], np.cumsum(averaged) * dt])
    marks = np.arange(0.013, times[-1], 0.1)
    return [(t - 3e-4, t + 3e-4, round(1000 * energy_j[round(t / dt)])) for t in marks]


@pytest.fixture(scope="module")
def at_work() -> list[tuple[float, float]]:
    chance = np.random.default_rng(7)
    pieces, t = [], 0.6
    for _ in range(14):
        begin_s, t = t, t + chance.uniform(0.25, 0.5)
        pieces.append((begin_s, t))
        t += chance.uniform(0.45, 0.7)
    return pieces


@pytest.mark.parametrize(("lag_s", "box_s"), [(0.0, 0.0), (0.02, 0.0), (0.1, 0.0), (0.0, 0.1), (0.03, 0.2), (0.0, 1.0)])
def test_lag_and_averaging_time_are_recovered(at_work: list[tuple[float, float]], lag_s: float, box_s: float) -> None:
    fit = fit_response(updates_of(at_work, lag_s=lag_s, box_s=box_s), at_work)
    assert fit is not None
    assert fit.lag_s == pytest.approx(lag_s, abs=0.005)
    assert fit.box_s == pytest.approx(box_s, rel=0.1, abs=0.03)
    assert (fit.rest_w, fit.work_w) == pytest.approx((REST_W, WORK_W), rel=0.02)


def test_few_updates_give_no_fit(at_work: list[tuple[float, float]]) -> None:
    assert fit_response(updates_of(at_work, lag_s=0.0, box_s=0.0)[:5], at_work) is None
