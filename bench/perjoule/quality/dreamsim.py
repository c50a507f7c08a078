"""DreamSim: perceived similarity of two images in layout, pose and content.

Fu, Tamir, Sundaram et al., NeurIPS 2023, arXiv:2306.09344; weights MIT. `dsim` is 1 − DreamSim distance, which is the
cosine of the two embeddings. The published package needs timm, peft and open_clip and downloads code at run
time, so this is our own adapter to the published weights: it concatenates the class tokens of up to three vision
transformers with LoRA weights and subtracts the mean. On checkpoints of random weights in the published layout its
distances agreed with those of package 0.2.1 within 3e-7.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import UnknownNameError, UsageError
from perjoule.files import at_home
from perjoule.protocols import Images, ImageSet
from perjoule.quality.keeping import kept
from perjoule.quality.options import read_options, resolve_device
from perjoule.quality.references import cosines_to_references
from perjoule.quality.weights import fetch_weights, load_tensors, weights_cached
from perjoule.types import MetricSpec, Score
from perjoule.weights.digests import digest_named
from perjoule.weights.downloads import cached_file

if TYPE_CHECKING:
    from torch import Tensor

LICENCE = "MIT AND Apache-2.0"  # DreamSim and CLIP; DINO
_RELEASE = "https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/dreamsim_{}_checkpoint.zip"
_DINO = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
_DINO_FILE = "checkpoints/dino_vitbase16_pretrain.pth"
_LORA = re.compile(r"extractor_list\.(\d+)\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")
_SIDE_PX = 224
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One transformer of a variant: its file of base weights in the checkpoint's folder, and its family."""

    file: str
    family: str  # dino, clip, open_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A published variant: the folder of its LoRA weights and its transformers, in order."""

    adapter: str
    branches: tuple[Branch, ...]


