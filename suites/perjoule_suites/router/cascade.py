"""A cascade: a cheap arm draws, a verifier looks at the image, and what it rejects is drawn again by a better arm.

    joules of an image = E(cheap arm) + E(verifier) + E(better arm), if it was rejected

Nothing is known of an image before it is drawn, so the cheap arm and the verifier are always paid for. The verifier is
another metric of the run than the one that judges; the images with its lowest scores are rejected, as many as the mean
quality needs. Both arms are chosen on the other half of the prompts, because the best of many pairs on the same prompts
would look better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.runs.directory import Run
from perjoule.statistics.grid import read_grid
from perjoule.statistics.resampling import Array, over_seeds
from perjoule.statistics.risk_control import Index
from perjoule_suites.router.arms import ArmScores
from perjoule_suites.router.cost import metric_cost
from perjoule_suites.router.records import OwnCost

_ROUNDING, _SEED = 1e-9, 20_250_617


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verifier:
    """What looks at images.

    Attributes:
        metric: Metric of the run whose scores are its verdicts.
        verdicts: (prompts, seeds, arms) scores, higher is better; images without one are rejected.
        cost: Its energy.
    """

    metric: str
    verdicts: Array
    cost: OwnCost

    @property
    def energy_j(self) -> float:
        """J for each image of the cheap arm."""
        return self.cost.energy_j_per_image or 0.0


def read_verifier(run: Run, arms: ArmScores, metric: str, energy_j: float | None) -> Verifier:
    """Return a verifier of images.

    Args:
        run: The run.
        arms: Arms of the router, with the metric that judges.
        metric: Metric of the verifier.
        energy_j: J/image of the verifier; None to count its work.

    Raises:
        UsageError: It is the metric that judges.
        UnknownNameError: The run has no such metric.
        EvidenceError: The metric needs a reference, or its work cannot be counted.
    """
    if metric == arms.metric:
        raise UsageError(f"--verifier {metric}: it would judge itself: use another metric than the one that judges")
    if metric not in run.metrics:
        raise UnknownNameError("metric of the run", metric, run.metrics, str(run.path))
    spec = run.metrics[metric]
    if spec.needs_reference or spec.track == "preference":
        raise EvidenceError(
            f"--verifier {metric}: it does not judge a single image: use a metric that needs neither a reference nor "
            "observers"
        )
    cost = metric_cost(run, arms, metric) if energy_j is None else _stated(energy_j)
    if cost.energy_j_per_image is None:
        raise EvidenceError(f"--verifier {metric}: {cost.reason}: state its energy with --verifier-joules")
    grid = read_grid(run, (arms.metric, metric))
    rows = [grid.prompts.index(prompt.prompt_id) for prompt in arms.prompts]
    columns = [grid.cells.index(arm.cell_id) for arm in arms.arms]
    judged, verdicts = (spec.sign * grid.quality[name][rows][:, :, columns] for name in (arms.metric, metric))
    if verdicts.shape != arms.quality.shape:  # of the images that observers saw
        verdicts = over_seeds(np.where(np.isfinite(judged), verdicts, np.nan))[:, None]
    return Verifier(metric=metric, verdicts=verdicts, cost=cost)


def cascade(quality: Array, prices: Array, verifier: Verifier, mixture: Array) -> tuple[Array, Array] | None:
    """Return how often each arm draws, and how often its image is taken: (prompts, seeds, arms) each.

    Each half of the prompts has at least the mean quality of the mixture for these prompts. None if no pair of arms
    that reaches it on one half reaches it on the other.

    Args:
        quality: (prompts, seeds, arms) by which images are judged.
        prices: (arms,) J/image.
        verifier: The verifier.
        mixture: (prompts, seeds) mean quality of the mixture that the cascade is compared with.
    """
    taken, drawn = np.zeros_like(quality), np.zeros_like(quality)
    one, other = halves(len(quality))
    for here, there in ((one, other), (other, one)):
        at = float(mixture[here].mean())
        for cheap, better in _pairs(quality[there], prices, verifier, there, float(mixture[there].mean())):
            rejected = _rejections(quality[here][..., [cheap, better]], verifier.verdicts[here][..., cheap], at)
            if rejected is not None:
                break
        else:
            return None
        drawn[here, :, cheap] = 1.0
        drawn[here, :, better] = taken[here, :, better] = rejected
        taken[here, :, cheap] = 1 - rejected
    return drawn, taken


def halves(count: int) -> tuple[Index, Index]:
    """Return two random halves of some prompts, whose order may show their kind."""
    order = np.random.default_rng(_SEED).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _pairs(quality: Array, prices: Array, verifier: Verifier, rows: Index, at: float) -> list[tuple[int, int]]:
    """Return the pairs of arms that reach a mean quality, the cheap arm first; the pair of the fewest joules first.

    `quality` has the prompts of `rows`.
    """
    found = []
    for cheap, better in permutations(range(len(prices)), 2):
        if prices[cheap] < prices[better]:
            rejected = _rejections(quality[..., [cheap, better]], verifier.verdicts[rows][..., cheap], at)
            if rejected is not None:
                found.append((prices[cheap] + rejected.mean() * prices[better], (cheap, better)))
    return [pair for _, pair in sorted(found)]


def _rejections(quality: Array, verdicts: Array, at: float) -> Array | None:
    """Return the chance that each image is rejected, (prompts, seeds): the fewest rejections with a mean quality.

    Args:
        quality: (prompts, seeds, 2) of the cheap and the better arm.
        verdicts: (prompts, seeds) of the cheap arm's images.
        at: Mean quality; the last rejection is random, so that it is met exactly.
    """
    cheap, better = (quality[..., arm].ravel() for arm in (0, 1))
    order = np.argsort(np.where(np.isfinite(verdicts), verdicts, -np.inf).ravel(), kind="stable")
    reached = cheap.mean() + np.concatenate([[0.0], np.cumsum((better - cheap)[order])]) / len(order)
    enough = np.flatnonzero(reached >= at - _ROUNDING * max(1.0, abs(at)))
    if not len(enough):
        return None
    count, rejected = int(enough[0]), np.zeros(len(order))
    if count:
        rejected[order[: count - 1]] = 1.0
        step = reached[count] - reached[count - 1]
        rejected[order[count - 1]] = min(1.0, (at - reached[count - 1]) / step)
    return rejected.reshape(verdicts.shape)


def _stated(energy_j: float) -> OwnCost:
    return OwnCost(energy_j_per_image=energy_j, share=None, method="as stated", reason=None)
