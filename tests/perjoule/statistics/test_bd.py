from __future__ import annotations

import bjontegaard
import numpy as np
import pytest

from perjoule.statistics.bd import bd_energy_rows, regimes, relative_curve
from perjoule.statistics.curves import Curve
from perjoule.statistics.hermite import akima_slopes
from tests.support.curves import OTHER, QUICK, SOME, bd_energy, ladder, rows, scaled


def test_swapping_gives_the_inverse() -> None:
    there, back = (bd_energy(a, b, **QUICK).estimate.value for a, b in ((SOME, OTHER), (OTHER, SOME)))
    assert there is not None
    assert back is not None
    assert (1 + there) * (1 + back) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_bd_is_bjontegaards(seed: int) -> None:
    chance = np.random.default_rng(seed)
    curves = [(np.cumsum(chance.uniform(1, 9, 7)), np.cumsum(chance.uniform(0.1, 1, 7))) for _ in range(2)]
    (ea, qa), (et, qt) = curves
    anchor, test = rows(ea.tolist(), qa.tolist()), rows(et.tolist(), qt.tolist())
    options = {"require_matching_points": False, "interpolators": False, "min_overlap": 0}
    for method, slopes in (("pchip", None), ("akima", akima_slopes)):
        extra = () if slopes is None else (slopes,)
        theirs = bjontegaard.bd_rate(ea, qa, et, qt, method=method, **options) / 100
        assert bd_energy_rows(test, anchor, *extra)[0] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("test", "anchor", "resolved", "words"),
    [
        (ladder([1.0], [1.0]), SOME, False, "the test has one rung"),
        (ladder([1, 2, 3, 4], [5, 6, 7, 8]), SOME, False, "do not overlap"),
        (ladder([1, 2, 3, 4], [0.70, 0.75, 0.8, 0.9]), SOME, False, "insufficient overlap: 10%"),
        (ladder([2, 2.5, 3, 4, 5, 6], [0.2, 0.45, 0.6, 0.7, 0.75, 0.77]), SOME, False, "the curves cross"),
        (ladder([0.7, 5, 22], [0.2, 0.7, 0.77]), SOME, False, "fewer than 4 rungs"),
        (scaled(SOME, 1.0001), SOME, False, "not resolved: leaving one rung out"),
        (scaled(SOME, 0.7), SOME, True, None),
    ],
)
def test_why_a_bd_is_no_headline(test: Curve, anchor: Curve, resolved: bool, words: str | None) -> None:
    found = bd_energy(test, anchor, **QUICK)
    assert found.resolved == resolved
    assert (found.reason is None) if words is None else (words in (found.reason or ""))
    assert found.estimate.value is not None or "overlap" in (found.reason or "") or "one rung" in str(found.reason)


def test_crossing_curves_have_two_regimes_with_their_signs() -> None:
    found = bd_energy(ladder([2, 2.5, 3, 4, 5, 6], [0.2, 0.45, 0.6, 0.7, 0.75, 0.77]), SOME, **QUICK)
    assert [np.sign(r.change) for r in found.regimes] == [1, -1]
    assert found.regimes[0].high <= found.regimes[1].low


def test_dropped_rungs_are_named() -> None:
    bumpy = ladder([1, 2, 4, 8, 16, 32], [0.2, 0.45, 0.4, 0.7, 0.75, 0.74])
    assert bd_energy(bumpy, SOME, **QUICK).dropped == ((2, 5), ())


def test_relative_curve_stays_in_the_overlap() -> None:
    at, change = relative_curve(rows([1, 2, 4], [0, 1, 2]), rows([2, 4, 8], [0.5, 1.5, 2.5]))
    assert (at[0], at[-1]) == (0.5, 2.0)
    assert np.isfinite(change).all()


def test_a_point_and_curves_that_do_not_meet_have_no_relative_curve() -> None:
    curve = rows([1, 2, 4], [0, 1, 2])
    for test, anchor in (
        (rows([1], [1]), curve),
        (curve, rows([1], [1])),
        (rows([1, 2], [5, 6]), curve),
        (rows([1, 2], [2, 3]), curve),
    ):
        at, change = relative_curve(test, anchor)
        assert (len(at), len(change)) == (0, 0)
        assert regimes(test, anchor) == ()


def test_the_relative_curve_of_two_exponentials_is_their_ratio() -> None:
    """E = 2^Q against E = 3 · 2^Q and against E = 4^Q: straight lines of ln E, which PCHIP reproduces."""
    anchor = rows([1, 2, 4, 8], [0, 1, 2, 3])
    at, change = relative_curve(rows([3, 6, 12, 24], [0, 1, 2, 3]), anchor)
    assert change == pytest.approx(np.full(len(at), 2.0))
    at, change = relative_curve(rows([0.5, 2, 8], [-0.5, 0.5, 1.5]), anchor, places=7)
    assert at == pytest.approx(np.linspace(0, 1.5, 7))
    # 4^(Q + 1/2) / 2 is 4^Q
    assert change == pytest.approx(2.0**at - 1)
    (whole,) = regimes(rows([0.5, 2, 8], [-0.5, 0.5, 1.5]), anchor)
    assert (whole.low, whole.high) == (0.0, 1.5)
    assert whole.change == pytest.approx(2**0.75 - 1)
