"""Adapter for metrics of pyiqa as `pyiqa:NAME`; their properties are read from pyiqa's registry.

pyiqa is an extra because its licence, PolyForm-Noncommercial-1.0.0, is not for commercial use. Metrics of the
same name in other packages may differ: on one pair of 256 px images its `ssim` is .589, another package's .458.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from perjoule.errors import UnknownNameError, UsageError, first_line
from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import NO_REFERENCE, Outcome, score_in_batches
from perjoule.quality.keeping import kept
from perjoule.quality.options import read_options, resolve_device
from perjoule.quality.weights import digest_state
from perjoule.types import MetricSpec, Score

LICENCE = "PolyForm-Noncommercial-1.0.0"
# they score a folder of images, or need a caption, which pyiqa's registry does not record
_NOT_PER_IMAGE = {
    "FID": "sets of images",
    "InceptionScore": "sets of images",
    "CLIPScore": "a caption and an image",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PyiqaOptions:
    """Options of `pyiqa:NAME`. device: `auto` or a torch device."""

    device: str = "auto"


class PyiqaMetric:
    """One metric of pyiqa."""

    def __init__(self, name: str, entry: Mapping[str, Any], options: PyiqaOptions) -> None:
        """Create the metric. entry: pyiqa's registry entry of the metric."""
        self._pyiqa_name, self._entry, self._options = name, entry, options
        self._name = f"pyiqa:{name}"
        self._needs_reference = entry.get("metric_mode") == "FR"

    @property
    def spec(self) -> MetricSpec:
        """Properties of the metric; reading them loads the metric, because they include the weights' digest.

        Raises:
            UsageError: If pyiqa cannot load it, e.g. because weights cannot be downloaded.
        """
        return replace(self.card, weights_digest=digest_state(self._model.state_dict()))

    def weights_here(self) -> bool:
        """Return whether pyiqa is installed; it downloads weights by itself."""
        return is_installed()

    @property
    def card(self) -> MetricSpec:
        """Properties according to pyiqa's registry, without a digest of the weights."""
        reference = "; the longest run itself is scored against itself" if self._needs_reference else ""
        span = self._entry.get("score_range", "not stated")
        return MetricSpec(
            name=self._name,
            direction="lower" if self._entry.get("lower_better", False) else "higher",
            track="fidelity" if self._needs_reference else "absolute",
            needs_reference=self._needs_reference,
            unit=self._pyiqa_name,
            weights_digest="",
            licence=LICENCE,
            description=f"{self._pyiqa_name} of pyiqa {_version()}, range {span}{reference}",
            advisory=False,
            bounds=(None, None),  # according to the registry its ranges are rough estimates
            weights=f"package pyiqa {_version()}",
            commercial=False,
        )

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one score per image; images that pyiqa cannot score are unscored with pyiqa's reason."""
        model = self._model

        def judge(batch: range) -> Sequence[Outcome]:
            return [self._judge(model, images, index) for index in batch]

        # one by one, so that an image cannot change another image's score
        return score_in_batches(images, self._name, 1, judge, on_progress)

    def _judge(self, model: Any, images: ImageSet, index: int) -> Outcome:
        import torch

        pictures = [images.images(index)]
        if self._needs_reference:
            if images.reference_ids[index] is None:
                return NO_REFERENCE
            pictures.append(images.references(index))
        height, width = pictures[0].shape[:2]
        if any(picture.shape != pictures[0].shape for picture in pictures):
            return f"{width} x {height} px cannot be compared with a reference of another size"
        try:
            # some metrics use random crops
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(0)
                return float(torch.as_tensor(model(*map(_tensor, pictures))).reshape(()))
        except (RuntimeError, ValueError, IndexError, AssertionError, ZeroDivisionError) as error:
            return f"{self._pyiqa_name} cannot score {width} x {height} px: {first_line(error)}"

    @cached_property
    def _model(self) -> Any:
        import torch

        device = torch.device(resolve_device(self._options.device, self._name))
        return _create(self._pyiqa_name, device)


@kept
def _create(name: str, device: Any) -> Any:
    import pyiqa

    try:
        return pyiqa.create_metric(name, device=device)
    except Exception as error:  # each metric has its own download and constructor
        raise UsageError(f"metric pyiqa:{name} cannot be loaded: {first_line(error)}") from error


def pyiqa_metric(name: str, options: dict[str, Any]) -> PyiqaMetric:
    """Factory of `pyiqa:NAME`; see `PyiqaOptions`. Prints pyiqa's licence once on stderr.

    Raises:
        UsageError: If pyiqa is not installed, or the metric does not score single images.
        UnknownNameError: If pyiqa has no such metric.
    """
    checked = read_options(PyiqaOptions, f"pyiqa:{name}", options)
    try:
        from pyiqa.default_model_configs import DEFAULT_CONFIGS
    except ImportError as error:
        raise UsageError(
            f"metric pyiqa:{name}: pip install 'perjoule[pyiqa]' (licence {LICENCE}: not for commercial use)"
        ) from error
    if name not in DEFAULT_CONFIGS:
        raise UnknownNameError("metric of pyiqa", name, DEFAULT_CONFIGS, f"pyiqa:{name}")
    entry = DEFAULT_CONFIGS[name]
    wants = _NOT_PER_IMAGE.get(str(entry.get("metric_opts", {}).get("type", "")))
    if wants:
        raise UsageError(f"metric pyiqa:{name} scores {wants}, not a single image: not supported")
    _say_licence()
    return PyiqaMetric(name, entry, checked)


def is_installed() -> bool:
    """Return whether the extra is installed."""
    return importlib.util.find_spec("pyiqa") is not None


@cache
def _say_licence() -> None:
    print(f"pyiqa {_version()}: licence {LICENCE}, not for commercial use", file=sys.stderr)


def _version() -> str:
    try:
        return version("pyiqa")
    except PackageNotFoundError:
        return "of unknown version"


def _tensor(image: Images) -> Any:
    """(h, w, 3) uint8 -> (1, 3, h, w) float32 in [0, 1]."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
