"""Evaluates a router on a scored run by replay: the images of all arms exist, so no new ones are needed.

Each image costs the J/image of its arm in this run, and the router's own energy. The opponent is the cheapest mixture
of all fixed arms of the run with the same mean quality. Quality and energies are drawn together, by window groups; if
joules were counted, by prompts, because counted joules do not scatter between windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perjoule.errors import EvidenceError
from perjoule.prompts import prompt_id
from perjoule.runs.directory import Run
from perjoule.statistics.mixtures import Part, cheapest_mixture, parts_of_mixture
from perjoule.statistics.resampling import RESAMPLES, Array, Means, resample_means, resample_windows
from perjoule.types import Estimate
from perjoule_suites.router.arms import ArmScores, places_of, read_arms
from perjoule_suites.router.as_run import routed_cells
from perjoule_suites.router.cascade import Verifier, cascade, read_verifier
from perjoule_suites.router.choices import CASCADE, PROMPT_BOUND, ROUTER, SEEDS_OF_BOUND, Policy, policies_of
from perjoule_suites.router.cost import own_cost
from perjoule_suites.router.promises import check_promises
from perjoule_suites.router.records import Evaluation, FloorOutcome, PolicyPoint, PromiseCheck, QualityPoint, SingleArm
from perjoule_suites.router.router import Router
from perjoule_suites.router.training import read_states

# of the way from the mean quality of the cheapest arm to that of the best
PARTS = (0.5, 0.75, 0.9, 0.95, 1.0)
_SAVING = "1 − E/E of the cheapest mixture of fixed arms at equal mean quality"
_CAPTURED = "saving of the router / saving of the prompt-level bound"
_NO_BOUND = "choices about a single prompt are too few for a bound"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a policy does with each image.

    Attributes:
        policy: Its name.
        drawn: (prompts, seeds, arms) how often each arm draws it.
        taken: (prompts, seeds, arms) how often the image of each arm is taken.
        quality: (prompts, seeds) its quality.
        own_j: Joules of the policy itself.
    """

    policy: str
    drawn: Array
    taken: Array
    quality: Array
    own_j: float

    @classmethod
    def of(cls, policy: Policy, shares: Array, own_j: float) -> Outcome:
        """Return the outcome of a choice of one arm for each image, by probabilities (prompts, seeds, arms)."""
        quality = np.asarray((shares * policy.judged).sum(-1), np.float64)
        own = own_j if policy.decides else 0.0
        return cls(policy=policy.name, drawn=shares, taken=shares, quality=quality, own_j=own)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """A run and the arms of a router in it.

    Attributes:
        scores: All fixed arms of the run.
        places: Places of the router's arms among them.
        exact: Whether joules were counted.
        own_j: The router's own energy, 0 if it is not known.
        verifier: Verifier of a cascade, if there is one.
        no_bound: Why there are no bounds; None if there are.
        resamples: Bootstrap draws.
    """

    scores: ArmScores
    places: Sequence[int]
    exact: bool
    own_j: float
    verifier: Verifier | None
    no_bound: str | None
    resamples: int

    @property
    def means(self) -> tuple[Array, Array]:
        """(arms,) J/image and mean quality of all fixed arms."""
        return self.scores.prices, self.scores.quality.mean((0, 1))

    def drawn(self, outcomes: Sequence[Outcome]) -> Means:
        """Draw energies and qualities of all fixed arms, then what each outcome draws, takes, and its quality."""
        quality = self.scores.quality
        parts = [self.scores.energy_j, quality]
        for outcome in outcomes:
            parts += [outcome.drawn, outcome.taken, outcome.quality[..., None]]
        values, arms = np.concatenate(parts, axis=2), quality.shape[2]
        if self.exact:
            return self._with_common_errors(resample_means(values, resamples=self.resamples))
        return self._with_common_errors(
            resample_windows(values, range(arms), self.scores.groups, resamples=self.resamples)
        )

    def _with_common_errors(self, means: Means) -> Means:
        """Add errors that all prompts have in common; a choice of arms has those of its arms, by their shares."""
        if self.scores.common is None or not len(means.resamples):
            return means
        rows, arms, own = means.resamples, len(self.scores.arms), len(self.places)
        errors = np.zeros_like(rows)
        common = np.resize(self.scores.common, (len(rows), arms))
        errors[:, arms : 2 * arms] = common
        for start in range(2 * arms + own, rows.shape[1], 2 * own + 1):
            errors[:, start + own] = (rows[:, start : start + own] * common[:, list(self.places)]).sum(1)
        return means.plus(errors)

    def energies(self, rows: Array, place: int, own_j: float) -> tuple[Array, Array]:
        """Return J/image and quality of the outcome at a place, for rows of means."""
        own = len(self.places)
        start = 2 * len(self.scores.arms) + place * (2 * own + 1)
        drawn = rows[:, start : start + own]
        return (drawn * rows[:, list(self.places)]).sum(1) + own_j, rows[:, start + 2 * own]

    def savings(self, rows: Array, place: int, own_j: float) -> Array:
        """Return the saving of the outcome at a place; infinite where no mixture reaches its quality."""
        arms = len(self.scores.arms)
        energy_j, quality = self.energies(rows, place, own_j)
        mixture_j = cheapest_mixture(rows[:, :arms], rows[:, arms : 2 * arms], quality[:, None])[:, 0]
        return np.where(np.isfinite(mixture_j), 1 - energy_j / mixture_j, np.where(np.isnan(energy_j), np.nan, np.inf))


