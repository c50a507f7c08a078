"""Metrics made of functions that take an image and return a number."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perjoule.errors import UsageError
from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.types import Direction, MetricSpec, Score, Track

ImageFunction = Callable[[Images], float]


@dataclass(frozen=True, slots=True)
class FunctionMetric:
    """A metric without weights that looks at one image at a time. card: its spec."""

    card: MetricSpec
    function: ImageFunction

    @property
    def spec(self) -> MetricSpec:
        """The card, because there are no weights."""
        return self.card

    def weights_here(self) -> bool:
        """Return True: there are no weights."""
        return True

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one score per image; where the function raises ValueError, its message is the reason for no score."""

        def judge(batch: range) -> Sequence[Outcome]:
            return [self._judge(images.images(index)) for index in batch]

        return score_in_batches(images, self.card.name, 1, judge, on_progress)

    def _judge(self, image: Images) -> Outcome:
        try:
            return float(self.function(image))
        except ValueError as error:
            return str(error)


def metric(
    name: str,
    *,
    direction: Direction = "higher",
    track: Track = "absolute",
    unit: str = "",
    bounds: tuple[float | None, float | None] = (None, None),
    margin: float | None = None,
    advisory: bool = False,
    licence: str = "none",
) -> Callable[[ImageFunction], Callable[[Mapping[str, Any]], FunctionMetric]]:
    """Turn a function of an image, (height, width, 3) uint8 in sRGB, into a metric.

    Register the result under the entry point group `perjoule.metrics`:

        @metric("contrast", bounds=(0.0, 127.5), margin=1.0)
        def contrast(image):
            "Standard deviation of the pixel values."
            return image.std()

        [project.entry-points."perjoule.metrics"]
        contrast = "mypackage:contrast"

    Args:
        name: As used in suites.
        direction: Which way is better.
        track: `sharpness` or `absolute`, see `MetricSpec`.
        unit: Of the value.
        bounds: Smallest and largest possible value, None where unbounded.
        margin: Default of the gate: the largest loss that does not matter.
        advisory: True if it must not decide a verdict.
        licence: SPDX name.
    """

    def decorate(function: ImageFunction) -> Callable[[Mapping[str, Any]], FunctionMetric]:
        card = MetricSpec(
            name=name,
            direction=direction,
            track=track,
            needs_reference=False,
            unit=unit,
            weights_digest="none",
            licence=licence,
            description=(inspect.getdoc(function) or name).partition("\n")[0],
            advisory=advisory,
            bounds=bounds,
            margin=margin,
        )

        def factory(options: Mapping[str, Any]) -> FunctionMetric:
            if options:
                raise UsageError(f"metric {name}: unknown option {next(iter(options))!r}: it has no options")
            return FunctionMetric(card, function)

        return factory

    return decorate
