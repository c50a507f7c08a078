"""What the CLIP metrics have in common: options, a model read when first needed, vectors of texts, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perjoule.models import resolve_model
from perjoule.quality.clip_encoder import ClipEncoder, fetch, load_encoder, weights_digest
from perjoule.quality.options import resolve_device
from perjoule.types import MetricSpec, Track

Vector = NDArray[np.float64]  # (d,) of length one


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
    """A metric on a CLIP model; the subclasses say what is compared with what."""

    name: str
    track: Track
    unit: str
    bounds: tuple[float, float]
    needs_reference = False
    description: str

    def __init__(self, options: ClipOptions) -> None:
        """Raises UnknownNameError if the model is a builtin that nobody offers."""
        self.options = options
        self._model = resolve_model(options.model, f"metric {self.name}: option model")

    @property
    def spec(self) -> MetricSpec:
        """Names the weights by their digest, for which a hub id is downloaded."""
        builtin = self.options.model.startswith("builtin:")
        return MetricSpec(
            name=self.name,
            direction="higher",
            track=self.track,
            needs_reference=self.needs_reference,
            unit=self.unit,
            weights_digest=weights_digest(self._folder()),
            licence="Apache-2.0" if builtin else "LicenseRef-see-model-card",
            description=f"{self.description}; CLIP: {self.options.model}",
            advisory=False,
            bounds=self.bounds,
        )

    def encoder(self) -> ClipEncoder:
        """The loaded model, shared by all metrics that use it on the same device."""
        return load_encoder(self._folder(), resolve_device(self.options.device, self.name))

    def _folder(self) -> Path:
        return fetch(self._model, self.options.revision)


def encode_texts(encoder: ClipEncoder, texts: Sequence[str]) -> dict[str, Vector]:
    """Text -> unit vector, each distinct text once; the empty text is left out."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    return dict(zip(distinct, encoder.texts(distinct), strict=True)) if distinct else {}


def cosine(a: Vector, b: Vector) -> float:
    """Of two unit vectors, kept within [-1, 1] against rounding; NaN stays NaN, which min and max would hide."""
    value = float(a @ b)
    return min(max(value, -1.0), 1.0) if np.isfinite(value) else value