def evaluate(
    run: Run,
    router: Router,
    *,
    name: str,
    metric: str | None = None,
    at_quality: float | None = None,
    floor: float | None = None,
    miss_rate: float | None = None,
    verifier: str | None = None,
    verifier_j: float | None = None,
    resamples: int = RESAMPLES,
    on_point: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Return the evaluation of a router.

    Args:
        run: A scored run with the router's arms, for prompts that it has not seen.
        router: The router.
        name: Its folder, for the record.
        metric: The metric by which choices are judged; the router's own by default.
        at_quality: Mean quality to compare at; by default `PARTS` of the way from the cheapest arm's to the best's.
        floor: Floor of the router's rule, instead of its own.
        miss_rate: Promised rate of misses, instead of its own.
        verifier: Metric of a verifier, for a cascade.
        verifier_j: Its J/image; None to count its work.
        resamples: Bootstrap draws.
        on_point: Called with the number of mean qualities that are done.

    Raises:
        EvidenceError: The run has other arms, another encoder's prompts, or prompts that the router has seen.
    """
    config = router.config
    scores = read_arms(run, metric or config.metric)
    asked = run.judges if run.metrics[scores.metric].track == "preference" else None
    if asked is not None:
        _require_asked(run, router, scores)
    places = places_of(config.arms, scores)
    _require_unseen(router, scores)
    texts = [prompt.text for prompt in scores.prompts]
    forecast = router.forecast(read_states(router.reader, texts))
    own = scores.of(places)
    cost = own_cost(run, router, own)
    replay = Replay(
        scores=scores,
        places=[int(place) for place in places],
        exact=run.is_counted,
        own_j=cost.energy_j_per_image or 0.0,
        verifier=None if verifier is None else read_verifier(run, own, verifier, verifier_j),
        no_bound=_NO_BOUND if asked else None,
        resamples=resamples,
    )
    counts = router.reader.token_counts(texts)
    policies = policies_of(router, forecast, own.quality, scores.prompts, counts, bounded=asked is None)
    points: list[QualityPoint] = []
    for at in _targets(replay, at_quality):
        points.append(_point(replay, policies, at))
        on_point(len(points))
    floors: FloorOutcome | None = None
    reason: str | None = None
    promises: tuple[PromiseCheck, ...] = ()
    if scores.metric == config.metric:
        level = config.level if floor is None and config.rule == "quality-floor" else floor
        if level is None:
            reason = "the router's rule is not quality-floor: give --floor"
        else:
            own_prices = router.with_prices(own.prices, own.device)
            with_floor = own_prices.with_rule("quality-floor", level, miss_rate, where="route evaluate")
            floors = _floor(replay, with_floor, forecast, own)
            promises = check_promises(with_floor, forecast, own.quality)
    else:
        reason = f"the router's floor is one of {config.metric}, not of {scores.metric}"
    if floors is not None and cost.energy_j_per_image is not None:
        cost = replace(cost, share=cost.energy_j_per_image / (floors.point.energy_j_per_image or np.nan))
    return Evaluation(
        suite=run.suite.name,
        router=name,
        metric=scores.metric,
        prompts=len(texts),
        seeds=scores.quality.shape[1],
        device=scores.device,
        provenance=scores.provenance,
        boundary=scores.boundary,
        arms=_single_arms(replay),
        points=tuple(points),
        floor=floors,
        floor_reason=reason,
        promises=promises,
        own_cost=cost,
        as_run=routed_cells(run, scores, resamples),
        judges=asked,
        verifier=verifier,
        verifier_cost=None if replay.verifier is None else replay.verifier.cost,
    )


def _targets(replay: Replay, at_quality: float | None) -> list[float]:
    """Return the mean qualities to compare at."""
    prices, quality = replay.means
    low, high = float(quality[prices.argmin()]), float(quality.max())
    if at_quality is None:
        return [low + part * (high - low) for part in PARTS] if high > low else [high]
    if not low <= at_quality <= high:
        raise EvidenceError(
            f"{replay.scores.run}: --at-quality {at_quality:g}: fixed arms, from the cheapest to the best, have means "
            f"of {low:.4g} to {high:.4g}"
        )
    return [at_quality]


def _point(replay: Replay, policies: Sequence[Policy], at: float) -> QualityPoint:
    prices, quality = replay.means
    mixture = parts_of_mixture(prices, quality, at)
    chosen = {policy.name: _chosen(replay, policy, at) for policy in policies}
    if replay.verifier is not None:
        chosen[CASCADE] = _cascade(replay, replay.verifier, mixture)
    outcomes = [outcome for outcome in chosen.values() if outcome is not None]
    means = replay.drawn(outcomes)
    place = {outcome.policy: number for number, outcome in enumerate(outcomes)}
    rows = tuple(
        _outcome(replay, means, place[name], outcome)
        if outcome is not None
        else PolicyPoint(
            policy=name,
            quality=None,
            energy_j_per_image=None,
            saving=None,
            reason=f"it does not reach a mean quality of {at:.4g} at any price",
        )
        for name, outcome in chosen.items()
    )
    captured: Estimate | None = None
    why: str | None
    why = replay.no_bound or f"the prompt-level bound needs {SEEDS_OF_BOUND} seeds, the run has {_seeds(replay)}"
    if ROUTER in place and PROMPT_BOUND in place:
        captured, why = _captured(replay, means, place[ROUTER], place[PROMPT_BOUND])
    elif PROMPT_BOUND in place:
        why = "the router does not reach the quality"
    return QualityPoint(
        at_quality=at,
        mixture={replay.scores.arms[part.arm].cell_id: part.share for part in mixture},
        mixture_j_per_image=float(sum(part.share * prices[part.arm] for part in mixture)),
        policies=rows,
        captured=captured,
        captured_reason=why,
    )


def _chosen(replay: Replay, policy: Policy, at: float) -> Outcome | None:
    shares = policy.at(replay.means[0][list(replay.places)], at)
    return None if shares is None else Outcome.of(policy, shares, replay.own_j)


def _cascade(replay: Replay, verifier: Verifier, mixture: Sequence[Part]) -> Outcome | None:
    places = list(replay.places)
    quality = replay.scores.quality
    wanted = np.asarray(sum(part.share * quality[..., part.arm] for part in mixture), np.float64)
    found = cascade(quality[..., places], replay.means[0][places], verifier, wanted)
    if found is None:
        return None
    drawn, taken = found
    own = (taken * quality[..., places]).sum(-1)
    return Outcome(policy=CASCADE, drawn=drawn, taken=taken, quality=own, own_j=verifier.energy_j)


def _outcome(replay: Replay, means: Means, place: int, outcome: Outcome) -> PolicyPoint:
    own_j = outcome.own_j
    energy_j, quality = replay.energies(means.point, place, own_j)
    saving = means.estimate(lambda rows: replay.savings(rows, place, own_j), what=_SAVING)
    reason = None
    if saving.value is None:
        reason = "no mixture of fixed arms reaches its quality"
    elif (saving.low is None or saving.high is None) and len(means.resamples):
        reason = "the interval has an open end: in some resamples no mixture of fixed arms reaches its quality"
    return PolicyPoint(
        policy=outcome.policy,
        quality=float(quality[0]),
        energy_j_per_image=float(energy_j[0]),
        saving=saving,
        reason=reason,
    )


def _captured(replay: Replay, means: Means, router: int, bound: int) -> tuple[Estimate | None, str | None]:
    def share(rows: Array) -> Array:
        best = replay.savings(rows, bound, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where((best > 0) & np.isfinite(best), replay.savings(rows, router, replay.own_j) / best, np.nan)

    estimate = means.estimate(share, what=_CAPTURED)
    if estimate.value is None:
        return None, "the prompt-level bound saves nothing here, or no mixture reaches the quality"
    return estimate, None


def _floor(replay: Replay, router: Router, forecast: Array, own: ArmScores) -> FloorOutcome:
    arms = router.choose(forecast)
    shares = np.broadcast_to(np.eye(len(own.arms))[arms][:, None], own.quality.shape)
    policy = Policy(name=ROUTER, expected=own.quality, judged=own.quality, decides=True)
    outcome = Outcome.of(policy, shares, replay.own_j)
    means = replay.drawn([outcome])
    missed = (outcome.quality < router.config.level)[..., None]
    by_prompt = resample_means(missed.astype(np.float64), resamples=replay.resamples)
    counts = np.bincount(arms, minlength=len(own.arms)) / len(arms)
    return FloorOutcome(
        floor=router.config.level,
        promised=router.config.miss_rate,
        miss_rate=by_prompt.estimate(lambda rows: rows[:, 0], what="mean over prompts of the share of their images"),
        fallback_share=float(np.mean([not safe for safe in router.are_safe(forecast, arms)])),
        shares={arm.cell_id: float(share) for arm, share in zip(own.arms, counts, strict=True)},
        point=_outcome(replay, means, 0, outcome),
    )


def _single_arms(replay: Replay) -> tuple[SingleArm, ...]:
    prices, quality = replay.means
    least = cheapest_mixture(prices[None], quality[None], quality[None])[0]
    return tuple(
        SingleArm(
            cell_id=arm.cell_id,
            energy_j_per_image=float(prices[i]),
            quality=float(quality[i]),
            mixture_saving=float(1 - least[i] / prices[i]),
            routed=i in replay.places,
        )
        for i, arm in enumerate(replay.scores.arms)
    )


def _require_asked(run: Run, router: Router, scores: ArmScores) -> None:
    asked = {arm.cell_id for arm in scores.arms}
    missing = [arm.cell_id for arm in router.config.arms if arm.cell_id not in asked]
    if missing:
        raise EvidenceError(
            f"{run.path}: nobody was asked about {', '.join(missing)}, which the router can choose: make a study with "
            f"`perjoule study new {run.path} --arms {','.join(arm.cell_id for arm in router.config.arms)}`"
        )


def _require_unseen(router: Router, scores: ArmScores) -> None:
    seen = set(router.config.seen)
    again = [prompt.text for prompt in scores.prompts if prompt_id(prompt.text) in seen]
    if again:
        raise EvidenceError(
            f"{scores.run}: {len(again)} prompts were used to train or calibrate the router, e.g. {min(again)!r}: "
            "evaluate it on other prompts"
        )


def _seeds(replay: Replay) -> int:
    return int(replay.scores.quality.shape[1])
