"""Metrics, scores and estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]
Track = Literal["alignment", "fidelity", "sharpness", "absolute", "preference"]
# who chose between images; numbers of different provenances are never pooled
JudgeProvenance = Literal["people", "simulated", "model", "not stated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """Properties of a quality metric; the fields without a default are mandatory.

    Attributes:
        name: Name in suites and tables.
        direction: Whether higher or lower values are better.
        track: `alignment`, `sharpness`, `absolute` and `preference` compare across variants; `fidelity` only within one
            family. `preference` is scaled from choices of observers: only means over prompts have a meaning.
        needs_reference: True if it compares with the longest run of the same family, prompt and seed.
        unit: Unit of the value, for display.
        weights_digest: SHA-256 of the weights it uses, or `none`.
        licence: SPDX name of code and weights.
        description: One sentence.
        advisory: True if it must not decide a verdict.
        bounds: Smallest and largest possible value, None where unbounded.
        weights: Source of the weights: `builtin:NAME`, a folder, a hub id, an address; empty without any.
        commercial: Whether `licence` allows commercial use; None if its name does not show that.
        temperature: The difference of two scores at which the odds of being preferred are e to 1, for metrics that were
            trained on preferences.
        margin: Default margin of the gate: the largest loss, in `unit`, that is negligible. None if it is unknown; the
            gate then requires `--margin-quality`.
        scale: Meaning of differences of the metric, e.g. `1 JOD: 75 of 100 people prefer the better image`.
    """

    name: str
    direction: Direction
    track: Track
    needs_reference: bool
    unit: str
    weights_digest: str
    licence: str
    description: str
    advisory: bool
    bounds: tuple[float | None, float | None]
    weights: str = ""
    commercial: bool | None = None
    temperature: float | None = None
    margin: float | None = None
    scale: str = ""

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature = {self.temperature}: must be positive and finite, or None")

    @property
    def sign(self) -> float:
        """+1 if higher is better, −1 if lower is better."""
        return 1.0 if self.direction == "higher" else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """Who judged the quality by choices between images.

    Attributes:
        provenance: `people`, `simulated` observers, a `model`, or `not stated`, if a table does not say it.
        observers: Number of observers whose choices count.
        answers: Number of their choices.
        prompts: Number of prompts with choices.
        excluded: Number of observers who are excluded.
        sentence: The same in words.
    """

    provenance: JudgeProvenance
    observers: int
    answers: int
    prompts: int
    excluded: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Score of one image under one metric; a missing value has a reason."""

    image_id: str
    metric: str
    value: float | None
    reason_unscored: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetScore:
    """Score of all images of a cell under a metric of sets, for orientation only; notes: limits of its reliability."""

    cell_id: str
    metric: str
    image_count: int
    value: float | None
    reason_unscored: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number with its interval. n: number of independent units (prompts)."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def bounded(self) -> bool:
        """True if the number and both ends are there."""
        return self.value is not None and self.low is not None and self.high is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Interval):
    """An interval that was worked out. n: how many independent units (prompts) it rests on."""

    level: float
    n: int
    method: str
