"""Input and output of the gate. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import computed_field

from perjoule.errors import UsageError
from perjoule.shares import share
from perjoule.statistics.designs import DESIGNS, Design
from perjoule.types import Estimate
from perjoule.types.documents import document
from perjoule.types.price import Price

ENERGY_MARGIN = 0.05
EXACT_MARGIN = 1e-9  # of counted work: every change is real, except for the last digits of sums
Outcome = Literal["pass", "fail", "inconclusive", "invalid", "neutral"]
Mode = Literal["paired", "stored"]
MAX_LOOKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One of several planned looks at evidence that grows until a verdict, see `perjoule.gating.looks`.

    Attributes:
        number: Number of the look, from 1.
        shares: Shares of the planned prompts at all looks, increasing, the last at most 1.
        design: How the error is divided over the looks, see `perjoule.statistics.sequential`.
    """

    number: int
    shares: tuple[float, ...]
    design: Design = "pocock"

    def __post_init__(self) -> None:
        if not 1 <= self.number <= len(self.shares):
            raise UsageError(f"gate: look {self.number} of {len(self.shares)}: number the looks from 1")
        if self.design not in DESIGNS:
            raise UsageError(f"gate: design = {self.design!r}: choose {', '.join(DESIGNS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """Configuration of the gate.

    Attributes:
        margin_energy: Largest tolerable increase in energy, as a share, e.g. 0.05 or "5%"; None is 5 %, and 0 between
            runs of counted work.
        margin_quality: Largest tolerable loss of quality, in units of the metric; None is the metric's own margin.
        alpha: One-sided error rate of each axis, over all looks.
        mode: `paired`: both runs in one session, interleaved. `stored`: the baseline is from another session, and the
            variation between sessions (`session_sd`) is added; without it, energy cannot fail.
        session_sd: Standard deviation of ln E between sessions, from at least five A/A sessions.
        looks: How often this commit is judged while prompts are added by hand, at most 3; `alpha` is divided by it.
        look: The look of a sequential gate that this verdict is; None for a gate that judges once.
        change: Keys that may differ because they are the change under test, such as `models` or `scheduler`. `steps`:
            a variant with one step count in each run is judged as one cell, although the counts differ. `variants`:
            all of these, and every other setting of a variant.
        joules_per_quality: If given, the net benefit at this price of quality decides, and the margins do not.
    """

    margin_energy: float | None = None
    margin_quality: float | None = None
    alpha: float = 0.05
    mode: Mode = "paired"
    session_sd: float | None = None
    looks: int = 1
    change: tuple[str, ...] = ()
    joules_per_quality: float | None = None
    look: Look | None = None

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
            (
                "looks",
                1 <= self.looks <= MAX_LOOKS,
                f"1 to {MAX_LOOKS}; more looks would mean rerunning until it passes",
            ),
            (
                "joules_per_quality",
                self.joules_per_quality is None or 0 < self.joules_per_quality < float("inf"),
                "above 0",
            ),
            ("looks", self.look is None or self.looks == 1, "1 in a sequential gate, which divides alpha itself"),
        )
        for name, good, remedy in checks:
            if not good:
                raise UsageError(f"gate: {name} = {getattr(self, name)}: must be {remedy}")

    def nominal(self, tests: int = 1) -> float:
        """Return the one-sided level of each of `tests` tests that share the error `alpha`, at this look."""
        if self.look is None:
            return self.alpha / self.looks / tests
        from perjoule.statistics.sequential import nominal_levels

        return nominal_levels(self.look.design, self.look.shares, self.alpha / tests)[self.look.number - 1]

    @property
    def level(self) -> float:
        """Level of the two-sided intervals whose ends are the one-sided limits."""
        return 1 - 2 * self.nominal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Margin of one axis.

    Attributes:
        value: None if none was declared.
        origin: `given`, `suite`, `default`, `default of METRIC` (also with `, by "resolvable"`), or `smallest that the
            prompts can show`.
        note: What a reader of the verdict must know about it, if anything.
    """

    value: float | None
    origin: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Margins of a verdict: `energy` as a share, `quality` in units of the metric."""

    energy: Margin
    quality: Margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key that must have the same value in both runs but has not."""

    key: str
    baseline: Any
    candidate: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Evidence that the candidate lacks although the baseline has it, or that one of the two runs must have."""

    what: str  # cell, prompt, metric, score, energy, trial
    name: str
    where: str  # baseline, candidate
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Reasons that prevent a verdict, and `notes`, which do not."""

    missing: tuple[Missing, ...] = ()
    incomparable: tuple[Difference, ...] = ()
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def blocking(self) -> bool:
        """Return whether the verdict must be `invalid`."""
        return bool(self.missing or self.incomparable or self.invalid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the verdict.

    Attributes:
        change: Energy: a share, positive is more. Quality: units of the metric, positive is better. Its ends are the
            one-sided limits that decide.
        margin: Positive; None if none was declared, as in invalid verdicts and verdicts by a price.
        mde: Minimal detectable effect: the change that would be detected in four of five cases; None without evidence.
        outcome: Outcome of this axis alone.
        label: Outcome for readers: `improved`, `worse`, `no clear change` or `identical images`.
        margin_origin: Origin of the margin, see `Margin`.
        n_needed: Prompts needed to distinguish a change of this size from the margin; None if no number is enough,
            because of the change itself or the variation between sessions.
        n_prompts: Prompts behind the change. `change.n` counts the paired units: prompts, or on the energy axis groups
            of prompts that share windows.
        n_windows_baseline: Energy windows of the baseline.
        n_windows_candidate: Energy windows of the candidate.
        counted: `windows`, or `rows` of an imported table, which lists images instead of windows.
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
        """Sample size as text, e.g. `24 prompts; 48 windows in the baseline, 48 in the candidate`."""
        pairs = ""
        if self.change.n != self.n_prompts:
            pairs = f" in {self.change.n} groups that share windows"
        return (
            f"{self.n_prompts} prompts{pairs}; {self.n_windows_baseline} {self.counted} in the baseline, "
            f"{self.n_windows_candidate} in the candidate"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """Changes of one cell; `failed` names the axes on which it exceeds the margin after Holm's correction."""

    cell_id: str
    energy: Estimate
    quality: Estimate
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Where a sequential gate stopped.

    Attributes:
        look: Number of the look, from 1.
        looks: Planned looks.
        prompts: Prompts until this look.
        prompts_planned: Prompts of the whole plan.
        energy_j: Energy of the windows until this look, of both sides if both were measured; None without joules.
        share: Share of the planned joules: planned windows are taken to cost as much as those measured.
    """

    look: int
    looks: int
    prompts: int
    prompts_planned: int
    energy_j: float | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counted work of one kind of network per image: calls, FLOPs, bytes moved, operators.

    `evaluations` are those of the denoiser: two per call with classifier-free guidance; None for other networks.
    """

    calls: float
    flops: float
    bytes_moved: float
    operators: float
    evaluations: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkChange:
    """Counted work of one kind of network that differs between two runs; `network` is its class, e.g. `CLIPTextModel`.

    `role` is `text encoder`, `denoiser`, `decoder`, or empty.
    """

    cell_id: str
    network: str
    role: str
    baseline: Counts
    candidate: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Result of the gate; every output is rendered from it.

    A `neutral` verdict has no numbers: there is no baseline yet. `stop` is None for a gate that judges once; `price` is
    what measuring both runs took; `work_changes` says why joules changed, by network. `energy_j_per_image` are the
    geometric means of both runs over the cells.
    """

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
    stop: Stop | None = None
    price: Price | None = None
    work_changes: tuple[WorkChange, ...] = ()
    energy_j_per_image: tuple[float, float] | None = None

    @classmethod
    def neutral(cls, metric: str, config: GateConfig, reason: str, notes: tuple[str, ...] = ()) -> Verdict:
        """Return the verdict without a baseline, which has no numbers and does not fail."""
        axis = _without_evidence(config, "neutral", "no baseline", Margin(value=None, origin=""))
        return cls(
            verdict="neutral",
            metric=metric,
            energy=axis,
            quality=axis,
            config=config,
            reasons=(reason,),
            notes=notes,
        )

    @classmethod
    def invalid(cls, metric: str, config: GateConfig, findings: Findings, margins: Margins) -> Verdict:
        """Return an invalid verdict, which has no numbers."""
        reasons = [*findings.invalid]
        reasons += [f"{m.where} lacks {m.what} {m.name}{': ' if m.detail else ''}{m.detail}" for m in findings.missing]
        reasons += [
            f"{d.key} differs: baseline {d.baseline!r}, candidate {d.candidate!r}" for d in findings.incomparable
        ]
        return cls(
            verdict="invalid",
            metric=metric,
            energy=_without_evidence(config, "invalid", "no evidence", margins.energy),
            quality=_without_evidence(config, "invalid", "no evidence", margins.quality),
            config=config,
            missing=findings.missing,
            incomparable=findings.incomparable,
            reasons=tuple(reasons),
            notes=findings.notes,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """Exit code: 0 pass or neutral, 1 fail, 3 inconclusive, 4 invalid or incomparable."""
        return {"pass": 0, "neutral": 0, "fail": 1, "inconclusive": 3, "invalid": 4}[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """Return the record of `perjoule gate --json`."""
        return document(self)


def _without_evidence(config: GateConfig, outcome: Outcome, label: str, margin: Margin) -> Axis:
    return Axis(
        change=Estimate(value=None, low=None, high=None, level=config.level, n=0, method=""),
        margin=margin.value,
        mde=None,
        outcome=outcome,
        label=label,
        margin_origin=margin.origin,
    )
