"""Simulated observers of known JOD: honest ones by Thurstone's Case V, careless ones that choose at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.people.choices import Choices
from perjoule.people.thurstone import Array, chance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """What is true, and who is careless.

    Attributes:
        jod: (arms,) true scores, mean 0.
        careless: (observers,) who chooses at random.
        by_prompt: (prompts, arms) what a prompt adds to the scores.
        by_observer: (observers, arms) what an observer adds.
    """

    jod: Array
    careless: NDArray[np.bool_]
    by_prompt: Array
    by_observer: Array

    def wins(
        self, chance_of: np.random.Generator, observer: Array, prompt: Array, first: Array, second: Array
    ) -> Array:
        """1 where the first arm is chosen."""
        own = self.jod + self.by_prompt[prompt] + self.by_observer[observer]
        rows = np.arange(len(own))
        p = np.where(self.careless[observer], 0.5, chance(own[rows, first] - own[rows, second]))
        return (chance_of.random(len(p)) < p).astype(np.float64)


def world(
    chance_of: np.random.Generator,
    *,
    arms: int = 8,
    prompts: int = 24,
    observers: int = 15,
    careless: float = 0.1,
    spread: float = 1.5,
    prompt_sd: float = 0.0,
    observer_sd: float = 0.0,
) -> World:
    """Scores of the arms from −`spread` to +`spread`, in random order; a share of the observers is careless."""
    jod = chance_of.permutation(np.linspace(-spread, spread, arms))
    count = round(careless * observers)
    return World(
        jod=jod,
        careless=chance_of.permutation(np.arange(observers) < count),
        by_prompt=prompt_sd * chance_of.standard_normal((prompts, arms)),
        by_observer=observer_sd * chance_of.standard_normal((observers, arms)),
    )


Pairs = Callable[[int, np.random.Generator], tuple[Array, Array, Array]]


def random_pairs(arms: int, prompts: int) -> Pairs:
    """Pairs drawn at random: (count, generator) -> prompt, first, second."""

    def draw(count: int, chance_of: np.random.Generator) -> tuple[Array, Array, Array]:
        first = chance_of.integers(0, arms, count)
        second = (first + chance_of.integers(1, arms, count)) % arms
        return chance_of.integers(0, prompts, count), first, second

    return draw


def choices(
    truth: World, chance_of: np.random.Generator, answers: int, pairs: Pairs | None = None, prefix: str = "o"
) -> Choices:
    """`answers` choices of each observer."""
    observers, arms = truth.by_observer.shape
    prompts = len(truth.by_prompt)
    observer = np.repeat(np.arange(observers), answers)
    drawn = [(pairs or random_pairs(arms, prompts))(answers, chance_of) for _ in range(observers)]
    prompt, first, second = (np.concatenate(part) for part in zip(*drawn, strict=True))
    return Choices(
        arms=tuple(f"arm-{i}" for i in range(arms)),
        prompts=tuple(f"prompt-{i}" for i in range(prompts)),
        observers=tuple(f"{prefix}{i}" for i in range(observers)),
        observer=observer,
        prompt=prompt,
        first=first,
        second=second,
        won=truth.wins(chance_of, observer, prompt, first, second),
        provenance="simulated",
    )
