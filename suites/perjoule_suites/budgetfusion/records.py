"""The records of `perjoule budgetfusion --json`. Their JSON Schemas are made from the same types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from perjoule.statistics.allocation import BoundSaving, Headroom
from perjoule.types import Estimate, Judges, Provenance, Role
from perjoule.types.documents import schema_of
from perjoule_suites.budgetfusion.curves import StepCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect` prints: the run, the extent of its curves, and their energy in J."""

    run: str
    prompts: int
    seeds: int
    grid: tuple[int, ...]
    metrics: tuple[str, ...]
    images: int
    collected_j: float | None
    energy_per_image: StepCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Payback:
    """Number of images after which a predictor has saved the energy of its training images; None if it never does."""

    saved_j_per_image: float
    pays_after_images: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `train` prints: the predictor's folder and the coefficient of determination of each metric."""

    predictor: str
    validation_r_squared: Mapping[str, float]
    epoch: int
    collected_j: float | None
    saved_j_per_image: float
    pays_after_images: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(StepCost):
    """Energy of an image of N steps in a family, base_j + step_j · N.

    Attributes:
        family: The family.
        ladder: The ladder whose mean joules give the scale.
        rungs: Its step counts.
        base_steps: base_j / step_j, the work of an image that does not depend on its steps, in steps.
        origin: Where `base_steps` comes from: `given`, `counted work`, `floating-point operations`, `least squares` on
            the ladder's joules, or `a single rung` (0).
    """

    family: str
    ladder: str
    rungs: tuple[int, ...]
    base_steps: float
    origin: str

    def scaled(self, base_steps: float) -> Cost:
        """Return the cost with another `base_steps`, and the same joules of the whole ladder."""
        count, steps = len(self.rungs), sum(self.rungs)
        step_j = (count * self.base_j + steps * self.step_j) / (count * base_steps + steps)
        return replace(self, base_j=base_steps * step_j, step_j=step_j, base_steps=base_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A saving at equal quality, as a share of the energy of `anchor`; `reason` if there is no number.

    Attributes:
        test: The arm.
        anchor: What it is compared with.
        metric: The quality that is equal.
        energy: `by steps`, see `Cost`, or `as run`, the joules of the windows.
        at_quality: The quality.
        saving: 1 − E_test/E_anchor.
        reason: Why there is no number, or an open end.
        p_value: Two-sided p-value for no difference; None if nothing could be drawn.
    """

    test: str
    anchor: str
    metric: str
    energy: str
    at_quality: float | None
    saving: Estimate
    reason: str | None
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Comparison):
    """A comparison of a predicted arm with the fixed ladder.

    `holds`: There is a saving, and Holm's test over all claims rejects no difference at 5 %.
    """

    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderBound(BoundSaving):
    """What a bound saves on a ladder."""

    ladder: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmHeadroom(Headroom):
    """The share of what a bound saves on a ladder that an arm captures."""

    test: str
    anchor: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScore:
    """The quality of one level of an arm by one metric, compared with the fixed ladder.

    Attributes:
        quality: Mean over prompts.
        quality_p10: 10th percentile of the images; None if observers chose between them.
        saving_at_own_quality: Share of energy saved.
        saving_reason: Why there is no number.
        gain_at_equal_energy: Quality gained at the level's own energy.
        gain_reason: Why there is no number.
        permutation_p: Share of random assignments of the same steps to prompts that reach this quality; None if the
            steps depend on the image.
        gain_per_step: The paper's measure by its origin, a step count N₀: (Q − Q(N₀)) per step, relative to that of
            uniform steps at the same mean. It depends on the origin.
    """

    quality: float
    quality_p10: float | None
    saving_at_own_quality: Estimate
    saving_reason: str | None
    gain_at_equal_energy: Estimate
    gain_reason: str | None
    permutation_p: float | None
    gain_per_step: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of an arm.

    Attributes:
        level: The value of its parameter.
        cell_id: The cell that the run has drawn.
        energy_j_per_image: By steps.
        energy_j_as_run: By windows, if the run has drawn it.
        decision_j: Joules of the decision per image, which are contained in `energy_j_per_image`.
        steps_mean: Mean number of steps.
        saved_against_longest: Share of the joules of the ladder's longest rung that is saved. The quality differs.
        promised_miss_rate: Of the rule `quality-floor`, else None.
        miss_rate: Mean over prompts of the share of their images that miss the floor.
        rank_correlation: Spearman's ρ over prompts of the steps and those of the same rule on the true curves.
        development_steps: Mean number of steps on the predictor's calibration prompts.
        development_saving: Metric -> saving at equal quality there.
        scores: Metric -> quality and savings.
    """

    level: float
    cell_id: str | None
    energy_j_per_image: float
    energy_j_as_run: float | None
    decision_j: float
    steps_mean: float
    saved_against_longest: float
    promised_miss_rate: float | None
    miss_rate: Estimate | None
    rank_correlation: float | None
    development_steps: float | None
    development_saving: Mapping[str, float] | None
    scores: Mapping[str, LevelScore]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLevels:
    """The levels of an adaptive arm, compared with a ladder.

    Attributes:
        arm: The arm.
        role: `predicted` or `control`.
        drawn: True if the run has drawn its images; False if they are those of the ladder.
        anchor: The first fixed ladder of its family.
        best_on_development: Metric -> level that saved most on the calibration prompts.
        levels: Its levels.
    """

    arm: str
    role: Role
    drawn: bool
    anchor: str
    best_on_development: Mapping[str, float]
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """A claim's saving if another share of an image's work did not depend on its steps."""

    base_steps: float
    test: str
    anchor: str
    metric: str
    saving: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Drawn minus replayed scores: mean, and the largest by size."""

    mean: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Drawn images of an adaptive arm compared with the ladder's images of the same steps.

    Attributes:
        arm: The arm.
        ladder: The ladder.
        images: Number of drawn images with steps that the ladder has.
        identical: Share of them whose bytes are the same; None if the run stores no digests.
        scores: Metric -> difference of their scores.
        same_steps: Share of the arm's images for which the predictor chooses the drawn steps again.
        reason: Why the steps could not be predicted again.
    """

    arm: str
    ladder: str
    images: int
    identical: float | None
    scores: Mapping[str, Difference]
    same_steps: float | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate` prints.

    Attributes:
        suite: Name of the suite.
        metrics: The metrics that are held equal, each on its own.
        prompts: Number of prompts.
        seeds: Largest number of seeds of a prompt.
        provenance: Of the run's joules.
        costs: Joules by steps, per family.
        claims: Predicted arms compared with fixed ladders.
        controls: Comparisons with controls, of controls, of ladders, and by the joules of the windows.
        bounds: What allocations save that know the scores.
        headroom: Which share of that the arms capture.
        arms: All adaptive arms, level by level.
        sensitivity: The claims by other `base_steps`.
        validation: Replayed and drawn images.
        extra_evaluations: Arm -> denoiser evaluations beyond those of images of the same fixed steps; 0 if a peek is
            free. Arms without recorded steps or evaluations are absent.
        judges: Who judged the quality by choices between images; None if only metrics did. Bounds and shares of bounds
            are absent under such a metric, because choices about a single prompt are too few for one.
        figures: Files written.
    """

    suite: str
    metrics: tuple[str, ...]
    prompts: int
    seeds: int
    provenance: tuple[Provenance, ...]
    costs: tuple[Cost, ...]
    claims: tuple[Claim, ...]
    controls: tuple[Comparison, ...]
    bounds: tuple[LadderBound, ...]
    headroom: tuple[ArmHeadroom, ...]
    arms: tuple[ArmLevels, ...]
    sensitivity: tuple[Sensitivity, ...]
    validation: tuple[Validation, ...]
    extra_evaluations: Mapping[str, float]
    judges: Judges | None
    figures: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted steps of a prompt, their energy in J, and the predicted quality at each step count of the grid."""

    prompt: str
    steps: int
    energy_j: float
    curves: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedEnergy:
    """Provenance and boundary of predicted joules: those of the training run."""

    provenance: str
    boundary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What `predict` prints."""

    grid: tuple[int, ...]
    energy: PredictedEnergy
    predictions: tuple[Prediction, ...]


# loaded through entry points
collect_schema = partial(schema_of, Collected)
train_schema = partial(schema_of, Trained)
evaluate_schema = partial(schema_of, Evaluation)
predict_schema = partial(schema_of, Predictions)
