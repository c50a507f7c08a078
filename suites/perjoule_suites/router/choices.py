"""Choices of an arm for each prompt: the router's, the controls', and the bounds'.

    router              by its forecasts                            what is evaluated
    shuffled            the router's arms, given to other prompts   does it know anything about the prompt?
    mean curve          one forecast for all prompts                a fixed arm, or a mixture of two
    length only         forecasts from the number of tokens         does it know more than the length?
    table of kinds      mean of the prompt's kind, in training      does it know more than the kind?
    cross-fitted        means of the other half of the seeds        a lower limit of what prompts allow
    prompt-level bound  means of all seeds, shrunken                what a perfect forecast from the prompt reaches
    per-image bound     the image's own score                       what no forecast can exceed
    cascade             by looking at the image of a cheap arm      see `cascade`

Each gives probabilities of arms (prompts, seeds, arms), at the price with which the mean quality is that of the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.allocation import LEAST_SEEDS, shrunken_means
from perjoule.statistics.mixtures import choice_at
from perjoule.statistics.resampling import Array
from perjoule.types import Prompt
from perjoule_suites.router.router import Router
from perjoule_suites.router.training import kind_of

ROUTER, PROMPT_BOUND, CASCADE = "router", "prompt-level bound", "cascade"
SEEDS_OF_BOUND = LEAST_SEEDS["prompt-level bound"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Policy:
    """How arms are chosen.

    Attributes:
        name: As in the module's table.
        expected: (prompts, seeds, arms) quality by which arms are chosen; (prompts, 1, arms) for all seeds together.
        judged: (prompts, seeds, arms) quality by which the choice is judged.
        decides: Whether it pays for the router's decision.
        shuffled: Whether its arms are given to other prompts.
    """

    name: str
    expected: Array
    judged: Array
    decides: bool = False
    shuffled: bool = False

    def at(self, energy_j: Array, quality: float) -> Array | None:
        """Return probabilities of arms (prompts, seeds, arms) at a mean quality; None if it is not reached.

        Shuffled, the probabilities are those of the mean over all permutations, at the price of the router.
        """
        arms = len(energy_j)
        judged = self.judged.mean(1, keepdims=True) if self.expected.shape[1] == 1 else self.judged
        flat = choice_at(self.expected.reshape(-1, arms), judged.reshape(-1, arms), energy_j, quality)
        if flat is None:
            return None
        if self.shuffled:
            flat = np.tile(flat.mean(0), (len(flat), 1))
        return np.broadcast_to(flat.reshape(self.expected.shape), self.judged.shape)


def policies_of(
    router: Router,
    forecast: Array,
    quality: Array,
    prompts: Sequence[Prompt],
    counts: NDArray[np.int64],
    *,
    bounded: bool = True,
) -> list[Policy]:
    """Return all policies for the prompts of a run.

    Args:
        router: The router.
        forecast: (prompts, arms) its forecasts.
        quality: (prompts, seeds, arms) quality by which choices are judged.
        prompts: (prompts,).
        counts: (prompts,) number of tokens.
        bounded: Whether the quality of a single prompt or image has a meaning, so that there are bounds.
    """
    labels, seeds = router.labels, quality.shape[1]
    length = np.asarray(counts, np.float64)
    powers = np.stack([length**0, length, length**2], axis=1)
    known: list[tuple[str, Array]] = [
        ("mean curve", np.tile(labels.mean, (len(prompts), 1))),
        ("length only", powers @ labels.length.T),
    ]
    if router.config.kinds:
        table = dict(zip(router.config.kinds, labels.kinds, strict=True))
        known.append(("table of kinds", np.array([table.get(kind_of(prompt), labels.mean) for prompt in prompts])))
    own = Policy(name=ROUTER, expected=forecast[:, None], judged=quality, decides=True)
    policies = [own, replace(own, name="shuffled", shuffled=True)]
    policies += [Policy(name=name, expected=expected[:, None], judged=quality) for name, expected in known]
    if not bounded:
        return policies
    if seeds >= 2:
        policies.append(Policy(name="cross-fitted", expected=_other_half(quality), judged=quality))
    if seeds >= SEEDS_OF_BOUND and len(prompts) > 1:
        means = shrunken_means(quality)[:, None]
        policies.append(Policy(name=PROMPT_BOUND, expected=means, judged=np.broadcast_to(means, quality.shape)))
    policies.append(Policy(name="per-image bound", expected=quality, judged=quality))
    return policies


def _other_half(quality: Array) -> Array:
    """Return for each seed the mean of its prompt over the other half of the seeds: (prompts, seeds, arms)."""
    expected = np.empty_like(quality)
    for half in (0, 1):
        expected[:, half::2] = quality[:, 1 - half :: 2].mean(1, keepdims=True)
    return expected
