"""Predicted human preference: scorers that were trained on choices between images of one prompt.

| metric | value | weights |
|---|---|---|
| `pickscore` | logit s·cos(image, prompt), s the model's own factor (about 100) | PickScore v1, arXiv:2305.01569 |
| `hpsv2` | cos(image, prompt) | HPSv2.1 or 2.0, arXiv:2306.09341 |

Both are CLIP ViT-H/14 models, tuned so that softmax over the logits of two images gives the share of people who choose
each. A difference of T in the score is therefore odds of e to 1: T = 1 for PickScore's logit, 1/100 for HPSv2's cosine.
Both are predictions, not ratings of your images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.errors import UnknownNameError
from perjoule.protocols import Images, ImageSet
from perjoule.quality.clip_base import ClipMetric, ClipOptions
from perjoule.quality.clip_encoder import ClipEncoder, load_encoder
from perjoule.quality.options import read_options, resolve_device
from perjoule.quality.weights import fetch_hub_file, fetch_snapshot, in_hub_cache
from perjoule.types import MetricSpec, Score
from perjoule.weights.digests import digest_named


@dataclass(frozen=True, slots=True, kw_only=True)
class PickScoreOptions(ClipOptions):
    """Options of `pickscore`; see `ClipOptions`."""

    model: str = "yuvalkirstain/PickScore_v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hpsv2Options(ClipOptions):
    """Options of `hpsv2`.

    Attributes:
        model: Folder or hub id with the file of weights.
        version: `2.1` or `2.0`; their scales differ.
        architecture: Folder or hub id of transformers' CLIP ViT-H/14: settings and tokenizer, no weights.
    """

    model: str = "xswu/HPSv2"
    version: str = "2.1"
    architecture: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


_HPSV2_FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}


class PickScore(ClipMetric):
    """The metric `pickscore`."""

    name, track, unit, bounds, temperature = "pickscore", "alignment", "logit", (None, None), 1.0
    margin, scale = 0.15, "1: 73 of 100 people prefer the better image, as predicted; 0.15: 54 of 100"
    description = "PickScore's logit of image and prompt: predicted preference, no human ratings"

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one logit per image; an image with an empty prompt is unscored."""
        encoder = self.encoder()
        return self.score_against_prompts(encoder, images, on_progress, factor=encoder.logit_scale)


class Hpsv2(ClipMetric):
    """The metric `hpsv2`."""

    name, track, unit, bounds, temperature = "hpsv2", "alignment", "cosine", (-1.0, 1.0), 0.01
    margin, scale = 0.0015, "0.01: 73 of 100 people prefer the better image, as predicted; 0.0015: 54 of 100"
    options: Hpsv2Options

    def __init__(self, options: Hpsv2Options) -> None:
        """Create the metric. Raises UnknownNameError for an unknown version."""
        if options.version not in _HPSV2_FILES:
            raise UnknownNameError("version", options.version, _HPSV2_FILES, "metric hpsv2: option version")
        super().__init__(options)
        self._file = _HPSV2_FILES[options.version]
        self.description = f"HPS v{options.version} of image and prompt: predicted preference, no human ratings"

    @property
    def spec(self) -> MetricSpec:
        """Properties with the digest of the file of weights."""
        return replace(self.card, weights_digest=digest_named({self._file: self._weights()}))

    def weights_here(self) -> bool:
        """Return whether weights, settings and tokenizer are local."""
        revision = self.options.revision
        weights = Path(self._model).is_dir() or in_hub_cache(self._model, revision, self._file)
        settings = self.options.architecture
        return weights and (Path(settings).is_dir() or in_hub_cache(settings, None))

    def encoder(self) -> ClipEncoder:
        """Return the loaded model."""
        folder = fetch_snapshot(self.options.architecture, None, [["config.json"]], self.name)
        return load_encoder(folder, resolve_device(self.options.device, self.name), self._weights())

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one cosine per image; an image with an empty prompt is unscored."""
        encoder = self.encoder()
        side = encoder.side_px
        fitted = replace(images, images=lambda index: fitted_into(images.images(index), side))
        return self.score_against_prompts(encoder, fitted, on_progress)

    def _weights(self) -> Path:
        return fetch_hub_file(self._model, self._file, self.options.revision, self.name)


def fitted_into(picture: Images, side: int) -> Images:
    """Pad an image to a black square, as HPSv2 does; other models crop. (h, w, 3) uint8 -> square."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side))
    square.paste(resized, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.array(square)


def pickscore(options: dict[str, Any]) -> PickScore:
    """Factory of the metric `pickscore`; see `PickScoreOptions`."""
    return PickScore(read_options(PickScoreOptions, "pickscore", options))


def hpsv2(options: dict[str, Any]) -> Hpsv2:
    """Factory of the metric `hpsv2`; see `Hpsv2Options`."""
    return Hpsv2(read_options(Hpsv2Options, "hpsv2", options))
