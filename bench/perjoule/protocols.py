"""The four interfaces of perjoule: energy meters, generators, step policies, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from perjoule.types import (
    EnergyReading,
    Examination,
    MetricSpec,
    Prompt,
    PromptFindings,
    Sampling,
    Score,
    Variant,
    Work,
)

Images = NDArray[np.uint8]  # (n, h, w, 3) sRGB


class Window(Protocol):
    """A time interval whose energy is measured; `reading` is available once it is closed."""

    def repeat(self, at_least: int = 1, most_s: float = 60.0) -> Iterator[int]:
        """Repeat the work until the window's `max_uncertainty` is reached: `for _ in window.repeat(): work()`.

        Args:
            at_least: Minimum number of runs, whatever the bound.
            most_s: After this many seconds no further run is started.
        """
        ...

    @property
    def reading(self) -> EnergyReading:
        """The reading. Raises RuntimeError while the window is open."""
        ...


class EnergyMeter(Protocol):
    """A source of energy readings, used as a context manager; windows do not nest."""

    @property
    def name(self) -> str:
        """Name that opens this meter, e.g. `nvml:GPU-1234`, `rapl` or `estimate`."""
        ...

    @property
    def why(self) -> str:
        """One sentence: what the meter reads, and why it was chosen."""
        ...

    def learn_idle(self, seconds: float) -> float | None:
        """Observe the device at rest and return its idle power in W; None if the source does not support this."""
        ...

    def window(
        self,
        label: str = "",
        sync: Callable[[], None] | None = None,
        max_uncertainty: float | None = None,
    ) -> AbstractContextManager[Window]:
        """Open a window.

        Args:
            label: Name of the window in logs.
            sync: Called at both ends before anything is read, e.g. `torch.cuda.synchronize`.
            max_uncertainty: Requested relative bound; a reading with a wider bound has a warning.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Generated images: (n, h, w, 3) uint8, with denoiser evaluations counted by a hook and the steps of each image."""

    images: Images
    nfe_per_image: float
    steps: tuple[int, ...]
    phases_s: dict[str, float] = field(default_factory=dict)


class ImageGenerator(Protocol):
    """A loaded variant that generates images. Image i depends only on (prompts[i], seeds[i], steps)."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        ...

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """For each model: `revision` (the hub's commit, None for a folder) and `files`, name -> SHA-256."""
        ...

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        """Generate one image per prompt and seed."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished its work."""
        ...


class PromptReader(Protocol):
    """A generator that can report which parts of prompts have no effect."""

    def read_prompts(self, prompts: Sequence[str]) -> PromptFindings:
        """Examine the prompts with the pipeline's own tokenizers."""
        ...


def reads_prompts(generator: object) -> TypeGuard[PromptReader]:
    """Return whether a generator can report which parts of prompts have no effect."""
    return hasattr(generator, "read_prompts")


class ModelExaminer(Protocol):
    """A generator factory that can examine a model before its weights are read."""

    def examine(self, variant: Variant, prompts: Sequence[str], *, where: str) -> Examination:
        """Examine the local files without downloading anything or reading weights."""
        ...


def examines_models(factory: object) -> TypeGuard[ModelExaminer]:
    """Return whether a generator factory can examine models before it loads them."""
    return hasattr(factory, "examine")


class SamplerExaminer(Protocol):
    """A generator factory that can describe how a variant samples, without weights."""

    def samplings(self, variant: Variant, step_counts: Sequence[int], *, where: str) -> tuple[Sampling, ...] | str:
        """Return the sampling at each step count, or the reason why it is not known."""
        ...


def examines_samplers(factory: object) -> TypeGuard[SamplerExaminer]:
    """Return whether a generator factory can describe how a variant samples."""
    return hasattr(factory, "samplings")


class WorkCounting(Protocol):
    """A generator factory that can count the work of a pipeline call without weights."""

    def call_work(self, variant: Variant, images: int, steps: int, *, where: str) -> Work | str:
        """Return the work of a call for `images` images, or the reason why it is not known."""
        ...


def counts_calls(factory: object) -> TypeGuard[WorkCounting]:
    """Return whether a generator factory can count the work of a call."""
    return hasattr(factory, "call_work")


class GeneratorFactory(Protocol):
    """Loads a variant; registered under the entry point group `perjoule.generators`."""

    def __call__(self, variant: Variant, *, where: str) -> ImageGenerator:
        """Load the variant; `where` names suite file and key for error messages. Raises UsageError if that fails."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Images of one or more cells to be scored; all sequences have the same order.

    Attributes:
        image_ids: One per image.
        prompts: The prompt of each image.
        images: Loads image i as (h, w, 3) uint8; called once per image and metric.
        reference_ids: The longest run of the same family, prompt and seed, or None if there is none.
        references: Loads the reference of image i.
        all_prompts: Every distinct prompt of the run, for distractors.
    """

    image_ids: Sequence[str]
    prompts: Sequence[Prompt]
    images: Callable[[int], Images]
    reference_ids: Sequence[str | None]
    references: Callable[[int], Images]
    all_prompts: Sequence[Prompt]


class QualityMetric(Protocol):
    """Scores images; registered under the entry point group `perjoule.metrics`."""

    @property
    def spec(self) -> MetricSpec:
        """Properties of the metric, e.g. its direction and track."""
        ...

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one score per image, in order; `on_progress` gets the number of images just scored."""
        ...


class CardedMetric(Protocol):
    """A metric that can describe itself without its weights, for `perjoule list metrics`."""

    @property
    def card(self) -> MetricSpec:
        """Return the spec with an empty `weights_digest`, without downloading or reading anything."""
        ...

    def weights_here(self) -> bool:
        """Return whether the metric can score without a network."""
        ...


class SetMetric(Protocol):
    """Scores the images of a cell as a set, not one by one; for orientation, never for a verdict.

    It is registered under the entry point group `perjoule.metrics`, like other metrics.
    """

    @property
    def spec(self) -> MetricSpec:
        """Properties of the metric; `advisory` is True."""
        ...

    def score_set(self, images: ImageSet, indices: Sequence[int], on_progress: Callable[[int], None]) -> SetOutcome:
        """Score the images at `indices` as a set; `on_progress` gets the number of images just processed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOutcome:
    """Score of a set: a value or the reason for its absence, and notes on its reliability."""

    value: float | None
    reason_unscored: str | None = None
    notes: tuple[str, ...] = ()


def judges_sets(metric: object) -> TypeGuard[SetMetric]:
    """Return whether a metric scores sets of images. Unlike isinstance, this does not read `spec` or fetch weights."""
    return hasattr(metric, "score_set")


def judges_images(metric: object) -> TypeGuard[QualityMetric]:
    """Return whether a metric gives each image a score."""
    return not judges_sets(metric)


class StepPolicy(Protocol):
    """Decides how many denoising steps each image gets, and has it drawn. The cost of the decision is in the window.

    A factory `(cell, *, where) -> StepPolicy` is registered under the entry point group `perjoule.policies`. It raises
    SuiteError if it cannot use `cell.variant.policy_args` or `cell.level`. A policy that loads other models itself has
    an attribute `sources`, as an `ImageGenerator` has, so that the run records their weights. A policy that chooses
    more than steps, e.g. a model, has a method `code()` that returns Python code for `perjoule recommend`.
    """

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Prepare a cell: called once before its first window, with all prompts of the run."""
        ...

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Generate one image per prompt and seed, in order."""
        ...
