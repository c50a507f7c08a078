from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.statistics.curves import Curve, pair
from perjoule.statistics.savings import iso_energy_gain, iso_quality_saving, saving_of
from tests.support.curves import QUICK, bd_energy, ladder, scaled
from tests.support.worlds import World


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

    @settings(max_examples=25)
    @given(st.floats(1e-3, 1e6), st.integers(0, 10_000))
    def test_the_unit_of_energy_does_not_matter(self, factor: float, seed: int) -> None:
        test, anchor = World(prompts=8).sample(np.random.default_rng(seed))
        for of in (lambda t, a: bd_energy(t, a, **QUICK), lambda t, a: iso_quality_saving(t, a, **QUICK)):
            one, other = of(test, anchor).estimate, of(scaled(test, factor), scaled(anchor, factor)).estimate
            for end in ("value", "low", "high"):
                assert getattr(one, end) == pytest.approx(getattr(other, end), abs=1e-9), end


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
        ("quality", "words"),
        [(9.0, "quality -9 is better than the best of the anchor (-3)"), (-1.0, "quality 1 is worse than the floor")],
    )
    def test_words_about_a_metric_of_which_less_is_better_have_its_own_numbers(
        self, quality: float, words: str
    ) -> None:
        """Curves have such qualities with the other sign."""
        pairs = pair(ladder([2.0], [quality]), ladder([1, 8], [0, 3]), **QUICK)
        assert words in (saving_of(pairs, sign=-1.0).reason or "")

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
