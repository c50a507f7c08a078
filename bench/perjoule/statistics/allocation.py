"""Controls for adaptive policies, all computed from the measured fixed ladder: what a policy could win, and by what.

matched energy   the fixed ladder at the policy's mean energy: `savings.iso_energy_gain`
shuffled         the policy's own step counts dealt out to the wrong prompts: `shuffled`
oracle           every prompt stops where the next joule buys less than elsewhere: `oracle`
headroom         the share of what the oracle saves that the policy saves: `headroom`

Each is a `Curve` on the same prompts and seeds, so it can be paired with any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.curves import AnyCurve, Curve, Envelopes, FidelityCurve, Ladders, pair
from perjoule.statistics.resampling import RESAMPLES, SEED, Array, over_seeds
from perjoule.statistics.window_groups import Groups, common_groups
from perjoule.types import Estimate

HEADROOM_METHOD = "(E_A − E_T)/(E_A − E_oracle) at equal quality"
# points of the oracle's own curve
PRICES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """How much of what can be won was won.

    Attributes:
        captured: (E_A − E_T)/(E_A − E_oracle) at `at_quality`; 1 is as good as the oracle, below 0 worse than fixed.
        oracle_saving: 1 − E_oracle/E_A there.
        at_quality: The quality.
        cross_fitted: True if the oracle chose on other seeds than it was judged by. False (a single seed): it peeks, so
            the headroom is overstated.
        reason: Why there is no number, in words.
    """

    captured: Estimate
    oracle_saving: Estimate
    at_quality: float | None
    cross_fitted: bool
    reason: str | None


def chosen(ladder: AnyCurve, rungs: NDArray[np.intp]) -> AnyCurve:
    """The one-rung arm of a policy that takes `rungs[i]` (prompts,) of the ladder for prompt i."""
    index = np.asarray(rungs, np.intp)[:, None, None]
    return replace(
        ladder,
        energy_j=np.take_along_axis(ladder.energy_j, index, 2),
        quality=np.take_along_axis(ladder.quality, index, 2),
        name=f"{ladder.name} chosen",
        groups=_merged(ladder, 1),
    )


def shuffled(ladder: AnyCurve, rungs: NDArray[np.intp]) -> AnyCurve:
    """The mean over all permutations of `chosen`: the same step counts, dealt out without regard to the prompt.

    A policy that does not beat it knows nothing about prompts.
    """
    share = np.bincount(np.asarray(rungs, np.intp), minlength=ladder.rungs) / len(rungs)
    used = share > 0
    return replace(
        ladder,
        energy_j=(ladder.energy_j[..., used] @ share[used])[..., None],
        quality=(ladder.quality[..., used] @ share[used])[..., None],
        name=f"{ladder.name} shuffled",
        groups=_merged(ladder, 1),
    )


def oracle(ladder: AnyCurve, prices: Array | None = None) -> AnyCurve:
    """Equal-marginal allocation: at a price λ each prompt takes the rung with the largest λ·Q − E. One rung per λ.

    With several seeds the choice for a seed is made on the others. Then the oracle does not profit from the noise that
    it is judged by.

    Args:
        ladder: The fixed ladder.
        prices: λ, J per unit of quality, rising; by default `PRICES` of them, spread over what the ladder's rungs
            cost.
    """
    lambdas = _prices(ladder) if prices is None else np.asarray(prices, np.float64)
    prompts, seeds, _ = ladder.energy_j.shape
    known = np.isfinite(ladder.energy_j) & np.isfinite(ladder.quality)
    energy, quality = np.where(known, ladder.energy_j, 0.0), np.where(known, ladder.quality, 0.0)
    out_e, out_q = (np.full((prompts, seeds, len(lambdas)), np.nan) for _ in range(2))
    for seed in range(seeds):
        judges = [s for s in range(seeds) if s != seed] or [seed]
        count = known[:, judges].sum(1)
        with np.errstate(invalid="ignore"):
            mean_e, mean_q = energy[:, judges].sum(1) / count, quality[:, judges].sum(1) / count
        worth = np.where((count > 0)[:, None], lambdas[None, :, None] * mean_q[:, None] - mean_e[:, None], -np.inf)
        rung = worth.argmax(-1)  # (prompts, prices)
        sure = np.isfinite(worth.max(-1))
        out_e[:, seed] = np.where(sure, np.take_along_axis(ladder.energy_j[:, seed], rung, 1), np.nan)
        out_q[:, seed] = np.where(sure, np.take_along_axis(ladder.quality[:, seed], rung, 1), np.nan)
    return replace(
        ladder, energy_j=out_e, quality=out_q, name=f"{ladder.name} oracle", groups=_merged(ladder, len(lambdas))
    )


def headroom(
    test: AnyCurve,
    ladder: AnyCurve,
    *,
    at_quality: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Headroom:
    """The share of the oracle's saving that `test` captures at one quality.

    Args:
        test: A policy's arm: one rung, or a curve of several settings.
        ladder: The fixed ladder of the same model.
        at_quality: By default the quality of the ladder's last rung, or of the test if it has one rung.
        resamples: Bootstrap draws.
        seed: Seed of the draws.
    """
    best = oracle(ladder)
    paired = pair(test, ladder, best, resamples=resamples, seed=seed)

    def energies(*arms: Ladders) -> list[Array]:
        at = _quality(arms[0], arms[1], at_quality)
        return [np.exp(Envelopes.of(arm).log_energy_at(at)) for arm in arms]

    def captured(*arms: Ladders) -> Array:
        test_j, fixed_j, best_j = energies(*arms)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(fixed_j > best_j, (fixed_j - test_j) / (fixed_j - best_j), np.nan))

    def saving(*arms: Ladders) -> Array:
        _, fixed_j, best_j = energies(*arms)
        return 1 - best_j / fixed_j

    at = float(_quality(paired.point[0], paired.point[1], at_quality)[0])
    test_j, fixed_j, best_j = (float(column[0]) for column in energies(*paired.point))
    reason = None
    if not np.isfinite([test_j, fixed_j, best_j]).all():
        named = (("test", test_j), ("ladder", fixed_j), ("oracle", best_j))
        reason = f"quality {at:.4g} lies outside the range of the {', the '.join(n for n, v in named if np.isnan(v))}"
    elif best_j >= fixed_j:
        reason = "the oracle saves nothing here: the fixed ladder serves all prompts equally well"
    return Headroom(
        captured=paired.estimate(captured, HEADROOM_METHOD),
        oracle_saving=paired.estimate(saving, HEADROOM_METHOD),
        at_quality=at if np.isfinite(at) else None,
        cross_fitted=ladder.energy_j.shape[1] > 1,
        reason=reason,
    )


def _merged(ladder: Curve | FidelityCurve, rungs: int) -> Groups | None:
    """Window groups of an arm that picks from all rungs of a ladder."""
    if ladder.groups is None:
        return None
    common, _ = common_groups(ladder.groups, np.asarray(np.isfinite(ladder.energy_j).any(1)))
    return np.tile(common[:, None], (1, rungs))


def _quality(test: Ladders, ladder: Ladders, fixed: float | None) -> Array:
    if fixed is not None:
        return np.full(len(test.quality), float(fixed))
    return test.quality[:, 0] if test.quality.shape[1] == 1 else ladder.quality[:, -1]


def _prices(ladder: AnyCurve) -> Array:
    """Evenly many prices between the quantiles of what a unit of quality costs between neighbouring rungs."""
    energy, quality = over_seeds(ladder.energy_j), over_seeds(ladder.quality)
    order = np.argsort(over_seeds(energy[None])[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = np.diff(energy[:, order], axis=1) / np.diff(quality[:, order], axis=1)
    cost = cost[np.isfinite(cost) & (cost > 0)]
    if not len(cost):
        return np.ones(1)
    prices = np.unique(np.quantile(cost, np.linspace(0, 1, PRICES - 2)))
    # at no price at all everyone takes the cheapest rung, at any price the best
    return np.concatenate([[0.0], prices, [prices[-1] * 1e6]])
