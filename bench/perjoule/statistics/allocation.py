"""Controls for adaptive policies, all computed from a fixed ladder: what can be won, and by what.

    matched energy        the fixed ladder at the policy's mean energy: `savings.iso_energy_gain`
    shuffled              the policy's own step counts assigned to random prompts: `shuffled`
    per-image bound       every image takes its best rung, with its own scores known
    prompt-level bound    every prompt takes its best rung, with its expected quality known
    cross-fitted oracle   every image takes the best rung of the other seeds of its prompt
    headroom              the share of what a bound saves that the policy saves: `headroom`

No policy that chooses among the images of the ladder saves more than the per-image bound, but most of it may be luck of
the seeds, which nobody can predict. A policy that reads the prompt alone can save what the prompt-level bound saves. It
needs `LEAST_SEEDS` seeds, because the best of noisy means looks better than it is; the means are shrunken for the same
reason. The cross-fitted oracle is not a bound: it chooses by few seeds and makes their mistakes, so a policy may well
save more. With two seeds of prompts that are all alike it costs more than fixed steps.

Each is a `Curve` on the same prompts and seeds, so it can be paired with any other, and all may mix their rungs.
`shrunken_means` and `others_mean` serve any arms with a cost each, not only the rungs of a ladder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import EvidenceError
from perjoule.statistics.curves import AnyCurve, Curve, Envelopes, FidelityCurve, Ladders, pair
from perjoule.statistics.mixtures import best_buys
from perjoule.statistics.resampling import LEVEL, RESAMPLES, SEED, Array, over_seeds
from perjoule.statistics.window_groups import Groups, common_groups
from perjoule.types import Estimate

Index = NDArray[np.intp]
Bound = Literal["per-image bound", "prompt-level bound", "cross-fitted oracle"]
BOUNDS: tuple[Bound, ...] = ("per-image bound", "prompt-level bound", "cross-fitted oracle")
LEAST_SEEDS: Mapping[Bound, int] = {"per-image bound": 1, "prompt-level bound": 8, "cross-fitted oracle": 2}
# a share of what the cross-fitted oracle saves is a share of noise with fewer seeds
LEAST_SEEDS_TO_DIVIDE = 4
LEAST_PROMPTS = 20  # of the prompt-level bound, for the scatter between prompts
# points of a bound's own curve
PRICES = 64
# a bound that saves less has no shares
_LEAST = 1 - 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSaving:
    """What a bound saves.

    Attributes:
        bound: Which one.
        seeds: Seeds per prompt that it rests on.
        saving: 1 − E_bound/E_A at `at_quality`.
        at_quality: The quality.
        reason: Why there is no number.
    """

    bound: Bound
    seeds: int
    saving: Estimate
    at_quality: float | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """How much of what can be won was won.

    Attributes:
        bound: What can be won: one of `BOUNDS`.
        seeds: Seeds per prompt that the bound rests on.
        captured: (1 − E_T/E_A)/(1 − E_bound/E_A) at `at_quality`; 1 is as good as the bound, below 0 worse than fixed.
        bound_saving: 1 − E_bound/E_A there.
        at_quality: The quality.
        reason: Why there is no number.
    """

    bound: Bound
    seeds: int
    captured: Estimate
    bound_saving: Estimate
    at_quality: float | None
    reason: str | None


def chosen(ladder: AnyCurve, rungs: Index) -> AnyCurve:
    """The one-rung arm of a policy that takes `rungs[i]` (prompts,) of the ladder for prompt i."""
    index = np.asarray(rungs, np.intp)[:, None, None]
    return replace(
        ladder,
        energy_j=np.take_along_axis(ladder.energy_j, index, 2),
        quality=np.take_along_axis(ladder.quality, index, 2),
        name=f"{ladder.name} chosen",
        groups=_merged(ladder, 1),
        common=_shared(ladder, _shares(ladder, index[:, :, 0])),
    )


def shuffled(ladder: AnyCurve, rungs: Index) -> AnyCurve:
    """The mean over all permutations of `chosen`: the same step counts, assigned without regard to the prompt.

    A policy that does not beat it knows nothing about prompts.

    Args:
        ladder: The fixed ladder.
        rungs: (images,) or (images, levels) rungs that the policy took; one rung of the curve per level.
    """
    taken = np.asarray(rungs, np.intp)
    levels = taken if taken.ndim == 2 else taken[:, None]
    shares = _shares(ladder, levels)
    used = shares.any(1)
    return replace(
        ladder,
        energy_j=ladder.energy_j[..., used] @ shares[used],
        quality=ladder.quality[..., used] @ shares[used],
        name=f"{ladder.name} shuffled",
        groups=_merged(ladder, levels.shape[1]),
        common=_shared(ladder, shares),
    )


def others_mean(quality: Array) -> Array:
    """Mean over the other seeds of the same prompt: (prompts, seeds, arms) -> the same; NaN where there is none."""
    known = np.isfinite(quality)
    total, count = np.where(known, quality, 0.0).sum(1, keepdims=True), known.sum(1, keepdims=True)
    left = count - known
    return np.where(left > 0, (total - np.where(known, quality, 0.0)) / np.maximum(left, 1), np.nan)


def shrunken_means(quality: Array) -> Array:
    """Expected quality of each prompt's arms: its mean over seeds, shrunken towards the mean of all prompts.

    The best linear prediction from the prompt's own means: μ + B (B + W/n)⁻¹ (mean − μ) with W the covariance of arms
    between the seeds of a prompt and B that between prompts. The largest of such predictions is as good as it promises,
    whereas the largest of plain means promises too much.

    Args:
        quality: (prompts, seeds, arms).

    Returns:
        (prompts, arms); NaN for prompts that lack a number.
    """
    complete = np.isfinite(quality).all((1, 2))
    values = quality[complete]
    prompts, seeds, arms = values.shape
    means = values.mean(1)
    middle = means.mean(0)
    away = (values - means[:, None]).reshape(-1, arms)
    within = away.T @ away / (prompts * (seeds - 1)) / seeds
    sizes, axes = np.linalg.eigh((means - middle).T @ (means - middle) / (prompts - 1) - within)
    between = (axes * np.maximum(sizes, 0.0)) @ axes.T
    weights = between @ np.linalg.pinv(between + within, hermitian=True)
    expected = np.full((len(quality), arms), np.nan)
    expected[complete] = middle + (means - middle) @ weights.T
    return expected


def bound(ladder: AnyCurve, kind: Bound, prices: Array | None = None) -> AnyCurve:
    """The arm of an allocation that knows more than a policy can: equal marginal gains by `best_buys`, one rung per λ.

    Compare it with `judged(ladder, kind)`.

    Args:
        ladder: The fixed ladder.
        kind: What the allocation knows, see `BOUNDS`.
        prices: λ, J per unit of quality, rising; by default `PRICES` of them, spread over what quality costs.

    Raises:
        EvidenceError: The ladder has too few seeds or prompts for it.
    """
    quality = judged(ladder, kind).quality
    expected = others_mean(quality) if kind == "cross-fitted oracle" else quality
    costs = over_seeds(over_seeds(ladder.energy_j)[None])[0]
    rungs = best_buys(expected, costs, _prices(expected, costs) if prices is None else np.asarray(prices, np.float64))
    decided = np.isfinite(expected).any(-1, keepdims=True)
    return replace(
        ladder,
        energy_j=np.where(decided, np.take_along_axis(ladder.energy_j, rungs, 2), np.nan),
        quality=np.where(decided, np.take_along_axis(quality, rungs, 2), np.nan),
        name=f"{ladder.name} {kind}",
        groups=_merged(ladder, rungs.shape[2]),
        common=None,
    )


def judged(ladder: AnyCurve, kind: Bound) -> AnyCurve:
    """The ladder with the qualities by which a bound is judged: the expected ones for the prompt-level bound.

    Raises:
        EvidenceError: See `bound`.
    """
    require_enough(ladder, kind)
    if kind != "prompt-level bound":
        return ladder
    expected = shrunken_means(ladder.quality)[:, None]
    return replace(ladder, quality=np.where(np.isfinite(ladder.quality), expected, np.nan))


def require_enough(ladder: AnyCurve, kind: Bound) -> None:
    """Raise EvidenceError if a ladder has too few seeds or prompts for a bound."""
    prompts, seeds, _ = ladder.quality.shape
    if seeds < LEAST_SEEDS[kind]:
        raise EvidenceError(f"the {kind} needs {LEAST_SEEDS[kind]} seeds per prompt; there {_are(seeds)}")
    if kind == "prompt-level bound" and prompts < LEAST_PROMPTS:
        raise EvidenceError(f"the {kind} needs {LEAST_PROMPTS} prompts; there {_are(prompts)}")


def strictest_bound(ladder: AnyCurve) -> Bound:
    """The bound of a policy that reads the prompt, if there are enough seeds for it; else that of any policy."""
    try:
        require_enough(ladder, "prompt-level bound")
    except EvidenceError:
        return "per-image bound"
    return "prompt-level bound"


def bound_saving(
    ladder: AnyCurve, kind: Bound, *, at_quality: float, resamples: int = RESAMPLES, seed: int = SEED
) -> BoundSaving:
    """What a bound saves at one quality, compared with the ladder itself."""
    missing = Estimate(value=None, low=None, high=None, level=LEVEL, n=0, method=kind)
    seeds = ladder.quality.shape[1]
    try:
        arms = judged(ladder, kind), bound(ladder, kind)
    except EvidenceError as error:
        return BoundSaving(bound=kind, seeds=seeds, saving=missing, at_quality=at_quality, reason=str(error))
    paired = pair(*arms, mixes=True, resamples=resamples, seed=seed)
    saving = paired.estimate(lambda *arms: _saving(*_energies(arms, at_quality)), f"1 − E of the {kind}/E_A")
    reason = None if saving.value is not None else f"quality {at_quality:.4g} lies outside the range of the {kind}"
    return BoundSaving(bound=kind, seeds=seeds, saving=saving, at_quality=at_quality, reason=reason)


def headroom(
    test: AnyCurve,
    ladder: AnyCurve,
    kind: Bound,
    *,
    at_quality: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Headroom:
    """The share of a bound's saving that `test` captures at one quality. All may mix their levels.

    Args:
        test: A policy's arm: one rung, or a curve of several settings.
        ladder: The fixed ladder of the same model.
        kind: The bound.
        at_quality: By default that of the ladder's most expensive rung, or of the test if it has one rung.
        resamples: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        EvidenceError: The ladder has too few seeds for the bound, or for a share of the cross-fitted oracle's saving.
    """
    best, seen = bound(ladder, kind), judged(ladder, kind)
    seeds = ladder.quality.shape[1]
    if kind == "cross-fitted oracle" and seeds < LEAST_SEEDS_TO_DIVIDE:
        raise EvidenceError(
            f"a share of what the {kind} saves needs {LEAST_SEEDS_TO_DIVIDE} seeds per prompt; there {_are(seeds)}"
        )
    paired = pair(ladder, test, seen, best, mixes=True, resamples=resamples, seed=seed)
    method = f"saving over that of the {kind} ({seeds} seeds) at equal quality"

    def energies(rows: Array) -> Array:
        arms = paired.split(rows)
        return np.stack(_energies(arms, _quality(arms[1], arms[0], at_quality)), axis=1)

    costs = paired.means.mapped(energies)  # once, for both estimates
    at = float(_quality(paired.point[1], paired.point[0], at_quality)[0])
    fixed_j, test_j, seen_j, best_j = map(float, costs.point[0])
    reason = None
    if not np.isfinite([fixed_j, test_j, best_j]).all():
        named = (("test", test_j), ("ladder", fixed_j), (kind, best_j))
        reason = f"quality {at:.4g} lies outside the range of the {', the '.join(n for n, v in named if np.isnan(v))}"
    elif best_j >= _LEAST * seen_j:
        reason = f"the {kind} saves nothing here: the fixed ladder serves all prompts equally well"
    return Headroom(
        bound=kind,
        seeds=seeds,
        captured=costs.estimate(_captured, what=method),
        bound_saving=costs.estimate(lambda rows: _saving(rows[:, 2], rows[:, 3]), what=method),
        at_quality=at if np.isfinite(at) else None,
        reason=reason,
    )


def _captured(costs: Array) -> Array:
    """Share of a bound's saving: J/image of the ladder, the test, the ladder as judged, the bound -> (rows,)."""
    fixed_j, test_j, seen_j, best_j = costs.T
    with np.errstate(invalid="ignore", divide="ignore"):
        share = _saving(fixed_j, test_j) / _saving(seen_j, best_j)
    return np.asarray(np.where(best_j < _LEAST * seen_j, share, np.nan))


