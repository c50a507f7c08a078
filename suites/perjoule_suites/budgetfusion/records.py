"""The records of `perjoule budgetfusion --json`. Their JSON Schemas are made from the same types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perjoule.statistics.allocation import Headroom
from perjoule.types import Estimate, Provenance
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
class Comparison:
    """A saving at equal quality, as a share of the energy of `anchor`; `reason` if there is no number."""

    test: str
    anchor: str
    metric: str
    at_quality: float | None
    saving: Estimate
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmHeadroom(Headroom):
    """The headroom of an arm on a ladder."""

    test: str
    anchor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of an arm. The numbers that compare it are None without a ladder in its family.

    `promised_miss_rate` and the two miss rates are None unless the rule is `quality-floor`.
    """

    cell_id: str
    level: float | None
    energy_j_per_image: float
    quality: float
    quality_p10: float
    steps_mean: float
    duration_s_per_image: float
    promised_miss_rate: float | None = None
    miss_rate: float | None = None
    miss_rate_interval: Estimate | None = None
    time_saved_against_longest: float | None = None
    predictor_share_of_longest: float | None = None
    rank_correlation: float | None = None
    gain_at_equal_energy: Estimate | None = None
    gain_reason: str | None = None
    saving_at_own_quality: Estimate | None = None
    saving_reason: str | None = None
    gain_per_step_against_uniform: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLevels:
    """The levels of an arm, and the ladder of its family."""

    arm: str
    anchor: str | None
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Comparisons, headroom and levels for one way to count joules."""

    comparisons: tuple[Comparison, ...]
    headroom: tuple[ArmHeadroom, ...]
    arms: tuple[ArmLevels, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate` prints: savings as the run counted joules, and as if every batch had been full.

    `extra_evaluations` counts denoiser evaluations beyond the steps of each arm; `figures` lists the files written.
    """

    suite: str
    metric: str
    prompts: int
    seeds: int
    provenance: tuple[Provenance, ...]
    as_run: Basis
    full_batches: Basis
    extra_evaluations: Mapping[str, float]
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
