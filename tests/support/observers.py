"""Simulated observers of known JOD: honest ones by Thurstone's Case V, careless ones that choose at random."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perjoule.people.choices import Choices, Places
from perjoule.people.records import Answer, AnswerFile, Study, StudyIndex, as_object
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

    def wins(self, observer: Places, prompt: Places, first: Places, second: Places, draws: Array) -> Array:
        """1 where the first arm is chosen; `draws` are uniform random numbers."""
        own = self.jod + self.by_prompt[prompt] + self.by_observer[observer]
        rows = np.arange(len(own))
        p = np.where(self.careless[observer], 0.5, chance(own[rows, first] - own[rows, second]))
        return (draws < p).astype(np.float64)


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


Pairs = Callable[[int, np.random.Generator], tuple[Places, Places, Places]]


def random_pairs(arms: int, prompts: int) -> Pairs:
    """Pairs drawn at random: (count, generator) -> prompt, first, second."""

    def draw(count: int, chance_of: np.random.Generator) -> tuple[Places, Places, Places]:
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
        won=truth.wins(observer, prompt, first, second, chance_of.random(len(observer))),
        provenance="simulated",
    )


def answers(study: Study, jod: dict[str, float], *, careless: int = 0, seed: int = 0) -> list[Answer]:
    """Answers of one simulated observer per session; the first `careless` of them choose at random."""
    chance_of = np.random.default_rng(seed)
    index, given = StudyIndex(study), []
    for number, session in enumerate(study.sessions):
        for place, trial_id in enumerate(session):
            trial = index.trial_of(trial_id)
            if number < careless:
                p = 0.5
            elif trial.expected is not None:
                p = float(trial.expected == "left")
            else:
                p = float(chance(np.array(jod[trial.left_arm] - jod[trial.right_arm])))
            given.append(
                Answer(
                    study_id=study.study_id, observer=f"{number:032x}", trial_id=trial_id, left=trial.left_arm,
                    right=trial.right_arm, choice="left" if chance_of.random() < p else "right",
                    shown_at_ms=5_000.0 * place, response_ms=1_500.0, provenance="simulated",
                )
            )  # fmt: skip
    return given


def choice_table(
    file: Path,
    jod: Callable[[str, str], float],
    arms: Sequence[str],
    prompts: Sequence[str],
    *,
    observers: int = 12,
    provenance: str | None = "simulated",
) -> Path:
    """Write a table in which every observer chooses between all pairs of arms for every prompt.

    Args:
        file: The table.
        jod: (arm, prompt) -> what is true.
        arms: Names.
        prompts: Ids.
        observers: How many.
        provenance: Who they are; None leaves the column out.
    """
    chance_of = np.random.default_rng(0)
    rows = [
        {"observer": f"o{observer}", "prompt_id": prompt, "arm_a": one, "arm_b": other,
         "choice": "a" if chance_of.random() < chance(np.array(jod(one, prompt) - jod(other, prompt))) else "b"}
        for prompt in prompts
        for one, other in combinations(arms, 2)
        for observer in range(observers)
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    (frame if provenance is None else frame.with_columns(provenance=pl.lit(provenance))).write_csv(file)
    return file


def answer_file(study: Study, given: list[Answer]) -> str:
    """The file that a page exports."""
    return json.dumps(as_object(AnswerFile(schema=1, study_id=study.study_id, answers=tuple(given))))