def _are(count: int) -> str:
    return f"is {count}" if count == 1 else f"are {count}"


def _energies(arms: tuple[Ladders, ...], at_quality: Array | float) -> list[Array]:
    """J/image of each arm at a quality."""
    at = np.broadcast_to(np.asarray(at_quality, np.float64), len(arms[0].quality))
    return [np.exp(Envelopes.of(arm).log_energy_at(at)) for arm in arms]


def _saving(fixed_j: Array, best_j: Array) -> Array:
    return 1 - best_j / fixed_j


def _merged(ladder: Curve | FidelityCurve, rungs: int) -> Groups | None:
    """Window groups of an arm that picks from all rungs of a ladder."""
    if ladder.groups is None:
        return None
    common, _ = common_groups(ladder.groups, np.asarray(np.isfinite(ladder.energy_j).any(1)))
    return np.tile(common[:, None], (1, rungs))


def _shares(ladder: Curve | FidelityCurve, levels: Index) -> Array:
    """(rungs, levels) how often each level (images, levels) takes each rung."""
    return np.stack([np.bincount(one, minlength=ladder.rungs) / len(one) for one in levels.T], axis=1)


def _shared(ladder: Curve | FidelityCurve, shares: Array) -> Array | None:
    """Common errors of an arm that takes rungs of a ladder as often as `shares` (rungs, levels)."""
    return None if ladder.common is None else ladder.common @ shares


def _quality(test: Ladders, ladder: Ladders, fixed: float | None) -> Array:
    if fixed is not None:
        return np.full(len(test.quality), float(fixed))
    return test.quality[:, 0] if test.quality.shape[1] == 1 else ladder.quality[:, -1]


def _prices(expected: Array, costs: Array) -> Array:
    """Prices at which choices change: quantiles of what a unit of quality costs between any two rungs."""
    low, high = np.triu_indices(len(costs), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (costs[high] - costs[low]) / (expected[..., high] - expected[..., low])
    slopes = slopes[np.isfinite(slopes) & (slopes > 0)]
    if not len(slopes):
        return np.ones(1)
    prices = np.unique(np.quantile(slopes, np.linspace(0, 1, PRICES - 2)))
    # at no price at all everyone takes the cheapest rung, at any price the best
    return np.concatenate([[0.0], prices, [prices[-1] * 1e6]])
