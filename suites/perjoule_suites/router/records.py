"""The records of `perjoule route --json`. Their JSON Schemas are made from the same types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from perjoule.types import Estimate, Judges, Provenance
from perjoule.types.documents import schema_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A promise of the quality floor.

    Attributes:
        metric: Metric of the floor.
        floor: The floor.
        miss_rate: Promised rate of images below it.
        calibration_prompts: Number of prompts it was calibrated on.
        calibration_misses: Rate of images below it, on these prompts.
        calibration_j_per_image: Mean energy of the arms chosen for these prompts.
    """

    metric: str
    floor: float
    miss_rate: float
    calibration_prompts: int
    calibration_misses: float
    calibration_j_per_image: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `train` prints.

    `arms` has the J/image of each arm, the cheapest first; `fallback` is the arm for prompts without a safe arm.
    """

    router: str
    arms: Mapping[str, float]
    fallback: str
    device: str
    provenance: Provenance
    boundary: str
    prompts: int
    seeds: int
    collected_j: float | None
    validation_r_squared: float
    epoch: int
    promise: Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleArm:
    """An arm alone. `saving`: share of its energy that the cheapest mixture saves at its quality; 0 on the hull."""

    cell_id: str
    energy_j_per_image: float
    quality: float
    mixture_saving: float
    routed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPoint:
    """One way to choose an arm for each prompt, at one mean quality.

    Attributes:
        policy: `router`, a control or a bound.
        quality: Its mean quality.
        energy_j_per_image: Its mean energy, with the router's own if it is a router.
        saving: Share of the energy of the cheapest mixture of fixed arms of that quality; None with a `reason`.
        reason: Why there is no number or an open end.
    """

    policy: str
    quality: float | None
    energy_j_per_image: float | None
    saving: Estimate | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPoint:
    """All policies at one mean quality.

    Attributes:
        at_quality: The mean quality.
        mixture: Share of each arm in the cheapest mixture.
        mixture_j_per_image: Its energy.
        policies: Router, controls and bounds.
        captured: Saving of the router divided by that of the prompt-level bound.
        captured_reason: Why there is no such share.
    """

    at_quality: float
    mixture: Mapping[str, float]
    mixture_j_per_image: float
    policies: tuple[PolicyPoint, ...]
    captured: Estimate | None
    captured_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorOutcome:
    """The router's own rule on the run.

    Attributes:
        floor: The floor.
        promised: Promised rate of misses.
        miss_rate: Rate of images below it, mean over prompts.
        fallback_share: Share of the prompts without a safe arm.
        shares: Share of the images of each arm.
        point: Energy, quality, and saving against mixtures of the same mean quality.
    """

    floor: float
    promised: float
    miss_rate: Estimate
    fallback_share: float
    shares: Mapping[str, float]
    point: PolicyPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseCheck:
    """A promise, calibrated on a random half of the run's prompts and checked on the other half, many times.

    Attributes:
        promised: Promised rate of misses.
        splits: Number of splits in which it could be promised.
        miss_rate: Mean rate of misses.
        standard_error: Its standard error over the splits.
        energy_j_per_image: Mean energy.
        reason: Why there are no numbers, or why some splits could not promise it.
    """

    promised: float
    splits: int
    miss_rate: float | None
    standard_error: float | None
    energy_j_per_image: float | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCost:
    """Energy of the decision itself, or of a verifier.

    Attributes:
        energy_j_per_image: J/image; None with a `reason`, and then it is not in the savings.
        share: Share of the energy of the routed images.
        method: How it was determined.
        reason: Why it is not known.
    """

    energy_j_per_image: float | None
    share: float | None
    method: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedCell:
    """A cell of the policy `router`, as measured.

    Attributes:
        cell_id: The cell.
        energy_j_per_image: Its energy, with decision and switches.
        quality: Its mean quality.
        saving: Share of the energy of the cheapest mixture of fixed arms of that quality.
        decision_share: Share of the windows' time that the decision takes, None if it is not known.
        switch_share: Share of the windows' time that loading models takes, None if it is not known.
    """

    cell_id: str
    energy_j_per_image: float
    quality: float
    saving: Estimate
    decision_share: float | None
    switch_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate` prints: a replay of stored arms, and the cells of the policy `router` as measured (`as_run`).

    Attributes:
        suite: Name of the suite.
        router: Folder of the router.
        metric: The metric that judges.
        prompts: Number of prompts.
        seeds: Number of seeds of each.
        device: Device of the joules.
        provenance: Provenance of the joules.
        boundary: Boundary of the joules.
        arms: All fixed arms of the run.
        points: Policies at equal mean quality.
        floor: The router's own rule.
        floor_reason: Why there is none.
        promises: Promises, checked on halves of the prompts.
        own_cost: Energy of the decision.
        as_run: Cells of the policy `router`.
        judges: Who judged the quality by choices between images; None if a metric did.
        verifier: Metric of the verifier of the cascade, if there is one.
        verifier_cost: Its energy.
    """

    suite: str
    router: str
    metric: str
    prompts: int
    seeds: int
    device: str
    provenance: Provenance
    boundary: str
    arms: tuple[SingleArm, ...]
    points: tuple[QualityPoint, ...]
    floor: FloorOutcome | None
    floor_reason: str | None
    promises: tuple[PromiseCheck, ...]
    own_cost: OwnCost
    as_run: tuple[RoutedCell, ...]
    judges: Judges | None
    verifier: str | None
    verifier_cost: OwnCost | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedArm:
    """The arm of a prompt. `qualities` has the forecast of each arm."""

    prompt: str
    arm: str
    model: str
    steps: int
    energy_j: float
    quality: float
    safe: bool | None
    qualities: Mapping[str, float]
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedArms:
    """What `predict` prints. Energies are those of `device`."""

    metric: str
    rule: str
    level: float
    miss_rate: float | None
    device: str
    provenance: Provenance
    boundary: str
    predictions: tuple[PredictedArm, ...]


# loaded through entry points
train_schema = partial(schema_of, Trained)
evaluate_schema = partial(schema_of, Evaluation)
predict_schema = partial(schema_of, PredictedArms)
