"""Base of the CLIP metrics: options, a model loaded when first needed, vectors of texts, cosines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perjoule.protocols import ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.clip_encoder import ClipEncoder, fetch, load_encoder, weights_digest
from perjoule.quality.options import resolve_device
from perjoule.quality.references import cosine
from perjoule.quality.weights import hub_licence, in_hub_cache
from perjoule.types import MetricSpec, Score, Track
from perjoule.weights.licences import UNKNOWN, allows_commerce
from perjoule.weights.models import resolve_model

Vector = NDArray[np.float64]  # (d,) of length one
EMPTY = "the prompt is empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """Options of the CLIP metrics.

    Attributes:
        model: `builtin:NAME`, a folder, or a hub id.
        revision: Hub revision to pin.
        device: `auto` or a torch device.
        batch_size: Images per pass.
    """

    model: str = "builtin:clip-tiny"
    revision: str | None = None
    device: str = "auto"
    batch_size: int = 32


class ClipMetric:
    """A metric on a CLIP model; the subclasses define the comparison."""

    name: str
    track: Track
    unit: str
    bounds: tuple[float | None, float | None]
    needs_reference = False
    temperature: float | None = None
    margin: float | None = None
    scale: str = ""
    description: str

    def __init__(self, options: ClipOptions) -> None:
        """Create the metric. Raises UnknownNameError if the model is an unknown builtin."""
        self.options = options
        self._model = resolve_model(options.model, f"metric {self.name}: option model")

    @property
    def card(self) -> MetricSpec:
        """Return the spec without a digest of the weights."""
        licence = self._licence()
        return MetricSpec(
            name=self.name,
            direction="higher",
            track=self.track,
            needs_reference=self.needs_reference,
            unit=self.unit,
            weights_digest="",
            licence=licence,
            description=f"{self.description}; CLIP: {self.options.model}",
            advisory=False,
            bounds=self.bounds,
            weights=self.options.model,
            commercial=allows_commerce(licence),
            temperature=self.temperature,
            margin=self.margin,
            scale=self.scale,
        )

    @property
    def spec(self) -> MetricSpec:
        """Properties with the digest of the weights, for which a hub id is downloaded."""
        digest = weights_digest(self._folder())  # before the card, which reads the licence from the downloaded files
        return replace(self.card, weights_digest=digest)

    def weights_here(self) -> bool:
        """Return whether the weights are local; a folder or a builtin always is."""
        return Path(self._model).is_dir() or in_hub_cache(self._model, self.options.revision)

    def encoder(self) -> ClipEncoder:
        """Return the loaded model, shared by all metrics that use it on the same device."""
        return load_encoder(self._folder(), resolve_device(self.options.device, self.name))

    def score_against_prompts(
        self, encoder: ClipEncoder, images: ImageSet, on_progress: Callable[[int], None], factor: float = 1.0
    ) -> list[Score]:
        """Return `factor` times the cosine of each image and its prompt; an image with an empty prompt is unscored."""
        vector_of = encode_texts(encoder, [p.text for p in images.prompts])

        def judge(batch: range) -> Sequence[Outcome]:
            vectors = encoder.images([images.images(i) for i in batch])
            prompts = [images.prompts[i].text for i in batch]
            return [factor * cosine(v, vector_of[t]) if t else EMPTY for v, t in zip(vectors, prompts, strict=True)]

        return score_in_batches(images, self.name, self.options.batch_size, judge, on_progress)

    def _folder(self) -> Path:
        return fetch(self._model, self.options.revision, self.name)

    def _licence(self) -> str:
        if self.options.model.startswith("builtin:"):
            return "Apache-2.0"
        return UNKNOWN if Path(self._model).is_dir() else hub_licence(self._model, self.options.revision, ask=False)


def encode_texts(encoder: ClipEncoder, texts: Sequence[str]) -> dict[str, Vector]:
    """Return a unit vector for each distinct text; the empty text is left out."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    return dict(zip(distinct, encoder.texts(distinct), strict=True)) if distinct else {}
