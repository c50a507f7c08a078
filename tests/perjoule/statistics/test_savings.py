from __future__ import annotations

from dataclasses import replace

import bjontegaard
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.errors import EvidenceError
from perjoule.statistics import bd
from perjoule.statistics.allocation import chosen, headroom, oracle, shuffled
from perjoule.statistics.bd import BdEnergy, bd_energy_rows, relative_curve
from perjoule.statistics.curves import Curve, FidelityCurve, Ladders, envelope, pair
from perjoule.statistics.hermite import akima_slopes
from perjoule.statistics.savings import iso_energy_gain, iso_quality_saving
from tests.support.worlds import World

QUICK = {"resamples": 200}


def ladder(energy: list[float], quality: list[float]) -> Curve:
    """The same curve for four prompts."""
    return Curve(energy_j=np.tile(energy, (4, 1)), quality=np.tile(quality, (4, 1)))


def rows(energy: list[float], quality: list[float]) -> Ladders:
    return Ladders(energy_j=np.array([energy]), quality=np.array([quality]))


def bd_energy(test: Curve | FidelityCurve, anchor: Curve | FidelityCurve, **options: int) -> BdEnergy:
    return bd.bd_energy(pair(test, anchor, **options))


def scaled(curve: Curve, factor: float) -> Curve:
    return replace(curve, energy_j=curve.energy_j * factor)


SOME = ladder([1, 2, 4, 8, 16, 32], [0.2, 0.45, 0.6, 0.7, 0.75, 0.77])
OTHER = ladder([1.5, 2.5, 5, 9, 14, 30], [0.25, 0.4, 0.58, 0.72, 0.76, 0.775])


