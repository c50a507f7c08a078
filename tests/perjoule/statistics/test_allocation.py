from __future__ import annotations

import numpy as np
import pytest

from perjoule.statistics.allocation import chosen, headroom, oracle, shuffled
from perjoule.statistics.curves import Curve
from tests.support.curves import QUICK, SOME, ladder


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

    def test_the_oracle_reaches_from_the_cheapest_to_the_best(self) -> None:
        """At no price of energy everybody takes the best rung, at any price the cheapest one."""
        best = oracle(self.two_kinds())
        mean_j, mean_quality = best.energy_j.mean((0, 1)), best.quality.mean((0, 1))
        assert mean_j.min() == pytest.approx(1.0)
        assert mean_quality.max() == pytest.approx((0.96 + 0.9) / 2)
        assert mean_quality.min() == pytest.approx((0.9 + 0.1) / 2)

    def test_a_quality_beyond_the_ladder_is_named(self) -> None:
        ladder = self.two_kinds()
        # better than the best rung of everybody
        better = Curve(energy_j=ladder.energy_j[..., :1], quality=np.full_like(ladder.quality[..., :1], 0.99))
        found = headroom(better, ladder, **QUICK)
        assert (found.captured.value, found.at_quality) == (None, pytest.approx(0.99))
        assert found.reason == "quality 0.99 lies outside the range of the ladder, the oracle"
