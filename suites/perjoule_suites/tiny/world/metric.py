"""The metric `scene`: does the picture do what its caption says, with whole things? By a classical checker.

It needs neither a reference nor weights: the captions of the tiny world can be parsed, so the truth is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from perjoule.protocols import ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.options import read_options
from perjoule.types import MetricSpec, Score
from perjoule_suites.tiny.world.captions import ForeignCaption, parse
from perjoule_suites.tiny.world.scenes import SIDE_PX
from perjoule_suites.tiny.world.score import judge

# change it with every change of what captions, checker or score return, so that two definitions are never compared
_DEFINITION = "scene of the open world, version 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """Options of `scene`. batch_size: images between two reports of progress."""

    batch_size: int = 64


class SceneMetric:
    """The metric `scene`. Instead of weights, its digest identifies the version of the checker."""

    def __init__(self, options: SceneOptions) -> None:
        """Create the metric."""
        self._options = options

    @property
    def spec(self) -> MetricSpec:
        """Properties of the metric; its values are comparable across all models of the tiny family."""
        return MetricSpec(
            name="scene",
            direction="higher",
            track="absolute",
            needs_reference=False,
            unit="share",
            weights_digest=hashlib.sha256(_DEFINITION.encode()).hexdigest(),
            licence="Apache-2.0",
            description="share of the caption's facts that hold, times how whole the things are; tiny models only",
            advisory=False,
            bounds=(0.0, 1.0),
            commercial=True,
            margin=0.05,
            scale="0.05: one picture in twenty is wrong instead of right",
        )

    @property
    def card(self) -> MetricSpec:
        """Return the spec."""
        return self.spec

    def weights_here(self) -> bool:
        """Return True: there are no weights."""
        return True

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one score per image; foreign captions and other sizes than 64 x 64 are unscored with a reason."""

        def outcomes(batch: range) -> Sequence[Outcome]:
            return [_outcome(images, index) for index in batch]

        return score_in_batches(images, "scene", self._options.batch_size, outcomes, on_progress)


def _outcome(images: ImageSet, index: int) -> Outcome:
    text = images.prompts[index].text
    try:
        caption = parse(text)
    except ForeignCaption as error:
        return f"the prompt is not a caption of the tiny world: {error}: {text[:60]!r}"
    image = images.images(index)
    if image.shape != (SIDE_PX, SIDE_PX, 3):
        return f"{image.shape[1]} x {image.shape[0]} px: the checker reads only {SIDE_PX} x {SIDE_PX} px"
    return judge(image, caption).score


def scene(options: dict[str, Any]) -> SceneMetric:
    """Factory of the metric `scene`; see `SceneOptions`."""
    return SceneMetric(read_options(SceneOptions, "scene", options))
