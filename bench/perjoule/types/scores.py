"""Metrics, scores and estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]
Track = Literal["alignment", "fidelity", "sharpness", "absolute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """What a quality metric is; the fields without a default are mandatory.

    Attributes:
        name: As used in suites and tables.
        direction: Which way is better.
        track: `alignment`, `sharpness` and `absolute` compare across variants; `fidelity` only within one family.
        needs_reference: True if it compares with the longest run of the same family, prompt and seed.
        unit: Of the value, for people.
        weights_digest: SHA-256 of the weights it uses, or `none`.
        licence: SPDX name of code and weights.
        description: One sentence.
        advisory: True if it must not decide a verdict.
        bounds: Smallest and largest possible value, None where unbounded.
        weights: Which weights: `builtin:NAME`, a folder, a hub id, an address; empty without any.
        commercial: Whether `licence` allows commercial use; None if its name does not tell.
        temperature: The difference of two scores at which the odds of being preferred are e to 1, for metrics that were
            trained on preferences.
        margin: The gate's default: the largest loss, in `unit`, that is still no loss worth mentioning. None where
            nobody can say; the gate then asks for `--margin-quality`.
        scale: What differences of the metric mean, e.g. `1 JOD: 75 of 100 people prefer the better image`.
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
            raise ValueError(f"temperature = {self.temperature}: positive and finite, or None")

    @property
    def sign(self) -> float:
        """+1 where higher is better, −1 where lower is."""
        return 1.0 if self.direction == "higher" else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One image under one metric; an absent value has its reason."""

    image_id: str
    metric: str
    value: float | None
    reason_unscored: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetScore:
    """All images of a cell under a metric of sets; for orientation only. notes: what to know before believing it."""

    cell_id: str
    metric: str
    image_count: int
    value: float | None
    reason_unscored: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and the ends of its interval; None where there is none."""

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
