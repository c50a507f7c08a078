"""The four seams of perjoule: what measures, what generates, what chooses steps, what scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from perjoule.types import EnergyReading, Examination, MetricSpec, Prompt, PromptFindings, Score, Variant

Images = NDArray[np.uint8]  # (n, h, w, 3) sRGB


class Window(Protocol):
    """An interval whose joules are counted; `reading` is there once it has closed."""

    def repeat(self, at_least: int = 1, most_s: float = 60.0) -> Iterator[int]:
        """Run the work until the window's `max_uncertainty` is in reach: `for _ in window.repeat(): work()`.

        Args:
            at_least: Runs, whatever the bound.
            most_s: No further run is started after so many seconds.
        """
        ...

    @property
    def reading(self) -> EnergyReading:
        """The result. Raises RuntimeError while the window is open."""
        ...


class EnergyMeter(Protocol):
    """A source of joules. Used as a context manager; windows do not nest."""

    @property
    def name(self) -> str:
        """What the user would type to get this meter: `nvml:GPU-1234`, `rapl`, `estimate`."""
        ...

    @property
    def why(self) -> str:
        """One sentence: what it reads, and why it was taken."""
        ...

    def learn_idle(self, seconds: float) -> float | None:
        """Watch the resting device and return its idle power in W; None if the source cannot tell."""
        ...

    def window(
        self,
        label: str = "",
        sync: Callable[[], None] | None = None,
        max_uncertainty: float | None = None,
    ) -> AbstractContextManager[Window]:
        """Open a window.

        Args:
            label: For logs.
            sync: Called at both ends before anything is read, e.g. `torch.cuda.synchronize`.
            max_uncertainty: Relative bound asked for; a wider reading carries a warning.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What was drawn. images: (n, h, w, 3) uint8; nfe_per_image counted by a hook; steps: of each image."""

    images: Images
    nfe_per_image: float
    steps: tuple[int, ...]
    phases_s: dict[str, float] = field(default_factory=dict)


class ImageGenerator(Protocol):
    """A loaded variant that draws. Image i depends on (prompts[i], seeds[i], steps) only."""

    @property
    def digest(self) -> str:
        """SHA-256 over the weights."""
        ...

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """By model: `revision` (the hub's commit, None for a folder) and `files`, name -> SHA-256."""
        ...

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        """Draw one image per prompt and seed."""
        ...

    def synchronize(self) -> None:
        """Wait until the device is done."""
        ...


class PromptReader(Protocol):
    """A generator that knows what of the prompts has no effect."""

    def read_prompts(self, prompts: Sequence[str]) -> PromptFindings:
        """Look at the prompts with the pipeline's own tokenizers."""
        ...


def reads_prompts(generator: object) -> TypeGuard[PromptReader]:
    """Whether a generator can say what of the prompts has no effect."""
    return hasattr(generator, "read_prompts")


class ModelExaminer(Protocol):
    """A generator factory that can look at a model before its weights are read."""

    def examine(self, variant: Variant, prompts: Sequence[str], *, where: str) -> Examination:
        """Look at the files that are here; nothing is downloaded and no weights are read."""
        ...


def examines_models(factory: object) -> TypeGuard[ModelExaminer]:
    """Whether a generator factory can look at models before it loads them."""
    return hasattr(factory, "examine")


class GeneratorFactory(Protocol):
    """Loads a variant; registered under the entry point group `perjoule.generators`."""

    def __call__(self, variant: Variant, *, where: str) -> ImageGenerator:
        """Load; `where` names suite file and key for error messages. Raises UsageError if it cannot be loaded."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Images of one or more cells to be scored, in matching order.

    Attributes:
        image_ids: One per image.
        prompts: The prompt of each image.
        images: Loads image i as (h, w, 3) uint8; called once per image and metric.
        reference_ids: The longest run of the same family, prompt and seed, or None where there is none.
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
        """Direction, track, reference need, weights digest."""
        ...

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """One score per image, in order; `on_progress` gets the number of images just done."""
        ...


class CardedMetric(Protocol):
    """A metric that can say what it is without its weights; `perjoule list metrics` shows more of such ones."""

    @property
    def card(self) -> MetricSpec:
        """The spec, its `weights_digest` empty: nothing is fetched and nothing read."""
        ...

    def weights_here(self) -> bool:
        """Whether it could score without a network."""
        ...


class SetMetric(Protocol):
    """Judges the images of a cell together, so that no image has a score; for orientation, never for a verdict.

    Registered under the entry point group `perjoule.metrics`, as the others are.
    """

    @property
    def spec(self) -> MetricSpec:
        """`advisory` is True."""
        ...

    def score_set(self, images: ImageSet, indices: Sequence[int], on_progress: Callable[[int], None]) -> SetOutcome:
        """Judge the images at `indices`; `on_progress` gets the number of images just seen."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOutcome:
    """What a set came out as: a value or a reason why there is none, and what to know before it is believed."""

    value: float | None
    reason_unscored: str | None = None
    notes: tuple[str, ...] = ()


def judges_sets(metric: object) -> TypeGuard[SetMetric]:
    """Whether a metric judges sets and not images. Not isinstance, which would ask for `spec` and so fetch weights."""
    return hasattr(metric, "score_set")


def judges_images(metric: object) -> TypeGuard[QualityMetric]:
    """Whether a metric gives each image a score."""
    return not judges_sets(metric)


class StepPolicy(Protocol):
    """Decides how many denoising steps each image gets, and has it drawn. The cost of the decision is in the window.

    A factory `(cell, *, where) -> StepPolicy` is registered under the entry point group `perjoule.policies`. It raises
    SuiteError if it cannot use `cell.variant.policy_args` or `cell.level`.
    """

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Called once before the first window of a cell, with all prompts of the run."""
        ...

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Draw one image per prompt and seed, in order."""
        ...
