"""Three metrics on one CLIP model: similarity of image and prompt, and similarity to the image of the longest run.

| metric | value | after |
|---|---|---|
| `clip_text` | cos(image, prompt) | CLIPScore, arXiv:2104.08718, without its factor 2.5 and its floor at 0 |
| `r_precision` | 1 if the prompt beats 99 others, else 0 | R-precision with CLIP, arXiv:2110.09204 |
| `iclip` | cos(image, reference) | BudgetFusion's I-CLIP, arXiv:2412.05780; which CLIP, it does not say |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perjoule.protocols import ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.clip_base import EMPTY, ClipMetric, ClipOptions, Vector, encode_texts
from perjoule.quality.distractors import DISTRACTOR_COUNT, FEWEST_DISTRACTORS, choose, read_texts
from perjoule.quality.options import read_options
from perjoule.quality.references import cosines_to_references
from perjoule.types import Score

_TIE = 1e-6  # float32 cosines of one text in two batches differ by less


@dataclass(frozen=True, slots=True, kw_only=True)
class RPrecisionOptions(ClipOptions):
    """Options of `r_precision`. distractors: texts, or a file with one per line, for runs with too few prompts."""

    distractors: list[str] | str = field(default_factory=list)


class ClipText(ClipMetric):
    """The metric `clip_text`."""

    name, track, unit, bounds = "clip_text", "alignment", "cosine", (-1.0, 1.0)
    margin, scale = 0.01, "0.013: the step from Stable Diffusion 1.4 to 1.5"
    description = "CLIP cosine of image and prompt, with the prompt cut at the model's maximum length"

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one cosine per image; an image with an empty prompt is unscored."""
        return self.score_against_prompts(self.encoder(), images, on_progress)


class RPrecision(ClipMetric):
    """The metric `r_precision`."""

    name, track, unit, bounds = "r_precision", "alignment", "share", (0.0, 1.0)
    margin, scale = 0.05, "0.05: one image in twenty"
    description = (
        f"1 if the image's own prompt ranks first by CLIP cosine among {DISTRACTOR_COUNT} other prompts (all "
        f"prompts if fewer, which is easier; unscored below {FEWEST_DISTRACTORS}), else 0; a tie is not a first rank"
    )

    def __init__(self, options: RPrecisionOptions) -> None:
        """Raises UsageError if the file of distractors cannot be read."""
        super().__init__(options)
        self._pool = read_texts(options.distractors)
        self._warned = False

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return 1.0 or 0.0 per image."""
        encoder = self.encoder()
        others = [p.text for p in images.all_prompts]
        chosen = {p.text: choose(p, others, self._pool) for p in dict.fromkeys(images.prompts)}
        vector_of = encode_texts(encoder, [t for own, texts in chosen.items() for t in (own, *texts)])
        fewest = min(map(len, chosen.values()), default=DISTRACTOR_COUNT)
        if FEWEST_DISTRACTORS <= fewest < DISTRACTOR_COUNT and not self._warned:
            self._warned = True  # warn once, since a run is scored in parts
            logging.getLogger(__name__).warning(
                "r_precision: %d distractors instead of %d; compare only with runs that had as many, or add texts "
                "with the option `distractors`",
                fewest,
                DISTRACTOR_COUNT,
            )

        def judge(batch: range) -> Sequence[Outcome]:
            vectors = encoder.images([images.images(i) for i in batch])
            return [
                _ranks_first(v, images.prompts[i].text, chosen, vector_of) for v, i in zip(vectors, batch, strict=True)
            ]

        return score_in_batches(images, self.name, self.options.batch_size, judge, on_progress)


class IClip(ClipMetric):
    """The metric `iclip`."""

    name, track, unit, bounds = "iclip", "fidelity", "cosine", (-1.0, 1.0)
    margin, scale = 0.02, "1: the same image; 0.02 is a provisional choice"
    needs_reference = True
    description = (
        "CLIP cosine with the longest run of the same model, prompt and seed, whose own value is 1 by definition: "
        "convergence to the model's own long run, not quality"
    )

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one cosine per image; 1.0 for a reference, unscored without a reference."""
        return cosines_to_references(images, self.name, self.options.batch_size, self.encoder().images, on_progress)


def _ranks_first(
    vector: Vector,
    own: str,
    chosen: dict[str, list[str]],
    vector_of: dict[str, Vector],
) -> Outcome:
    texts = chosen[own]
    if not own:
        return EMPTY
    if len(texts) < FEWEST_DISTRACTORS:
        return f"only {len(texts)} distractors, {FEWEST_DISTRACTORS} are needed: add texts with option `distractors`"
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