class TestIdentities:
    @settings(max_examples=25)
    @given(st.integers(0, 10_000))
    def test_a_curve_against_itself_is_nothing(self, seed: int) -> None:
        test, _ = World(prompts=6).sample(np.random.default_rng(seed))
        found = bd_energy(test, test, **QUICK)
        assert found.estimate.value == pytest.approx(0, abs=1e-9)
        assert (found.estimate.low, found.estimate.high) == pytest.approx((0, 0), abs=1e-9)
        assert iso_quality_saving(test, test, **QUICK).estimate.value == pytest.approx(0, abs=1e-9)
        assert iso_energy_gain(test, test, **QUICK).estimate.value == pytest.approx(0, abs=1e-9)

    @settings(max_examples=25)
    @given(st.integers(0, 10_000))
    def test_four_fifths_of_the_energy_is_minus_twenty_percent(self, seed: int) -> None:
        _, anchor = World(prompts=6).sample(np.random.default_rng(seed))
        found = bd_energy(scaled(anchor, 0.8), anchor, **QUICK)
        assert found.estimate.value == pytest.approx(-0.2, abs=1e-9)
        assert (found.estimate.low, found.estimate.high) == pytest.approx((-0.2, -0.2), abs=1e-9)
        assert found.akima == pytest.approx(-0.2, abs=1e-9)
        saving = iso_quality_saving(scaled(anchor, 0.8), anchor, **QUICK).estimate
        assert (saving.value, saving.low, saving.high) == pytest.approx((0.2, 0.2, 0.2), abs=1e-9)

    def test_swapping_gives_the_inverse(self) -> None:
        there, back = (bd_energy(a, b, **QUICK).estimate.value for a, b in ((SOME, OTHER), (OTHER, SOME)))
        assert there is not None
        assert back is not None
        assert (1 + there) * (1 + back) == pytest.approx(1, abs=1e-9)

    @settings(max_examples=25)
    @given(st.floats(1e-3, 1e6), st.integers(0, 10_000))
    def test_the_unit_of_energy_does_not_matter(self, factor: float, seed: int) -> None:
        test, anchor = World(prompts=8).sample(np.random.default_rng(seed))
        for of in (lambda t, a: bd_energy(t, a, **QUICK), lambda t, a: iso_quality_saving(t, a, **QUICK)):
            one, other = of(test, anchor).estimate, of(scaled(test, factor), scaled(anchor, factor)).estimate
            for end in ("value", "low", "high"):
                assert getattr(one, end) == pytest.approx(getattr(other, end), abs=1e-9), end

    @pytest.mark.parametrize("seed", range(20))
    def test_bd_is_bjontegaards(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        curves = [(np.cumsum(chance.uniform(1, 9, 7)), np.cumsum(chance.uniform(0.1, 1, 7))) for _ in range(2)]
        (ea, qa), (et, qt) = curves
        anchor, test = rows(ea.tolist(), qa.tolist()), rows(et.tolist(), qt.tolist())
        options = {"require_matching_points": False, "interpolators": False, "min_overlap": 0}
        for method, slopes in (("pchip", None), ("akima", akima_slopes)):
            extra = () if slopes is None else (slopes,)
            theirs = bjontegaard.bd_rate(ea, qa, et, qt, method=method, **options) / 100
            assert bd_energy_rows(test, anchor, *extra)[0] == pytest.approx(theirs, abs=1e-9)


class TestDefinedOutcomes:
    def test_closed_form_saving_between_rungs(self) -> None:
        # quality rises by 1 per octave, so E = 2^Q on both and PCHIP of ln E over Q is a straight line
        anchor = ladder([1, 2, 4, 8], [0, 1, 2, 3])
        found = iso_quality_saving(ladder([1.2], [1.5]), anchor, **QUICK)
        assert found.estimate.value == pytest.approx(1 - 1.2 / 2**1.5, abs=1e-9)
        assert found.at == 1.5
        gain = iso_energy_gain(ladder([2**1.5], [1.9]), anchor, **QUICK)
        assert gain.estimate.value == pytest.approx(0.4, abs=1e-9)
        assert gain.at == pytest.approx(2**1.5)

    @pytest.mark.parametrize(
        ("test", "anchor", "words", "bound"),
        [
            (ladder([2.0], [9.0]), ladder([1, 8], [0, 3]), "more than 75%", 0.75),
            (ladder([0.1], [-1.0]), ladder([1, 8], [0, 3]), "less than 90%", 0.9),
            (ladder([1, 2], [0, 1]), ladder([1, 8], [0, 3]), "does not reach quality 3", None),
            (ladder([2, 4], [4, 5]), ladder([1, 8], [0, 3]), "more than 75%", 0.75),
            (ladder([2.0], [1.5]), ladder([1.0], [1.0]), "the anchor has one rung", None),
        ],
    )
    def test_outside_the_range_there_is_a_bound_and_no_number(
        self, test: Curve, anchor: Curve, words: str, bound: float | None
    ) -> None:
        found = iso_quality_saving(test, anchor, **QUICK)
        assert found.estimate.value is None
        assert words in (found.reason or "")
        assert found.bound == (None if bound is None else pytest.approx(bound))

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
    def test_why_a_bd_is_no_headline(self, test: Curve, anchor: Curve, resolved: bool, words: str | None) -> None:
        found = bd_energy(test, anchor, **QUICK)
        assert found.resolved == resolved
        assert (found.reason is None) if words is None else (words in (found.reason or ""))
        assert found.estimate.value is not None or "overlap" in (found.reason or "") or "one rung" in str(found.reason)

    def test_crossing_curves_have_two_regimes_with_their_signs(self) -> None:
        found = bd_energy(ladder([2, 2.5, 3, 4, 5, 6], [0.2, 0.45, 0.6, 0.7, 0.75, 0.77]), SOME, **QUICK)
        assert [np.sign(r.change) for r in found.regimes] == [1, -1]
        assert found.regimes[0].high <= found.regimes[1].low

    def test_dropped_rungs_are_named(self) -> None:
        bumpy = ladder([1, 2, 4, 8, 16, 32], [0.2, 0.45, 0.4, 0.7, 0.75, 0.74])
        assert bd_energy(bumpy, SOME, **QUICK).dropped == ((2, 5), ())

    def test_ties_keep_the_cheaper_rung(self) -> None:
        kept = envelope(np.array([[1, 2, 2, 3, np.nan]]), np.array([[1.0, 1.0, 2.0, 2.0, 9.0]]))
        assert kept.tolist() == [[True, False, True, False, False]]

    def test_some_resamples_out_of_reach_leave_an_open_end(self) -> None:
        chance = np.random.default_rng(0)
        shared = chance.normal(0, 0.02, (30, 1, 1))
        quality = np.array([0.2, 0.5, 0.7, 0.8]) + shared
        anchor = Curve(energy_j=np.broadcast_to([1.0, 2, 4, 8], quality.shape), quality=quality)
        near = quality + np.array([0, 0, 0, 0.005]) + chance.normal(0, 0.03, quality.shape) * [0, 0, 0, 1]
        test = Curve(energy_j=anchor.energy_j * 0.9, quality=near)
        found = iso_quality_saving(test, anchor, resamples=1_000)
        assert found.estimate.value is not None
        assert found.estimate.low is None
        assert "open end" in (found.reason or "")

    def test_relative_curve_stays_in_the_overlap(self) -> None:
        at, change = relative_curve(rows([1, 2, 4], [0, 1, 2]), rows([2, 4, 8], [0.5, 1.5, 2.5]))
        assert (at[0], at[-1]) == (0.5, 2.0)
        assert np.isfinite(change).all()

    def test_negative_joules_are_refused(self) -> None:
        with pytest.raises(ValueError, match="positive"):
            ladder([-1, 2], [0, 1])


class TestTracks:
    def test_a_full_reference_score_across_models_is_an_error(self) -> None:
        arrays = {"energy_j": SOME.energy_j, "quality": SOME.quality}
        teacher = FidelityCurve(**arrays, family="teacher", name="t")
        student = FidelityCurve(**arrays, family="student", name="s")
        assert bd_energy(teacher, teacher, **QUICK).estimate.value == pytest.approx(0)
        for one, other in ((teacher, student), (teacher, SOME), (SOME, student)):
            with pytest.raises(EvidenceError, match="one model only"):
                pair(one, other)  # type: ignore[type-var]


class TestAllocation:
    EASY, HARD = [0.9, 0.95, 0.96], [0.1, 0.5, 0.9]

    def two_kinds(self, seeds: int = 2, prompts: int = 20) -> Curve:
        quality = np.array([self.EASY, self.HARD] * (prompts // 2))[:, None].repeat(seeds, 1)
        return Curve(energy_j=np.broadcast_to([1.0, 2.0, 3.0], quality.shape), quality=quality)

    def test_the_oracle_spends_where_it_buys_most(self) -> None:
        ladder = self.two_kinds()
        best = oracle(ladder, prices=np.array([0.0, 5.0, 1e9]))
        assert best.energy_j.mean((0, 1)) == pytest.approx([1.0, 2.0, 3.0])
        # at 5 J a unit the hard ones go all the way and the easy ones stop
        assert best.quality[:, 0, 1].tolist() == pytest.approx([0.9, 0.9] * 10)

    def test_headroom_is_one_for_the_oracle_and_zero_for_the_ladder(self) -> None:
        ladder = self.two_kinds()
        policy = chosen(ladder, np.array([0, 2] * 10))
        found = headroom(policy, ladder, **QUICK)
        assert found.cross_fitted
        assert found.captured.value == pytest.approx(1.0)
        fixed = chosen(ladder, np.array([1, 1] * 10))
        assert headroom(fixed, ladder, **QUICK).captured.value == pytest.approx(0.0, abs=1e-9)

    def test_shuffled_is_the_mean_over_permutations(self) -> None:
        chance = np.random.default_rng(1)
        ladder = Curve(energy_j=chance.uniform(1, 2, (5, 2, 3)), quality=chance.normal(size=(5, 2, 3)))
        rungs = np.array([0, 2, 2, 1, 0])
        found = shuffled(ladder, rungs)
        from itertools import permutations

        every = [chosen(ladder, np.array(p)) for p in permutations(rungs)]
        assert found.quality == pytest.approx(np.mean([c.quality for c in every], axis=0))
        assert found.energy_j == pytest.approx(np.mean([c.energy_j for c in every], axis=0))

    def test_a_peeking_oracle_says_so(self) -> None:
        ladder = self.two_kinds(seeds=1)
        assert not headroom(chosen(ladder, np.array([0, 2] * 10)), ladder, **QUICK).cross_fitted

    def test_equal_prompts_leave_no_headroom(self) -> None:
        found = headroom(ladder([1.5], [0.4]), SOME, **QUICK)
        assert found.captured.value is None or found.reason is None
