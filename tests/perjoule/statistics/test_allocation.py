from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from perjoule.errors import EvidenceError
from perjoule.statistics.allocation import (
    BOUNDS,
    Bound,
    bound,
    bound_saving,
    chosen,
    headroom,
    others_mean,
    shrunken_means,
    shuffled,
    strictest_bound,
)
from perjoule.statistics.curves import Curve
from perjoule.statistics.mixtures import best_buys
from tests.support.curves import QUICK, SOME, ladder

STEPS = np.array([1, 2, 3, 4, 6, 8, 12, 20])


def needs(chance: np.random.Generator, prompts: int, prompt_sd: float) -> np.ndarray:
    """The steps that prompts need, (prompts, 1, 1)."""
    return np.asarray(4 * np.exp(prompt_sd * chance.normal(size=(prompts, 1, 1))))


def world(chance: np.random.Generator, need: np.ndarray, seeds: int, seed_sd: float) -> Curve:
    """Images that need the steps of their prompt times a factor of their own, at 1 J and 1 J/step."""
    need = need * np.exp(seed_sd * chance.normal(size=(len(need), seeds, 1)))
    quality = 1 - np.exp(-((STEPS / need) ** 3))
    return Curve(energy_j=np.broadcast_to(1.0 + STEPS, quality.shape), quality=quality)


def saving(curve: Curve, kind: Bound, at: float = 0.9) -> float:
    found = bound_saving(curve, kind, at_quality=at, resamples=2).saving.value
    assert found is not None
    return found


def of_means(means: np.ndarray) -> float:
    """What choosing by some means per prompt saves, if they are true."""
    quality = means[:, None]
    return saving(Curve(energy_j=np.broadcast_to(1.0 + STEPS, quality.shape), quality=quality), "per-image bound")


