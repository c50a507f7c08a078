"""Tables of a scored run of the tiny models: what depends on the prompt, and what choices by the prompt could save.

    needed steps          share of their variance that is due to the prompt
    open slots            the table of kinds with the number of open slots as the kind, against the learnt predictor
    choice among all arms every prompt takes its best model and step count, with its expected quality known

All figures are functions of the run directory; savings are by counted work, quality by the metric named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perjoule.display import percent_interval
from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.statistics.allocation import LEAST_SEEDS, bound, judged
from perjoule.statistics.curves import AnyCurve, Curve, Envelopes, Ladders, pair
from perjoule.statistics.mixtures import cheapest_mixture, choice_at
from perjoule.statistics.resampling import over_seeds
from perjoule.statistics.savings import saving_of
from perjoule_suites.budgetfusion.candidates import Candidates, with_candidates
from perjoule_suites.budgetfusion.replay import Arms, arms_of
from perjoule_suites.router.arms import read_arms
from perjoule_suites.tiny.evaluation import Array, icc, interval, needed
from perjoule_suites.tiny.world.captions import LEVELS, parse

PREDICTOR = "builtin:steps-tiny"
SCORE = "scene"
_ENOUGH, _AT_STEPS, _RESAMPLES = 0.95, 6, 4_000


def lines(run: Run) -> Iterator[str]:
    """Yield all tables.

    Raises:
        EvidenceError: The run is not scored by `scene`.
        ForeignCaption: A prompt is not a caption of the world.
    """
    if SCORE not in run.metrics:
        raise EvidenceError(f"{run.path}: not scored by {SCORE!r}: run `perjoule score {run.path}`")
    arms = arms_of(run)
    yield f"{len(arms.grid.prompts)} prompts × {arms.grid.energy_j.shape[1]} seeds"
    yield from scores_by_level(arms)
    yield from shares_of_prompts(arms)
    yield from open_slots_against_learnt(arms)
    yield from choice_among_all(run)


def scores_by_level(arms: Arms) -> Iterator[str]:
    """Yield the mean score of each rung by level, with 95 % intervals over prompts."""
    for ladder in arms.ladders.values():
        yield f"\n{SCORE} of {ladder.name} at {', '.join(map(str, ladder.rungs))} steps:"
        means = over_seeds(ladder.quality[SCORE])
        for level in LEVELS:
            rows = means[arms.kinds == level]
            if len(rows):
                cells = (interval(lambda v: float(v.mean()), column) for column in rows.T)
                yield f"  {level}: {', '.join(f'{mean:.3f} [{low:.3f}, {high:.3f}]' for mean, low, high in cells)}"


def shares_of_prompts(arms: Arms) -> Iterator[str]:
    """Yield the ICC(1) of the first ladder's needed steps: by fidelity, and by a share of the last rung's score."""
    ladder = arms.ladders[next(iter(arms.costs.values())).ladder]
    if ladder.quality[SCORE].shape[1] < 2:
        yield "\nneeded steps: one seed does not tell prompts from noise"
        return
    place = ladder.rungs.index(_AT_STEPS)
    yield f"\nneeded steps of {ladder.name} (log2), share of the variance that is due to the prompt:"
    for metric, spec in arms.run.metrics.items():
        quality = ladder.quality[metric]
        if spec.track == "fidelity":
            limit: Array | float = float(np.nanmean(quality[:, :, place]))
            rule = f"{metric} ≥ {limit:.4g}, the mean of {_AT_STEPS} steps"
        elif metric == SCORE:
            limit = _ENOUGH * quality[:, :, -1:]
            rule = f"{_ENOUGH:.0%} of the image's {metric} at {ladder.rungs[-1]} steps"
        else:
            continue
        steps = needed(quality, limit, ladder.rungs)
        yield f"  {rule}: {_range(*interval(icc, steps))}"
        for level in LEVELS:
            if (rows := steps[arms.kinds == level]).size:
                yield f"    {level}: {_range(*interval(icc, rows))}, median {2 ** float(np.median(rows)):.3g} steps"


def open_slots_against_learnt(arms: Arms) -> Iterator[str]:
    """Yield savings of the rule on both forecasts, among all prompts and within each level."""
    slots = [str(parse(text).open_slots) for text in arms.texts]
    by_slots = replace(arms, adaptive={}, kinds=np.array(slots))
    for metric in ("iclip", SCORE):
        with_both = with_candidates(by_slots, Candidates(predictors=(PREDICTOR,), metrics=(metric,)), (metric,))
        learnt, table = f"steps-tiny equal-marginal {metric}", f"steps-tiny equal-marginal {metric}, table of kinds"
        ladder = with_both.ladders[next(iter(arms.costs.values())).ladder]
        for held in ("iclip", SCORE):
            curves = {
                "learnt": with_both.curve(with_both.adaptive[learnt], held),
                "open slots": with_both.curve(with_both.adaptive[table], held),
                "ladder": with_both.curve(ladder, held),
            }
            yield f"\nrule on predicted {metric}, savings at the {held} of {_AT_STEPS} fixed steps:"
            for level in ("all", *LEVELS):
                rows = np.flatnonzero((arms.kinds == level) | (level == "all"))
                yield f"  {level} ({len(rows)}): {', '.join(_savings(curves, rows, ladder.rungs.index(_AT_STEPS)))}"


def _savings(curves: dict[str, AnyCurve], rows: NDArray[np.intp], place: int) -> Iterator[str]:
    some = {
        name: replace(curve, energy_j=curve.energy_j[rows], quality=curve.quality[rows], groups=None)
        for name, curve in curves.items()
    }
    at = float(np.nanmean(over_seeds(some["ladder"].quality[:, :, place])))
    for test, anchor in (("open slots", "ladder"), ("learnt", "ladder"), ("learnt", "open slots")):
        saving = saving_of(pair(some[test], some[anchor], mixes=True, resamples=_RESAMPLES), at)
        words = saving.reason if saving.estimate.value is None else percent_interval(saving.estimate)
        yield f"{test} against {anchor} {words}"


def choice_among_all(run: Run) -> Iterator[str]:
    """Yield what the prompt-level bound over all fixed arms saves, compared with each arm that no mixture beats."""
    scores = read_arms(run, SCORE)
    if (seeds := scores.quality.shape[1]) < LEAST_SEEDS["prompt-level bound"]:
        yield f"\nno choice among all arms: it needs {LEAST_SEEDS['prompt-level bound']} seeds, the run has {seeds}"
        return
    prices = scores.prices
    arms = Curve(energy_j=np.broadcast_to(prices, scores.quality.shape).copy(), quality=scores.quality, name="arms")
    seen, best = judged(arms, "prompt-level bound"), bound(arms, "prompt-level bound")
    paired = pair(seen, best, mixes=True, resamples=_RESAMPLES)
    expected, quality = seen.quality[:, 0], scores.quality.mean((0, 1))
    on_hull = cheapest_mixture(prices[None], quality[None], quality[None])[0] >= prices * (1 - 1e-9)
    yield f"\nprompt-level bound over {len(prices)} arms by {SCORE} ({seeds} seeds), at the quality of an arm:"
    for place in np.flatnonzero(on_hull):

        def saving(single: Ladders, chosen: Ladders, place: int = int(place)) -> Array:
            least_j = np.exp(Envelopes.of(chosen).log_energy_at(single.quality[:, place]))
            return np.asarray(1 - least_j / single.energy_j[:, place])

        estimate = paired.estimate(saving, "1 − E of the bound/E of the arm at its quality")
        shares = choice_at(expected, expected, prices, float(expected[:, place].mean()))
        words = "not reached"
        if shares is not None:
            most = int(shares.mean(0).argmax())
            used = int((shares.mean(0) > 0.005).sum())
            words = f"most often {scores.arms[most].cell_id} ({shares.mean(0)[most]:.0%}), {used} arms"
        name = f"{scores.arms[place].cell_id} ({prices[place]:.3g} J, {quality[place]:.3f})"
        yield f"  {name}: {percent_interval(estimate) if estimate.value is not None else 'no saving'}; {words}"


def _range(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
