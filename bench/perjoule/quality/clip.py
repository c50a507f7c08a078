"""Three metrics on one CLIP: does the image say what the prompt says, and is it the image of the longest run?

    clip_text     cos(image, prompt)                       CLIPScore (arXiv:2104.08718) without its factor 2.5 and floor
    r_precision   1 if the prompt beats 99 others, else 0  R-precision with CLIP (arXiv:2110.09204)
    iclip         cos(image, reference)                    BudgetFusion's I-CLIP (arXiv:2412.05780), its CLIP unstated
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perjoule.models import resolve_model
from perjoule.protocols import ImageSet
from perjoule.quality.batches import NO_REFERENCE, Outcome, score_in_batches
from perjoule.quality.clip_encoder import ClipEncoder, fetch, load_encoder, weights_digest
from perjoule.quality.distractors import DISTRACTOR_COUNT, FEWEST_DISTRACTORS, choose, read_texts
from perjoule.quality.options import read_options, resolve_device
from perjoule.types import MetricSpec, Score, Track

_TIE = 1e-6  # float32 cosines of one text in two batches differ by less


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RPrecisionOptions(ClipOptions):
    """Options of `r_precision`. distractors: texts, or a file with one a line, for runs with too few prompts."""

    distractors: list[str] | str = field(default_factory=list)


class _ClipMetric:
    """What the three have in common: a model by name, read when first needed."""

    name: str
    track: Track
    unit: str
    bounds: tuple[float, float]
    needs_reference = False
    description: str

    def __init__(self, options: ClipOptions) -> None:
        """Raises UnknownNameError if the model is a builtin that nobody offers."""
        self._options = options
        self._model = resolve_model(options.model, f"metric {self.name}: option model")

    @property
    def spec(self) -> MetricSpec:
        """Names the weights by their digest, for which a hub id is downloaded."""
        return MetricSpec(
            name=self.name,
            direction="higher",
            track=self.track,
            needs_reference=self.needs_reference,
            unit=self.unit,
            weights_digest=weights_digest(self._folder()),
            licence="Apache-2.0" if self._options.model.startswith("builtin:") else "LicenseRef-see-model-card",
            description=f"{self.description}; CLIP: {self._options.model}",
            advisory=False,
            bounds=self.bounds,
        )

    def _folder(self) -> Path:
        return fetch(self._model, self._options.revision)

    def _encoder(self) -> ClipEncoder:
        return load_encoder(self._folder(), resolve_device(self._options.device, self.name))


class ClipText(_ClipMetric):
    """The metric `clip_text`."""

    name, track, unit, bounds = "clip_text", "alignment", "cosine", (-1.0, 1.0)
    description = "CLIP cosine of image and prompt, the prompt cut at the length the model knows"

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """One cosine per image; an image whose prompt is empty is unscored."""
        encoder = self._encoder()
        vector_of = _encode(encoder, [p.text for p in images.prompts])

        def judge(batch: range) -> Sequence[Outcome]:
            seen = encoder.images([images.images(i) for i in batch])
            prompts = [images.prompts[i].text for i in batch]
            return [
                _cosine(v, vector_of[t]) if t else "the prompt is empty" for v, t in zip(seen, prompts, strict=True)
            ]

        return score_in_batches(images, self.name, self._options.batch_size, judge, on_progress)


class RPrecision(_ClipMetric):
    """The metric `r_precision`."""

    name, track, unit, bounds = "r_precision", "alignment", "share", (0.0, 1.0)
    description = (
        f"1 if the image's own prompt ranks first by CLIP cosine among {DISTRACTOR_COUNT} other prompts (all there are if "
        f"fewer, which makes it easier; unscored below {FEWEST_DISTRACTORS}), else 0; a tie is not a first rank"
    )

    def __init__(self, options: RPrecisionOptions) -> None:
        """Raises UsageError if the file of distractors cannot be read."""
        super().__init__(options)
        self._pool = read_texts(options.distractors)

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """1.0 or 0.0 per image."""
        encoder = self._encoder()
        others = [p.text for p in images.all_prompts]
        chosen = {p.text: choose(p, others, self._pool) for p in dict.fromkeys(images.prompts)}
        vector_of = _encode(encoder, [t for own, texts in chosen.items() for t in (own, *texts)])
        fewest = min(map(len, chosen.values()), default=DISTRACTOR_COUNT)
        if FEWEST_DISTRACTORS <= fewest < DISTRACTOR_COUNT:
            logging.getLogger(__name__).warning(
                "r_precision: %d distractors instead of %d; compare only with runs that had as many, or add texts by "
                "the option `distractors`",
                fewest,
                DISTRACTOR_COUNT,
            )

        def judge(batch: range) -> Sequence[Outcome]:
            seen = encoder.images([images.images(i) for i in batch])
            return [_ranks_first(v, images.prompts[i].text, chosen, vector_of) for v, i in zip(seen, batch, strict=True)]

        return score_in_batches(images, self.name, self._options.batch_size, judge, on_progress)


class IClip(_ClipMetric):
    """The metric `iclip`."""

    name, track, unit, bounds = "iclip", "fidelity", "cosine", (-1.0, 1.0)
    needs_reference = True
    description = (
        "CLIP cosine with the longest run of the same model, prompt and seed, which itself has 1 by construction: "
        "convergence to the model's own long run, not quality"
    )

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """One cosine per image; 1.0 for a reference, unscored where there is none."""
        encoder = self._encoder()
        reference_vectors: dict[str, NDArray[np.float64]] = {}

        def judge(batch: range) -> Sequence[Outcome]:
            references = [images.reference_ids[i] for i in batch]
            new = {r: i for r, i in zip(references, batch, strict=True) if r and r not in reference_vectors}
            if new:
                vectors = encoder.images([images.references(i) for i in new.values()])
                reference_vectors.update(zip(new, vectors, strict=True))
            seen = encoder.images([images.images(i) for i in batch])
            outcomes: list[Outcome] = []
            for vector, reference, index in zip(seen, references, batch, strict=True):
                if reference is None:
                    outcomes.append(NO_REFERENCE)
                elif reference == images.image_ids[index]:
                    outcomes.append(1.0)
                else:
                    outcomes.append(_cosine(vector, reference_vectors[reference]))
            return outcomes

        return score_in_batches(images, self.name, self._options.batch_size, judge, on_progress)


def _encode(encoder: ClipEncoder, texts: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    distinct = [text for text in dict.fromkeys(texts) if text]
    return dict(zip(distinct, encoder.texts(distinct), strict=True)) if distinct else {}


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    cosine = float(a @ b)
    return min(max(cosine, -1.0), 1.0) if np.isfinite(cosine) else cosine  # min and max would hide a NaN


def _ranks_first(
    vector: NDArray[np.float64],
    own: str,
    chosen: dict[str, list[str]],
    vector_of: dict[str, NDArray[np.float64]],
) -> Outcome:
    texts = chosen[own]
    if not own:
        return "the prompt is empty"
    if len(texts) < FEWEST_DISTRACTORS:
        return f"only {len(texts)} distractors, r_precision needs {FEWEST_DISTRACTORS}: add texts by option `distractors`"
    rivals = np.stack([vector_of[t] for t in texts]) @ vector
    margin = vector @ vector_of[own] - rivals.max()
    return float(margin > _TIE) if np.isfinite(margin) else float(margin)


def clip_text(options: dict[str, Any]) -> ClipText:
    """Factory of the metric `clip_text`; see `ClipOptions`."""
    return ClipText(read_options(ClipOptions, "clip_text", options))


def r_precision(options: dict[str, Any]) -> RPrecision:
    """Factory of the metric `r_precision`; see `RPrecisionOptions`."""
    return RPrecision(read_options(RPrecisionOptions, "r_precision", options))


def iclip(options: dict[str, Any]) -> IClip:
    """Factory of the metric `iclip`; see `ClipOptions`."""
    return IClip(read_options(ClipOptions, "iclip", options))
