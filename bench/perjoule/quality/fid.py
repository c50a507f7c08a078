"""Fréchet Inception distance between two sets of images, as two Gaussians over an Inception network's features.

    FID = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)

Heusel et al., arXiv:1706.08500, with the network and the resizing of the original, from the package `torch-fidelity`
(Apache-2.0). Lower is better. It scores a set, so single images have no score and there is no pairing and no interval.
It is biased upwards for small sets, and the bias differs between models: with fewer than about ten thousand images it
is not usable for comparisons. It is available because users expect it, but frontiers and verdicts do not use it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import UsageError, first_line
from perjoule.files import at_home
from perjoule.protocols import Images, ImageSet, SetOutcome
from perjoule.quality.batches import within_memory
from perjoule.quality.keeping import kept
from perjoule.quality.options import read_options, resolve_device
from perjoule.quality.weights import fetch_weights, load_tensors, weights_cached
from perjoule.types import MetricSpec
from perjoule.weights.digests import digest_file

LICENCE = "Apache-2.0"
_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_FEATURES = "2048"
_FULL_RANK = 2049  # with fewer images the covariance is singular
_USUAL = 10_000
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_FEWEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FidOptions:
    """Options of `fid`.

    Attributes:
        reference: Folder of images, or an .npz file with `mu` and `sigma` as written by pytorch-fid. Mandatory.
        weights: File with torch-fidelity's Inception weights; None downloads them.
        device: `auto` or a torch device.
        batch_size: Images per pass.
    """

    reference: str = ""
    weights: str | None = None
    device: str = "auto"
    batch_size: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """Moments of features.

    Attributes:
        mean: (d,).
        root: (d, r) with covariance = root·rootᵀ; r is the smaller of d and the number of images.
        count: Number of images, None if a file does not contain it.
    """

    mean: NDArray[np.float64]
    root: NDArray[np.float64]
    count: int | None


class Fid:
    """The metric `fid`: a metric of sets, advisory."""

    def __init__(self, options: FidOptions) -> None:
        """Create the metric; weights and reference are searched for when they are needed."""
        self._options = options

    @property
    def card(self) -> MetricSpec:
        """Return the spec without weights and reference."""
        return MetricSpec(
            name="fid",
            direction="lower",
            track="absolute",
            needs_reference=False,
            unit="FID",
            weights_digest="",
            licence=LICENCE,
            description=f"Fréchet Inception distance of a cell's images to {self._options.reference or 'a reference'}",
            advisory=True,
            bounds=(0.0, None),
            weights=self._options.weights or _URL,
            commercial=True,
        )

    @property
    def spec(self) -> MetricSpec:
        """Properties with the digest of the weights.

        Raises:
            UsageError: If there is no reference, or the weights cannot be downloaded.
        """
        reference_files(self._options.reference)
        return replace(self.card, weights_digest=digest_file(self._weights()))

    def weights_here(self) -> bool:
        """Return whether the Inception weights are in a cache."""
        return self._options.weights is not None or weights_cached(_URL)

    def score_set(self, images: ImageSet, indices: Sequence[int], on_progress: Callable[[int], None]) -> SetOutcome:
        """Return the FID of the images at `indices` to the reference, with a note on the number of images."""
        count = len(indices)
        if count < _FEWEST:
            return SetOutcome(value=None, reason_unscored=f"{count} images: a covariance needs {_FEWEST}")
        extractor = _extractor(self._weights(), resolve_device(self._options.device, "fid"))
        own = _moments(extractor, (images.images(i) for i in indices), self._options.batch_size, on_progress)
        reference = _reference(self._options.reference, extractor, self._options.batch_size)
        value = frechet_distance(own, reference)
        if not np.isfinite(value):
            return SetOutcome(value=None, reason_unscored=f"the value of fid is {value}")
        return SetOutcome(value=value, notes=tuple(_notes(count, reference.count)))

    def _weights(self) -> Path:
        if self._options.weights is None:
            return fetch_weights(_URL, sha256=_SHA256, licence=LICENCE, metric="fid")
        file = at_home(self._options.weights)
        if not file.is_file():
            raise UsageError(f"metric fid: option weights = {self._options.weights!r}: no such file")
        return file


def gaussian_of(features: NDArray[np.float64]) -> Gaussian:
    """Return mean and unbiased covariance of (n, d) features."""
    count, size = features.shape
    mean = features.mean(0)
    scaled = (features - mean) / np.sqrt(count - 1)
    root = scaled.T if count <= size else np.asarray(np.linalg.qr(scaled, mode="r")).T
    return Gaussian(mean=mean, root=root, count=count)


def gaussian_from(mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> Gaussian:
    """Return moments from a mean (d,) and a covariance (d, d)."""
    values, vectors = np.linalg.eigh(covariance)
    return Gaussian(mean=mean, root=vectors * np.sqrt(np.clip(values, 0, None)), count=None)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return the FID of two Gaussians.

    With Σ₁ = FFᵀ and Σ₂ = GGᵀ the eigenvalues of Σ₁Σ₂ are the squared singular values of GᵀF, so tr (Σ₁Σ₂)^½ is the sum
    of these. This avoids the root of a product that is not symmetric and, for few images, not of full rank.

    Raises:
        UsageError: If they have different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise UsageError(f"metric fid: the reference has {b.mean.size} features, must be {a.mean.size}")
    difference = a.mean - b.mean
    cross = np.linalg.svd(b.root.T @ a.root, compute_uv=False).sum()
    return float(difference @ difference + (a.root**2).sum() + (b.root**2).sum() - 2 * cross)


def reference_files(reference: str) -> list[Path]:
    """Return the images of the reference folder, sorted, or the file of moments.

    Raises:
        UsageError: If there are neither images nor moments.
    """
    if not reference:
        raise UsageError("metric fid: option reference is missing: a folder of images, or an .npz with mu and sigma")
    path = at_home(reference)
    if path.is_file() and path.suffix == ".npz":
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _PICTURES) if path.is_dir() else []
    if len(files) < _FEWEST:
        raise UsageError(f"metric fid: option reference = {reference!r}: neither an .npz file nor a folder with images")
    return files


def _notes(count: int, reference_count: int | None) -> Iterator[str]:
    for what, n in (("images", count), ("reference images", reference_count)):
        if n is not None and n < _FULL_RANK:
            yield f"{n} {what}: fewer than features (2048), the value is mostly bias; do not use it for comparisons"
        elif n is not None and n < _USUAL:
            yield f"{n} {what}: FID is biased upwards below about {_USUAL:,}"


def _moments(
    extractor: Any, pictures: Iterator[Images], batch_size: int, on_progress: Callable[[int], None]
) -> Gaussian:
    features = []
    batch: list[Images] = []

    def flush() -> None:
        if batch:
            features.append(_extracted(extractor, batch))
            on_progress(len(batch))
            batch.clear()

    for picture in pictures:
        if batch and (len(batch) == batch_size or picture.shape != batch[0].shape):
            flush()
        batch.append(picture)
    flush()
    return gaussian_of(np.concatenate(features))


def _extracted(extractor: Any, batch: list[Images]) -> NDArray[np.float64]:
    """Return features of a batch, in halves if it does not fit into memory."""
    features: NDArray[np.float64] | None = within_memory(lambda: extractor(list(batch)))
    if features is not None:
        return features
    if len(batch) == 1:
        raise MemoryError("out of memory even for a single image")
    middle = len(batch) // 2
    return np.concatenate([_extracted(extractor, half) for half in (batch[:middle], batch[middle:])])


@kept
def _reference(reference: str, extractor: Any, batch_size: int) -> Gaussian:
    files = reference_files(reference)
    if files[0].suffix == ".npz":
        try:
            with np.load(files[0]) as moments:  # no pickles by default
                mean, covariance = moments["mu"].astype(np.float64), moments["sigma"].astype(np.float64)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UsageError(f"metric fid: {files[0]} does not contain mu and sigma: {first_line(error)}") from error
        return gaussian_from(mean, covariance)
    return _moments(extractor, (_opened(file) for file in files), batch_size, lambda count: None)


@kept
def _extractor(weights: Path, device: str) -> Callable[[list[Images]], NDArray[np.float64]]:
    """Return (n, 2048) features of images of one size, each (h, w, 3) uint8."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    load_tensors(weights, "fid")  # checked here, because torch-fidelity unpickles any file
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", [_FEATURES], str(weights)).to(device)
    except (RuntimeError, KeyError) as error:
        raise UsageError(f"metric fid: {weights}: not weights of the FID Inception: {first_line(error)}") from error

    def extract(pictures: list[Images]) -> NDArray[np.float64]:
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device)
        with torch.inference_mode():
            features: NDArray[np.float64] = network(pixels)[0].double().cpu().numpy()
        return features

    return extract


def _opened(file: Path) -> Images:
    from PIL import Image

    with Image.open(file) as picture:
        return np.array(picture.convert("RGB"))


def fid(options: dict[str, Any]) -> Fid:
    """Factory of the metric `fid`; see `FidOptions`."""
    return Fid(read_options(FidOptions, "fid", options))