_DINO_16 = Branch(file=_DINO_FILE, family="dino")
_CLIP_16 = Branch(file="clip_vitb16_pretrain.pth.tar", family="clip")
_OPEN_CLIP_16 = Branch(file="open_clip_vitb16_pretrain.pth.tar", family="open_clip")
_CLIP_32 = Branch(file="clip_vitb32_pretrain.pth.tar", family="clip")
_OPEN_CLIP_32 = Branch(file="open_clip_vitb32_pretrain.pth.tar", family="open_clip")
_CHECKPOINTS = {
    "ensemble": Checkpoint(adapter="ensemble_lora", branches=(_DINO_16, _CLIP_16, _OPEN_CLIP_16)),
    "dino_vitb16": Checkpoint(adapter="dino_vitb16_single_lora", branches=(_DINO_16,)),
    "clip_vitb32": Checkpoint(adapter="clip_vitb32_single_lora", branches=(_CLIP_32,)),
    "open_clip_vitb32": Checkpoint(adapter="open_clip_vitb32_single_lora", branches=(_OPEN_CLIP_32,)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DreamSimOptions:
    """Options of `dsim`.

    Attributes:
        variant: `ensemble`, the first published one, or a single `dino_vitb16`, `clip_vitb32`, `open_clip_vitb32`.
        folder: The `cache_dir` of the package dreamsim, with the unpacked weights; None downloads them.
        device: `auto` or a torch device.
        batch_size: Images per pass.
    """

    variant: str = "ensemble"
    folder: str | None = None
    device: str = "auto"
    batch_size: int = 16


class DreamSim:
    """The metric `dsim`."""

    def __init__(self, options: DreamSimOptions) -> None:
        """Create the metric. Raises UnknownNameError for an unknown variant."""
        if options.variant not in _CHECKPOINTS:
            raise UnknownNameError("variant", options.variant, _CHECKPOINTS, "metric dsim: option variant")
        self._options = options
        self._checkpoint = _CHECKPOINTS[options.variant]

    @property
    def card(self) -> MetricSpec:
        """Return the spec without a digest of the weights."""
        return MetricSpec(
            name="dsim",
            direction="higher",
            track="fidelity",
            needs_reference=True,
            unit="cosine",
            weights_digest="",
            licence=LICENCE,
            description=(
                f"1 - DreamSim distance ({self._options.variant}, our adapter to the published weights) to the longest "
                "run of the same model, prompt and seed, whose own value is 1 by definition"
            ),
            advisory=False,
            bounds=(-1.0, 1.0),
            weights=self._options.folder or _RELEASE.format(self._options.variant),
            commercial=True,
            margin=0.02,
            scale="1: the same image; 0.02 is a provisional choice",
        )

    @property
    def spec(self) -> MetricSpec:
        """Properties with the digest of the weights, by the names of the files in the checkpoint."""
        return replace(self.card, weights_digest=digest_named(self._files()))

    def weights_here(self) -> bool:
        """Return whether the checkpoint, and DINO's weights if needed, are in a cache."""
        if self._options.folder is not None:
            return True
        dino = any(branch.file == _DINO_FILE for branch in self._checkpoint.branches)
        return weights_cached(_RELEASE.format(self._options.variant)) and (not dino or weights_cached(_DINO))

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one cosine per image; 1.0 for a reference, unscored without a reference."""
        device = resolve_device(self._options.device, "dsim")
        files = self._files()
        embedder = _load(self._options.variant, tuple(sorted(files.items())), device)
        return cosines_to_references(images, "dsim", self._options.batch_size, embedder, on_progress)

    def _files(self) -> dict[str, Path]:
        """Return the file for each name in the checkpoint."""
        names = [branch.file for branch in self._checkpoint.branches]
        names += [f"{self._checkpoint.adapter}/{file}" for file in ("adapter_config.json", "adapter_model.safetensors")]
        if self._options.folder is not None:
            folder = at_home(self._options.folder)
            files = {name: folder / name for name in names}
        else:
            url = _RELEASE.format(self._options.variant)
            folder = _unpacked(fetch_weights(url, sha256=None, licence=LICENCE, metric="dsim"), names)
            files = {name: folder / name for name in names}
            if _DINO_FILE in files:
                files[_DINO_FILE] = fetch_weights(_DINO, sha256=None, licence=LICENCE, metric="dsim")
        missing = [name for name, file in files.items() if not file.is_file()]
        if missing:
            raise UsageError(
                f"metric dsim: {folder} is not a checkpoint of {self._options.variant}: {missing[0]} is missing"
            )
        return files


class Embedder:
    """Return (n, d) vectors of mean zero and length one of images of any size, each (h, w, 3) uint8."""

    def __init__(self, branches: list[tuple[Any, str]], device: str) -> None:
        """Create the encoder. branches: transformers with their families."""
        self._branches = [(model.to(device), _IMAGENET if family == "dino" else _OPENAI) for model, family in branches]
        self._device = device

    def __call__(self, pictures: list[Images]) -> NDArray[np.float64]:
        """Embed."""
        import torch

        pixels = torch.from_numpy(np.stack([_squashed(picture) for picture in pictures]))
        pixels = pixels.to(self._device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            features = [
                model((pixels - _column(mean)) / _column(std)) for model, (mean, std) in self._branches_on(pixels)
            ]
        vectors: NDArray[np.float64] = torch.cat(features, dim=1).double().cpu().numpy()
        vectors -= vectors.mean(axis=1, keepdims=True)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _branches_on(self, pixels: Tensor) -> list[tuple[Any, tuple[Tensor, Tensor]]]:
        return [(model, (pixels.new_tensor(mean), pixels.new_tensor(std))) for model, (mean, std) in self._branches]


def with_lora(state: dict[str, Tensor], adapter: dict[str, Tensor], branch: int, scale: float) -> dict[str, Tensor]:
    """Return the weights of a branch with its low-rank updates added: W + scale·B·A.

    Args:
        state: Base weights.
        adapter: Adapter as saved by peft, e.g. `…extractor_list.BRANCH.model.NAME.lora_A.weight`, and `lora_B`.
        branch: Name of the transformer.
        scale: alpha / r.

    Raises:
        KeyError: If the weight of an update is missing, or there are no updates, without which the embedding would be
            different.
    """
    changed = dict(state)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in adapter.items():
        match = _LORA.search(name)
        if match is None:
            raise KeyError(f"{name} is not an update of a transformer's weight")
        if int(match[1]) == branch:
            parts.setdefault(match[2], {})[match[3]] = tensor.float()
    if not parts:
        raise KeyError(f"the adapter contains no update for transformer {branch}")
    for name, part in parts.items():
        changed[f"{name}.weight"] = changed[f"{name}.weight"].float() + scale * (part["B"] @ part["A"])
    return changed


@kept
def _load(variant: str, files: tuple[tuple[str, Path], ...], device: str) -> Embedder:
    from perjoule.quality.vision_transformer import VisionTransformer

    named, checkpoint = dict(files), _CHECKPOINTS[variant]
    config = json.loads(named[f"{checkpoint.adapter}/adapter_config.json"].read_text(encoding="utf-8"))
    adapter = load_tensors(named[f"{checkpoint.adapter}/adapter_model.safetensors"], "dsim")
    branches = []
    for number, branch in enumerate(checkpoint.branches):
        file = named[branch.file]
        tensors = load_tensors(file, "dsim")
        try:
            state = with_lora(tensors.get("state_dict", tensors), adapter, number, config["lora_alpha"] / config["r"])
            branches.append((VisionTransformer(state, _kind(branch.family)), branch.family))
        except (KeyError, RuntimeError) as error:
            raise UsageError(f"metric dsim: {file}: not weights of DreamSim's {branch.family}: {error}") from error
    return Embedder(branches, device)


def _kind(family: str) -> Any:
    from perjoule.quality.vision_transformer import Kind

    clip = family != "dino"
    # DreamSim uses DINO's class token from the last block
    return Kind(quick_gelu=family == "clip", norm_eps=1e-5 if clip else 1e-6, first_norm=clip, last_norm=clip)


def _unpacked(archive: Path, names: list[str]) -> Path:
    """Return the folder with the named members of the archive, next to it; it is unpacked once."""
    folder = cached_file(archive.as_uri()).parent
    try:
        with zipfile.ZipFile(archive) as file:
            for member in set(file.namelist()) & set(names):
                if not (folder / member).is_file():
                    file.extract(member, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"metric dsim: {archive} cannot be unpacked: {error}: delete it and try again") from error
    return folder


def _squashed(picture: Images) -> Images:
    from PIL import Image

    return np.array(Image.fromarray(picture).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC))


def _column(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def dsim(options: dict[str, Any]) -> DreamSim:
    """Factory of the metric `dsim`; see `DreamSimOptions`."""
    return DreamSim(read_options(DreamSimOptions, "dsim", options))
