"""The records of `perjoule frontier`: operating points, and what an arm saves against its anchor. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from perjoule.statistics.allocation import Headroom
from perjoule.statistics.benefit import NetBenefit
from perjoule.statistics.preference import Preference
from perjoule.types import Direction, Estimate, Provenance, Role, Track
from perjoule.types.documents import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The operating point of a cell under one metric.

    Attributes:
        cell_id: The cell.
        variant: Its variant.
        role: Part that the variant plays.
        policy: Its step policy.
        family: Variants of one model.
        steps_mean: Mean steps over images.
        nfe_mean: Mean denoiser evaluations per image.
        flops_per_image: Mean floating-point operations per image; None if they were not counted.
        duration_s_per_image: Seconds of the window per image.
        n_prompts: Prompts with a score.
        n_seeds: Seeds with a score.
        unscored_count: Images without a score.
        provenance: How the joules came about; None without joules.
        boundary: What the joules cover.
        on_frontier: True if no other cell is at least as good in energy and quality and better in one.
        p_on_frontier: Share of the bootstrap resamples in which it is.
        energy_bound_j_per_image: The meter's own bound.
        energy_j_per_image: Mean over prompts.
        quality: Mean over prompts of the mean over seeds.
        quality_p10: The quality that one image in ten does not reach.
        dropped: Why a race measured the cell no further; None if it did not drop it.
    """

    cell_id: str
    variant: str
    role: Role
    policy: str | None
    family: str
    steps_mean: float | None
    nfe_mean: float | None
    flops_per_image: float | None
    duration_s_per_image: float | None
    n_prompts: int
    n_seeds: int
    unscored_count: int
    provenance: Provenance | None
    boundary: str | None
    on_frontier: bool
    p_on_frontier: float | None
    energy_bound_j_per_image: float | None
    energy_j_per_image: Estimate
    quality: Estimate
    quality_p10: Estimate
    dropped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Corner:
    """The reference point of a hypervolume."""

    energy_j_per_image: float
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervolume:
    """The area that the cells dominate, up to `reference`; cells in `beyond_reference` add nothing."""

    value: float
    reference: Corner
    unit: str
    family: str | None
    beyond_reference: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marginal:
    """What the next joule buys between two neighbours on the frontier."""

    from_: Annotated[str, Key("from")]
    to: str
    gain_per_joule: Estimate
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """Where the ladder bends (a hint), and the share of the resamples in which each cell is the knee."""

    cell_id: str
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Cells that the envelope of each curve leaves out, because a cheaper cell is as good."""

    test: tuple[str, ...]
    anchor: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRange:
    """A range of qualities in which one curve stays on one side of the other."""

    from_: Annotated[float, Key("from")]
    to: float
    energy_change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BdDetails:
    """What decides whether a BD-energy may be quoted, see `perjoule.statistics.bd.BdEnergy`; `rungs` of both curves."""

    leave_one_out: float | None
    akima: float | None
    saturating: float | None
    dropped: Dropped
    regimes: tuple[QualityRange, ...]
    rungs: tuple[int, int]
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeCurve:
    """Relative energy of the arm at each quality that both curves reach."""

    quality: tuple[float, ...] = ()
    energy_change: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dominance:
    """The longest cells of arm and anchor: shares of the resamples by the signs of both differences."""

    cell_id: str
    anchor_cell_id: str
    cheaper_and_better: float
    dearer_and_better: float
    cheaper_and_worse: float
    dearer_and_worse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A policy against one control; None where the two cannot be compared, for which `reason` says why."""

    control: str
    energy_ratio: Estimate | None = None
    quality_difference: Estimate | None = None
    iso_quality_saving: Estimate | None = None
    iso_energy_gain: Estimate | None = None
    reason: str | None = None
    cheaper_and_better: float | None = None
    dearer_and_better: float | None = None
    cheaper_and_worse: float | None = None
    dearer_and_worse: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Is adaptation real? A policy against the controls of its family, and against a bound of the fixed ladder."""

    against: tuple[Control, ...]
    headroom: Headroom


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An arm against its anchor. What cannot be said is None, and `reason` says why.

    Attributes:
        test: The arm.
        anchor: The ladder that it is compared with.
        role: Part that the arm plays.
        bd_energy: Relative energy over all qualities that both reach.
        iso_quality_saving: Share of energy saved at the quality `at_quality`.
        at_quality: Quality at which the saving is stated.
        saving_bound: For a missing saving: the share that it is more or less than.
        saving_reason: Why there is no saving, or why it is stated at a lower rung.
        iso_energy_gain: Quality gained at `at_energy_j_per_image`.
        at_energy_j_per_image: Energy at which the gain is stated.
        gain_reason: Why there is no gain.
        gain_per_joule: Quality per joule over the anchor's cheapest cell.
        gain_per_joule_reason: Why it is withheld.
        bd_energy_p: P-value for no difference in BD-energy.
        overlap: Qualities that both reach, as a share of those that either reaches.
        resolved: True if `bd_energy` may be quoted.
        resolved_holm: True if it still may after Holm's correction over all arms.
        reason: Why it is not resolved.
        bd: Details of `bd_energy`.
        relative_curve: Energy against the anchor over quality.
        dominance: The longest cells against each other.
        net_benefit: What the arm is worth at some prices of quality.
        hypervolume_gain: Area that the arm adds to the anchor's.
        n_prompts: Prompts that both have.
        n_window_groups: Groups of prompts that share windows.
        controls: Comparisons with controls, for step policies.
        preference: What the metric predicts people would prefer.
    """

    test: str
    anchor: str
    role: Role
    bd_energy: Estimate
    iso_quality_saving: Estimate
    at_quality: float | None = None
    saving_bound: float | None = None
    saving_reason: str | None = None
    iso_energy_gain: Estimate
    at_energy_j_per_image: float | None = None
    gain_reason: str | None = None
    gain_per_joule: Estimate
    gain_per_joule_reason: str | None = None
    bd_energy_p: float | None = None
    overlap: float = 0.0
    resolved: bool = False
    resolved_holm: bool = False
    reason: str | None = None
    bd: BdDetails | None = None
    relative_curve: RelativeCurve | None = None
    dominance: Dominance | None = None
    net_benefit: tuple[NetBenefit, ...] | None = None
    hypervolume_gain: Estimate | None = None
    n_prompts: int = 0
    n_window_groups: int = 0
    controls: Controls | None = None
    preference: Preference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """BD-energy of an arm under one metric, and by other interpolations; None with a reason where there is none."""

    metric: str
    test: str
    anchor: str
    bd_energy: Estimate | None = None
    akima: float | None = None
    saturating: float | None = None
    leave_one_out: float | None = None
    overlap: float | None = None
    dropped: tuple[int, int] | None = None
    resolved: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Operating points of one metric, the cells that no other cell beats, and each arm against its anchor.

    Attributes:
        suite: Name of the suite.
        metric: The metric; None in a run that was imported from a table of joules alone.
        direction: Direction of the metric.
        track: Track of the metric.
        points: A point for each cell.
        frontier: Cells that no other cell beats, cheapest first.
        hypervolume: The area that they dominate.
        marginal: What the next joule buys between them.
        knee: Where the anchor bends.
        comparisons: The arms against their anchors.
    """

    suite: str
    metric: str | None
    direction: Direction | None
    track: Track | None
    points: tuple[Point, ...]
    frontier: tuple[str, ...] = ()
    hypervolume: Hypervolume | None = None
    marginal: tuple[Marginal, ...] = ()
    knee: Knee | None = None
    comparisons: tuple[Comparison, ...] = ()