class TestBounds:
    def test_the_per_image_bound_by_hand(self) -> None:
        """Each image needs 1, 2, 3 or 4 J, whatever its prompt. To serve three of four, fixed steps need 3 J.

        The cheapest way: those that need 1, 2 and 3 J get them, the others 1 J, which is 1.75 J on average.
        """
        rungs = np.arange(1, 5)
        threshold = np.random.default_rng(0).permutation(np.repeat(rungs, 40)).reshape(40, 4)
        quality = (rungs >= threshold[..., None]).astype(float)
        ladder = Curve(energy_j=np.broadcast_to(rungs.astype(float), quality.shape), quality=quality)
        assert saving(ladder, "per-image bound", at=0.75) == pytest.approx(1 - 1.75 / 3)

    @pytest.mark.parametrize("seeds", [1, 4])
    def test_the_per_image_bound_is_the_optimum(self, seeds: int) -> None:
        """Lagrange: at a price, the best choices are optimal for the quality that they reach."""
        chance = np.random.default_rng(1)
        curve = world(chance, needs(chance, 80, 0.4), seeds, 0.4)
        rows, costs = curve.quality.reshape(-1, len(STEPS)), 1.0 + STEPS
        wanted = curve.quality[..., 5].mean()
        ends = []
        for price in np.geomspace(1, 1e4, 4000):
            index = best_buys(rows, costs, np.array([price]))[:, 0]
            ends.append((rows[np.arange(len(rows)), index].mean(), costs[index].mean()))
        exact = np.interp(wanted, *np.array(ends).T)
        assert saving(curve, "per-image bound", at=wanted) == pytest.approx(1 - exact / costs[5], abs=2e-3)

    def test_seeds_that_have_nothing_in_common(self) -> None:
        """The fault of the former oracle: where luck decides, it costs more than fixed steps, and is no bound."""
        chance = np.random.default_rng(2)
        two = world(chance, needs(chance, 200, 0.0), 2, 0.6)
        assert saving(two, "per-image bound") > 0.2
        assert saving(two, "cross-fitted oracle") < -0.2
        # no prompt differs from another, which the prompt-level bound shows
        eight = world(chance, needs(chance, 200, 0.0), 8, 0.6)
        at = float(eight.quality[..., 5].mean())
        assert saving(eight, "prompt-level bound", at) == pytest.approx(0.0, abs=5e-3)

    @pytest.mark.parametrize(("prompt_sd", "seed_sd"), [(0.3, 0.5), (0.6, 0.3)])
    def test_the_prompt_level_bound_is_the_truth(self, prompt_sd: float, seed_sd: float) -> None:
        shrunken, plain, truth = [], [], []
        for draw in range(6):
            chance = np.random.default_rng(draw)
            need = needs(chance, 120, prompt_sd)
            curve = world(chance, need, 8, seed_sd)
            shrunken.append(saving(curve, "prompt-level bound"))
            plain.append(of_means(curve.quality.mean(1)))
            truth.append(of_means(world(chance, need, 800, seed_sd).quality.mean(1)))
        assert np.mean(shrunken) == pytest.approx(np.mean(truth), abs=0.012)
        assert np.mean(shrunken) < np.mean(truth)  # 8 seeds know less than all
        assert np.mean(plain) > np.mean(truth) + 0.01  # the best of noisy means promises too much

    def test_too_few_seeds_are_refused_with_their_number(self) -> None:
        chance = np.random.default_rng(3)
        curve = world(chance, needs(chance, 30, 0.5), 3, 0.2)
        refused = bound_saving(curve, "prompt-level bound", at_quality=0.8)
        assert refused.saving.value is None
        assert refused.reason == "the prompt-level bound needs 8 seeds per prompt; there are 3"
        with pytest.raises(EvidenceError, match="needs 4 seeds per prompt; there are 3"):
            headroom(curve, curve, "cross-fitted oracle")
        one = Curve(energy_j=curve.energy_j[:, :1], quality=curve.quality[:, :1])
        with pytest.raises(EvidenceError, match="needs 2 seeds per prompt; there is 1"):
            bound(one, "cross-fitted oracle")
        few = world(chance, needs(chance, 12, 0.5), 8, 0.2)
        with pytest.raises(EvidenceError, match="needs 20 prompts; there are 12"):
            bound(few, "prompt-level bound")
        assert [strictest_bound(c) for c in (curve, few)] == ["per-image bound"] * 2
        assert strictest_bound(world(chance, needs(chance, 20, 0.5), 8, 0.2)) == "prompt-level bound"

    @pytest.mark.parametrize("kind", BOUNDS)
    def test_seeds_that_are_all_alike_make_the_bounds_equal(self, kind: Bound) -> None:
        chance = np.random.default_rng(4)
        curve = world(chance, needs(chance, 60, 0.5), 8, 0.0)
        assert saving(curve, kind) == pytest.approx(saving(curve, "per-image bound"), abs=1e-3)

    def test_a_bound_reaches_from_the_cheapest_to_the_best(self) -> None:
        """At no price of energy everybody takes the best rung, at any price the cheapest one."""
        best = bound(two_kinds(), "per-image bound")
        mean_j, mean_quality = best.energy_j.mean((0, 1)), best.quality.mean((0, 1))
        assert mean_j.min() == pytest.approx(1.0)
        assert mean_quality.max() == pytest.approx((0.96 + 0.9) / 2)
        assert mean_quality.min() == pytest.approx((0.9 + 0.1) / 2)

    def test_images_without_a_number_have_no_choice(self) -> None:
        curve = two_kinds(seeds=3)
        quality = curve.quality.copy()
        quality[4, 1] = np.nan
        holed = Curve(energy_j=curve.energy_j, quality=quality)
        kinds: tuple[Bound, ...] = ("per-image bound", "cross-fitted oracle")
        for kind in kinds:
            best = bound(holed, kind)
            assert np.isnan(best.quality[4, 1]).all()
            assert np.isfinite(np.delete(best.quality.reshape(60, -1), 13, axis=0)).all()


def test_shrinking_by_hand() -> None:
    """One arm: the prompts' means scatter by 1, of which a quarter is luck; so a quarter of each deviation goes."""
    chance = np.random.default_rng(5)
    true = chance.normal(0, np.sqrt(0.75), 20_000)
    quality = true[:, None, None] + np.sqrt(0.25 * 8) * chance.normal(size=(20_000, 8, 1))
    means = quality.mean(1)
    assert shrunken_means(quality) - means.mean() == pytest.approx(0.75 * (means - means.mean()), rel=0.05)
    # what all arms of a prompt have in common is told apart from what they do not
    both = np.concatenate([quality, quality + chance.normal(size=quality.shape)], axis=2)
    assert np.ptp(np.diff(shrunken_means(both), axis=1)) < 0.1 * np.ptp(np.diff(both.mean(1), axis=1))


