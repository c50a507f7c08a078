"""Input and output of the gate. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import computed_field

from perjoule.errors import UsageError
from perjoule.shares import share
from perjoule.types import Estimate
from perjoule.types.documents import document

ENERGY_MARGIN = 0.05
Outcome = Literal["pass", "fail", "inconclusive", "invalid"]
Mode = Literal["paired", "stored"]
MAX_LOOKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """How to judge.

    Attributes:
        margin_energy: How much more energy is still tolerable, as a share: 0.05 or "5%"; None is 5 %.
        margin_quality: How much less quality is still tolerable, in units of the metric; None takes the metric's own.
        alpha: One-sided error of each axis, of all looks together.
        mode: `paired`: both runs in one session, interleaved. `stored`: the baseline is from another session, whose own
            scatter `session_sd` is added; without it, energy cannot fail.
        session_sd: Standard deviation of ln E between sessions, from at least five A/A sessions.
        looks: How often this commit will be looked at while prompts are added, at most 3; `alpha` is shared out.
        change: Keys that may differ because they are the change under test, such as `models` or `scheduler`.
        joules_per_quality: If given, a trade is judged by its net benefit at this price instead of by two margins.
    """

    margin_energy: float | None = None
    margin_quality: float | None = None
    alpha: float = 0.05
    mode: Mode = "paired"
    session_sd: float | None = None
    looks: int = 1
    change: tuple[str, ...] = ()
    joules_per_quality: float | None = None

    def __post_init__(self) -> None:
        for name in ("margin_energy", "alpha", "session_sd"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, share(getattr(self, name), f"gate: {name}"))
        checks = (
            ("margin_energy", self.margin_energy is None or 0 < self.margin_energy < 10, "above 0 and below 1000%"),
            (
                "margin_quality",
                self.margin_quality is None or 0 < self.margin_quality < float("inf"),
                "above 0, in units of the metric",
            ),
            ("alpha", 0 < self.alpha < 0.5, "between 0 and 0.5"),
            ("looks", 1 <= self.looks <= MAX_LOOKS, f"1 to {MAX_LOOKS}; more looks are a rerun until green"),
            (
                "joules_per_quality",
                self.joules_per_quality is None or 0 < self.joules_per_quality < float("inf"),
                "above 0",
            ),
        )
        for name, good, remedy in checks:
            if not good:
                raise UsageError(f"gate: {name} = {getattr(self, name)}: {remedy}")

    @property
    def level(self) -> float:
        """Of the two-sided intervals whose ends are the one-sided limits."""
        return 1 - 2 * self.alpha / self.looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """What is tolerable on one axis; None if nobody declared it. origin: `given`, `default`, `default of METRIC`."""

    value: float | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """The margins of a verdict. energy: a share. quality: units of the metric."""

    energy: Margin
    quality: Margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key that must agree and does not."""

    key: str
    baseline: Any
    candidate: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something the baseline has and the candidate lacks, or that one of them should have."""

    what: str  # cell, prompt, metric, score, energy, trial
    name: str
    where: str  # baseline, candidate
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What prevents a verdict. `notes` do not."""

    missing: tuple[Missing, ...] = ()
    incomparable: tuple[Difference, ...] = ()
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def blocking(self) -> bool:
        """True if there can be no verdict but `invalid`."""
        return bool(self.missing or self.incomparable or self.invalid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the verdict.

    Attributes:
        change: Energy: a share, positive is more. Quality: units of the metric, positive is better. The ends are the
            one-sided limits that decide.
        margin: Positive; None if nobody declared one, which only an invalid verdict or one by a price survives.
        mde: Smallest change that this evidence would see in four of five cases; None without evidence.
        outcome: Of this axis alone.
        label: `improved`, `worse`, `no clear change`, `identical images`, for people.
        margin_origin: Who declared the margin: `given`, `default`, `default of METRIC`.
        n_needed: Prompts needed to resolve a change of this size from the margin; None if no number of prompts can,
            whether because of the change or of the scatter between sessions.
        n_prompts: Prompts behind the change. `change.n` counts the paired units: prompts, or on the energy axis groups
            of prompts that share windows.
        n_windows_baseline: Energy windows of the baseline.
        n_windows_candidate: Energy windows of the candidate.
        counted: `windows`, or `rows` where a table was imported, which states images and not windows.
    """

    change: Estimate
    margin: float | None
    mde: float | None
    outcome: Outcome
    label: str
    margin_origin: str = ""
    n_needed: int | None = None
    n_prompts: int = 0
    n_windows_baseline: int = 0
    n_windows_candidate: int = 0
    counted: str = "windows"

    @property
    def sample(self) -> str:
        """What the change rests on, in words."""
        pairs = ""
        if self.change.n != self.n_prompts:
            pairs = f" in {self.change.n} groups that share windows"
        return (
            f"{self.n_prompts} prompts{pairs}; {self.n_windows_baseline} {self.counted} in the baseline, "
            f"{self.n_windows_candidate} in the candidate"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell's own changes; `failed` names the axes on which it is worse than the margin for sure (Holm)."""

    cell_id: str
    energy: Estimate
    quality: Estimate
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that the gate has to say; every output is rendered from it."""

    verdict: Outcome
    metric: str
    energy: Axis
    quality: Axis
    config: GateConfig
    missing: tuple[Missing, ...] = ()
    incomparable: tuple[Difference, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cells: tuple[CellResult, ...] = ()
    total_energy_change: float | None = None
    net_benefit_j: Estimate | None = None
    provenance: tuple[str, ...] = field(default=())
    identical_images: bool = False

    @classmethod
    def invalid(cls, metric: str, config: GateConfig, found: Findings, margins: Margins) -> Verdict:
        """The verdict without numbers."""
        none = Estimate(value=None, low=None, high=None, level=config.level, n=0, method="")

        def axis(margin: Margin) -> Axis:
            return Axis(
                change=none,
                margin=margin.value,
                mde=None,
                outcome="invalid",
                label="no evidence",
                margin_origin=margin.origin,
            )

        reasons = [*found.invalid]
        reasons += [f"{m.where} lacks {m.what} {m.name}{': ' if m.detail else ''}{m.detail}" for m in found.missing]
        reasons += [f"{d.key} differs: baseline {d.baseline!r}, candidate {d.candidate!r}" for d in found.incomparable]
        return cls(
            verdict="invalid",
            metric=metric,
            energy=axis(margins.energy),
            quality=axis(margins.quality),
            config=config,
            missing=found.missing,
            incomparable=found.incomparable,
            reasons=tuple(reasons),
            notes=found.notes,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive, 4 invalid or incomparable."""
        return {"pass": 0, "fail": 1, "inconclusive": 3, "invalid": 4}[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """The record of `perjoule gate --json`."""
        return document(self)
