from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from perjoule.statistics.hermite import HermiteRows, Slopes, akima_slopes, pchip_slopes


@pytest.mark.parametrize(
    ("slopes", "scipy_kind"), [(pchip_slopes, PchipInterpolator), (akima_slopes, Akima1DInterpolator)]
)
@given(seed=st.integers(0, 10_000), knots=st.integers(2, 9), monotone=st.booleans())
def test_values_and_integrals_are_scipys(
    slopes: Slopes, scipy_kind: type, seed: int, knots: int, monotone: bool
) -> None:
    chance = np.random.default_rng(seed)
    x = np.cumsum(chance.uniform(0.1, 2, (3, knots)), axis=1)
    y = np.cumsum(chance.uniform(0, 1, (3, knots)), axis=1) if monotone else chance.normal(size=(3, knots))
    ours = HermiteRows(x=x, y=y, slopes=slopes(x, y))
    at = x[:, :1] + (x[:, -1:] - x[:, :1]) * np.linspace(0, 1, 21)
    at = np.clip(at, x[:, :1], x[:, -1:])
    low, high = at[:, 4], at[:, 17]
    for row in range(3):
        theirs = scipy_kind(x[row], y[row])
        assert ours.value(at)[row] == pytest.approx(theirs(at[row]), abs=1e-9)
        assert ours.integral(low, high)[row] == pytest.approx(theirs.integrate(low[row], high[row]), abs=1e-9)


def test_nothing_is_read_off_outside_the_knots() -> None:
    x, y = np.array([[1.0, 2.0, 4.0]]), np.array([[0.0, 1.0, 2.0]])
    curve = HermiteRows(x=x, y=y, slopes=pchip_slopes(x, y))
    assert np.isnan(curve.value(np.array([[0.999, 4.001]]))).all()
    assert np.isnan(curve.integral(np.array([0.5]), np.array([2.0]))).all()


def test_akimas_slope_between_two_straight_lines_is_their_mean_as_scipys_is() -> None:
    """Both weights are zero there."""
    x = np.arange(7.0)[None]
    y = np.array([[0.0, 1, 2, 3, 5, 7, 9]])
    assert akima_slopes(x, y)[0].tolist() == [1, 1, 1, 1.5, 2, 2, 2]
    assert akima_slopes(x, y)[0] == pytest.approx(Akima1DInterpolator(x[0], y[0]).derivative()(x[0]))
