from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.spatial import ConvexHull

from perjoule.statistics.curves import Curve, Ladders, pair
from perjoule.statistics.hulls import Hulls
from perjoule.statistics.savings import iso_energy_gain, iso_quality_saving
from tests.support.curves import QUICK, ladder


def worlds(seed: int, rows: int = 6, arms: int = 7) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    energy_j, quality = chance.uniform(1, 9, (rows, arms)), chance.uniform(0, 1, (rows, arms))
    energy_j[0, 2] = quality[1, 3] = np.nan
    energy_j[2, 4], quality[3, 1] = energy_j[2, 5], quality[3, 2]
    return energy_j, quality


@given(st.integers(0, 10_000))
def test_the_knots_are_those_of_the_convex_hull(seed: int) -> None:
    energy_j, quality = worlds(seed)
    hulls = Hulls.of(energy_j, quality)
    for row in range(len(energy_j)):
        known = np.flatnonzero(np.isfinite(energy_j[row]) & np.isfinite(quality[row]))
        points = np.stack([quality[row, known], energy_j[row, known]], axis=1)
        # two points far above, so that only corners below are left; to the right of the cheapest they rise
        above = [[points[:, 0].min() - 1, 1e3], [points[:, 0].max(), 1e3]]
        corners = ConvexHull(np.vstack([points, above])).vertices
        cheapest = np.lexsort((-points[:, 0], points[:, 1]))[0]
        wanted = [known[c] for c in corners if c < len(known) and points[c, 0] >= points[cheapest, 0]]
        mine = hulls.arm[row, : hulls.count[row]]
        assert sorted(mine) == sorted(wanted)
        assert (np.diff(hulls.quality[row, : hulls.count[row]]) > 0).all()
        assert (np.diff(hulls.energy_j[row, : hulls.count[row]]) > 0).all()


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_the_integral_is_scipys(seed: int, one: float, other: float) -> None:
    hulls = Hulls.of(*worlds(seed))
    first, last = hulls.quality[:, 0], np.fmax.reduce(hulls.quality, axis=1)
    low, high = (first + part * (last - first) for part in sorted((one, other)))
    for row, integral in enumerate(hulls.log_energy_integral(low, high)):
        count = hulls.count[row]
        if count < 2:
            assert np.isnan(integral)
            continue
        knots = hulls.quality[row, :count], hulls.energy_j[row, :count]
        wanted, _ = quad(lambda q, k=knots: np.log(np.interp(q, *k)), low[row], high[row], points=knots[0], limit=200)
        assert integral == pytest.approx(wanted, abs=1e-7)
    assert np.isnan(hulls.log_energy_integral(first - 0.1, last)).all()


def test_both_ways_of_reading_agree_and_end_at_the_ends() -> None:
    hulls = Hulls.of(*worlds(1))
    last = np.fmax.reduce(hulls.quality, axis=1)
    at = hulls.quality[:, :1] + (last[:, None] - hulls.quality[:, :1]) * np.array([0, 0.25, 0.6])
    assert hulls.quality_at(hulls.energy_at(at)) == pytest.approx(at)
    assert np.isnan(hulls.energy_at(np.stack([hulls.quality[:, 0] - 1e-6, last + 1e-6], axis=1))).all()
    assert hulls.energy_at(last[:, None])[:, 0] == pytest.approx(np.fmax.reduce(hulls.energy_j, axis=1))
    none = Hulls.of(np.full((1, 3), np.nan), np.ones((1, 3)))
    assert none.count.tolist() == [0]
    assert np.isnan(none.energy_at(np.ones((1, 1)))).all()


def test_mixtures_are_random_choices_between_levels() -> None:
    """Half of the draws at 1 J with quality 0, half at 3 J with quality 1: 2 J and .5, where ln E would say 1.7 J."""
    arm = Curve(energy_j=np.tile([3.0, 1.0], (10, 2, 1)), quality=np.tile([1.0, 0.0], (10, 2, 1)))
    line = ladder([1.0, 2.0, 3.0], [0.0, 0.5, 1.0])
    fixed = Curve(energy_j=np.tile([1.0, 2.0, 3.0], (10, 2, 1)), quality=np.tile([0.0, 0.5, 1.0], (10, 2, 1)))
    for at in (0.25, 0.5, 0.9):
        found = iso_quality_saving(arm, fixed, at_quality=at, mixes=True, **QUICK).estimate
        assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)
        assert (iso_quality_saving(arm, fixed, at_quality=at, **QUICK).estimate.value or 0) > 0.03
    # at the ends, where the logarithm of an energy must not fall outside by rounding
    for joules in (1.0, 1.7, 3.0):
        gain = iso_energy_gain(line, line, at_energy_j=joules, mixes=True, **QUICK).estimate
        assert gain.value == pytest.approx(0, abs=1e-12)


def test_draws_say_whether_rungs_are_mixed() -> None:
    one = ladder([1.0, 2.0], [0.0, 1.0])
    drawn = pair(one, one, mixes=True, **QUICK)
    assert [part.mixes for part in (*drawn.point, *drawn.only([0], [0, 1]).point)] == [True] * 4
    assert Ladders(energy_j=np.ones((1, 2)), quality=np.ones((1, 2)), mixes=True).without(0).mixes
    assert not any(part.mixes for part in pair(one, one, **QUICK).point)
