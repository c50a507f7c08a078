"""The metric `scene`: the share of a caption's attributes that an independent recogniser finds in the image.

It needs neither a reference nor another model's preferences: the tiny world's captions can be parsed, so the truth
is known. It counts attributes (the arrangement of the things, each one's colour, shape and texture, size and position
if there is one thing, the ground) and gives every attribute of a caption the same weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.errors import UsageError
from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.keeping import kept
from perjoule.quality.options import read_options
from perjoule.types import MetricSpec, Score
from perjoule.weights.digests import digest_folder
from perjoule.weights.models import resolve_model
from perjoule_suites.tiny.scenes import SIDE_PX, Scene, parse_caption


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """Options of `scene`. model: folder of the recogniser or `builtin:NAME`; batch_size: images per pass."""

    model: str = "builtin:recogniser-tiny"
    batch_size: int = 128


class SceneMetric:
    """The metric `scene`."""

    def __init__(self, options: SceneOptions) -> None:
        """Create the metric. Raises UnknownNameError or UsageError if the recogniser does not exist."""
        self._options = options
        self._folder = Path(resolve_model(options.model, "metric scene: option model"))
        if not self._folder.is_dir():
            raise UsageError(f"metric scene: option model = {options.model!r}: no such folder (hub ids are not read)")

    @property
    def spec(self) -> MetricSpec:
        """Properties of the metric; its values are comparable across all models of the tiny models."""
        return MetricSpec(
            name="scene",
            direction="higher",
            track="absolute",
            needs_reference=False,
            unit="share",
            weights_digest=digest_folder(self._folder, ("*.safetensors",)),
            licence="Apache-2.0",
            description="share of the caption's attributes that a recogniser finds; tiny world only",
            advisory=False,
            bounds=(0.0, 1.0),
            weights="builtin:recogniser-tiny",
            commercial=True,
            margin=0.05,
            scale="0.05: one attribute in twenty",
        )

    @property
    def card(self) -> MetricSpec:
        """Return the spec: the weights are small and part of the package."""
        return self.spec

    def weights_here(self) -> bool:
        """Return True: the weights are part of the package."""
        return True

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one share per image; foreign prompts and other sizes than 64 x 64 are unscored with a reason."""
        recogniser = _load(self._folder)

        def judge(batch: range) -> Sequence[Outcome]:
            return _judge(recogniser, images, batch)

        return score_in_batches(images, "scene", self._options.batch_size, judge, on_progress)


def _judge(recogniser: Any, images: ImageSet, batch: range) -> list[Outcome]:
    from perjoule_suites.tiny.recogniser import accuracy

    outcomes: dict[int, Outcome] = {}
    asked_of: dict[int, tuple[Scene, Images]] = {}
    for index in batch:
        prompt, image = images.prompts[index], images.images(index)
        scene = parse_caption(prompt.text)
        if scene is None:
            outcomes[index] = f"the prompt is not a caption of the tiny world: {prompt.text[:60]!r}"
        elif image.shape != (SIDE_PX, SIDE_PX, 3):
            size = f"{image.shape[1]} x {image.shape[0]} px"
            outcomes[index] = f"{size}: the recogniser reads only {SIDE_PX} x {SIDE_PX} px"
        else:
            asked_of[index] = scene, image
    if asked_of:
        answers = recogniser.recognise(np.stack([image for _, image in asked_of.values()]))
        shares = accuracy(answers, [scene for scene, _ in asked_of.values()])
        outcomes |= {index: float(share) for index, share in zip(asked_of, shares, strict=True)}
    return [outcomes[index] for index in batch]


@kept
def _load(folder: Path) -> Any:
    # torch is imported here, because suites name this metric long before anything is scored
    from perjoule_suites.tiny.recogniser import Recogniser

    try:
        return Recogniser.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"{folder}: cannot load a recogniser from this folder: {error}") from error


def scene(options: dict[str, Any]) -> SceneMetric:
    """Factory of the metric `scene`; see `SceneOptions`."""
    return SceneMetric(read_options(SceneOptions, "scene", options))