@pytest.mark.parametrize(("seeds", "tolerance"), [(2, 0.03), (8, 0.02), (64, 0.02)])
def test_shrunken_means_do_not_profit_from_noise(seeds: int, tolerance: float) -> None:
    """If arms are equally good for every prompt, the largest mean is luck, and shrunken means show none."""
    chance = np.random.default_rng(seeds)
    hardness = chance.normal(0, 0.2, (400, 1, 1))
    quality = 0.5 + hardness + 0.3 * chance.normal(size=(400, seeds, 4))
    shrunken = shrunken_means(quality)
    assert shrunken.max(1).mean() - 0.5 == pytest.approx(hardness.mean(), abs=tolerance)
    assert quality.mean(1).max(1).mean() - 0.5 - hardness.mean() > 0.9 * 0.3 * 1.03 / np.sqrt(seeds)


def test_others_mean_leaves_the_seed_itself_out() -> None:
    quality = np.array([[[1.0], [2.0], [6.0]], [[3.0], [np.nan], [5.0]]])
    assert others_mean(quality)[..., 0].tolist() == [[4.0, 3.5, 1.5], [5.0, 4.0, 3.0]]
    assert np.isnan(others_mean(quality[:, :1])).all()


EASY, HARD = [0.9, 0.95, 0.96], [0.1, 0.5, 0.9]


def two_kinds(seeds: int = 2, prompts: int = 20) -> Curve:
    quality = np.array([EASY, HARD] * (prompts // 2))[:, None].repeat(seeds, 1)
    return Curve(energy_j=np.broadcast_to([1.0, 2.0, 3.0], quality.shape), quality=quality)


class TestHeadroom:
    def test_energy_is_spent_where_it_buys_most(self) -> None:
        best = bound(two_kinds(), "per-image bound", prices=np.array([0.0, 5.0, 1e9]))
        assert best.energy_j.mean((0, 1)) == pytest.approx([1.0, 2.0, 3.0])
        # at 5 J a unit the hard ones go all the way and the easy ones stop
        assert best.quality[:, 0, 1].tolist() == pytest.approx([0.9, 0.9] * 10)

    @pytest.mark.parametrize("kind", BOUNDS)
    def test_it_is_one_for_the_bound_and_zero_for_the_ladder(self, kind: Bound) -> None:
        ladder = two_kinds(seeds=8)
        policy = chosen(ladder, np.array([0, 2] * 10))
        found = headroom(policy, ladder, kind, **QUICK)
        assert (found.bound, found.seeds) == (kind, 8)
        assert f"{kind} (8 seeds)" in found.captured.method
        assert found.captured.value == pytest.approx(1.0)
        fixed = chosen(ladder, np.array([1, 1] * 10))
        assert headroom(fixed, ladder, kind, **QUICK).captured.value == pytest.approx(0.0, abs=1e-9)

    def test_shuffled_is_the_mean_over_permutations(self) -> None:
        chance = np.random.default_rng(1)
        ladder = Curve(energy_j=chance.uniform(1, 2, (5, 2, 3)), quality=chance.normal(size=(5, 2, 3)))
        rungs = np.array([[0, 1], [2, 1], [2, 0], [1, 0], [0, 0]])
        found = shuffled(ladder, rungs)
        for level in (0, 1):
            every = [chosen(ladder, np.array(p)) for p in permutations(rungs[:, level])]
            assert found.quality[..., [level]] == pytest.approx(np.mean([c.quality for c in every], axis=0))
            assert found.energy_j[..., [level]] == pytest.approx(np.mean([c.energy_j for c in every], axis=0))

    def test_equal_prompts_leave_no_headroom(self) -> None:
        found = headroom(ladder([1.5], [0.4]), SOME, "per-image bound", **QUICK)
        assert found.captured.value is None
        assert found.reason is not None
        assert "saves nothing here" in found.reason

    def test_a_quality_beyond_the_ladder_is_named(self) -> None:
        ladder = two_kinds()
        # better than the best rung of everybody
        better = Curve(energy_j=ladder.energy_j[..., :1], quality=np.full_like(ladder.quality[..., :1], 0.99))
        found = headroom(better, ladder, "per-image bound", **QUICK)
        assert (found.captured.value, found.at_quality) == (None, pytest.approx(0.99))
        assert found.reason == "quality 0.99 lies outside the range of the ladder, the per-image bound"
