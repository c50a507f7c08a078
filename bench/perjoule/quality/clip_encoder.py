"""Loader of CLIP models for `clip_text`, `r_precision` and `iclip`.

A model is a folder in transformers' format: `config.json`, a CLIP tokenizer, weights, and
`preprocessor_config.json` if the images need more than a resize to [-1, 1]. A hub id is downloaded first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import UsageError, first_line
from perjoule.protocols import Images
from perjoule.quality.keeping import kept
from perjoule.quality.open_clip import load_open_clip
from perjoule.quality.weights import fetch_snapshot
from perjoule.weights.digests import digest_folder
from perjoule.weights.settings import settings_problem

_WEIGHTS = ["model*.safetensors"], ["pytorch_model*.bin"]


def fetch(model: str, revision: str | None, metric: str) -> Path:
    """Return the folder of a resolved model; a hub id is downloaded unless it is in the hub's cache.

    Raises:
        UsageError: If it can neither be found nor downloaded.
    """
    # older repositories contain only pickles; newer ones contain both, and one is enough. OpenCLIP's own files, which
    # LAION's repositories contain too, are left out
    return fetch_snapshot(model, revision, _WEIGHTS, metric)


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights that transformers loads: safetensors if there are any."""
    chosen = next((patterns for patterns in _WEIGHTS if any(folder.glob(patterns[0]))), [p[0] for p in _WEIGHTS])
    return digest_folder(folder, chosen)


@kept
def load_encoder(folder: Path, device: str, weights: Path | None = None) -> ClipEncoder:
    """Return the encoder of a folder on a device, loaded once per process.

    Args:
        folder: Folder with settings, tokenizer and, unless `weights` is given, weights.
        device: A torch device.
        weights: An OpenCLIP checkpoint for the architecture in the folder.

    Raises:
        UsageError: If the folder does not contain a CLIP model, or the weights do not fit it.
    """
    return ClipEncoder(folder, device, weights)


class ClipEncoder:
    """Both towers of a CLIP model: turns images and texts into vectors of length one."""

    def __init__(self, folder: Path, device: str, weights: Path | None = None) -> None:
        """Load in float32, because half precision changes a cosine by 1e-3, as much as ten steps do."""
        import torch
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        if problem := settings_problem(folder):
            raise UsageError(problem)
        try:
            if weights is None:
                self._model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
            else:
                self._model = load_open_clip(folder, weights).eval().to(device)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
            has_processor = (folder / "preprocessor_config.json").is_file()
            self._processor: Any = CLIPImageProcessor.from_pretrained(folder) if has_processor else None
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UsageError(f"{folder}: cannot load a CLIP model from this folder: {first_line(error)}") from error
        self._side = int(self._model.config.vision_config.image_size)
        self._length = int(self._model.config.text_config.max_position_embeddings)
        self._device = device
        self._known: dict[str, NDArray[np.float64]] = {}

    @property
    def side_px(self) -> int:
        """Height and width of the model's input."""
        return self._side

    @property
    def logit_scale(self) -> float:
        """The model's factor between cosine and logit."""
        return float(self._model.logit_scale.detach().exp())

    def images(self, pictures: Sequence[Images]) -> NDArray[np.float64]:
        """Return (n, d) unit vectors of images of any size, each (h, w, 3) uint8."""
        import torch

        if self._processor is not None:
            # copies, because images decoded by Pillow are read-only, which torch warns about
            copies = [np.array(picture) for picture in pictures]
            inputs = self._processor(images=copies, return_tensors="pt", input_data_format="channels_last")
            pixels = inputs["pixel_values"]
        else:
            pixels = torch.cat([_resized(picture, self._side) for picture in pictures])
        with torch.inference_mode():
            return _unit(self._model.get_image_features(pixel_values=pixels.to(self._device)))

    def texts(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float64]:
        """Return (n, d) unit vectors of texts, cut at the model's maximum length; equal texts are encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), batch_size):
            batch = new[start : start + batch_size]
            self._known |= zip(batch, self._encoded(batch), strict=True)
        return np.stack([self._known[text] for text in texts])

    def _encoded(self, texts: list[str]) -> NDArray[np.float64]:
        import torch

        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt")
        with torch.inference_mode():
            features = self._model.get_text_features(
                input_ids=tokens["input_ids"].to(self._device),
                attention_mask=tokens["attention_mask"].to(self._device),
            )
        return _unit(features)


def _resized(picture: Images, side: int) -> Any:
    """(h, w, 3) uint8 -> (1, 3, side, side) float32 in [-1, 1]."""
    import torch

    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    if pixels.shape[-2:] != (side, side):
        pixels = torch.nn.functional.interpolate(
            pixels, (side, side), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 255)
    return pixels / 127.5 - 1


def _unit(features: Any) -> NDArray[np.float64]:
    # transformers 5 wraps the projected features, version 4 returned them directly
    vectors = getattr(features, "pooler_output", features).float().cpu().numpy().astype(np.float64)
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
