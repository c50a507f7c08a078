"""ColorVideoVDP: perceived difference between an image and its reference, in just-objectionable differences (JOD).

Mantiuk et al., ACM TOG 2024, arXiv:2401.11485; package `cvvdp`, MIT. 10 JOD means no visible difference, 9 a difference
that three people in four would object to. It models a display and a viewing distance, so a score depends on them: the
display gives luminance and room light, `pixels_per_degree` gives the size on the retina. The default is a
24-inch full-HD monitor at twice its height, 37.8 pixels per degree and one image pixel per screen pixel. A 64 px image
is then 1.7 degrees wide; fewer pixels per degree enlarge the image and make the metric stricter.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.errors import UnknownNameError, UsageError
from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.keeping import kept
from perjoule.quality.options import read_options, resolve_device
from perjoule.quality.references import Pair, compare
from perjoule.types import MetricSpec, Score
from perjoule.weights.digests import digest_files

BEST_JOD = 10.0
_SMALLEST_SIDE_PX = 4  # two levels of the contrast pyramid


@dataclass(frozen=True, slots=True, kw_only=True)
class CvvdpOptions:
    """Options of `cvvdp`.

    Attributes:
        display: A display of ColorVideoVDP with sRGB input; gives luminance, contrast and room light.
        pixels_per_degree: Image pixels per degree of visual angle.
        device: `auto` or a torch device.
        batch_size: Images per pass.
    """

    display: str = "standard_fhd"
    pixels_per_degree: float = 37.84
    device: str = "auto"
    batch_size: int = 16


class Cvvdp:
    """The metric `cvvdp`."""

    def __init__(self, options: CvvdpOptions) -> None:
        """Create the metric. Raises UnknownNameError for an unknown display, UsageError for an invalid option."""
        known = _srgb_displays()
        if options.display not in known:
            raise UnknownNameError("sRGB display", options.display, known, "metric cvvdp: option display")
        if not 1 <= options.pixels_per_degree <= 1000:
            raise UsageError(
                f"metric cvvdp: option pixels_per_degree = {options.pixels_per_degree!r}: must be between 1 and 1000"
            )
        self._options = options

    @property
    def card(self) -> MetricSpec:
        """Return the spec with display, pixels per degree and package version, on which a JOD depends."""
        return MetricSpec(
            name="cvvdp",
            direction="higher",
            track="fidelity",
            needs_reference=True,
            unit="JOD",
            weights_digest="",
            licence="MIT",
            description=(
                f"ColorVideoVDP {version('cvvdp')} against the longest run of the same model, prompt and seed, "
                f"whose own value is 10 by definition; display {self._options.display}, "
                f"{self._options.pixels_per_degree:g} pixels per degree"
            ),
            advisory=False,
            bounds=(None, BEST_JOD),  # far apart, the scale goes below 0
            weights="package cvvdp",
            commercial=True,
            margin=0.15,
            scale="1 JOD: 75 of 100 people prefer the better image; 0.15: 54 of 100",
        )

    @property
    def spec(self) -> MetricSpec:
        """Properties with the digest of the package's parameters."""
        return replace(self.card, weights_digest=digest_files(_data_folder().glob("*.json")))

    def weights_here(self) -> bool:
        """Return True: the parameters are part of the package."""
        return True

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return JOD per image; 10 for a reference, unscored without a reference or if the sizes differ."""
        device = resolve_device(self._options.device, "cvvdp")
        model = _model(self._options.display, float(self._options.pixels_per_degree), device)

        def judge(batch: range) -> Sequence[Outcome]:
            return _judge(model, images, batch)

        return score_in_batches(images, "cvvdp", self._options.batch_size, judge, on_progress)


def _judge(model: Any, images: ImageSet, batch: range) -> list[Outcome]:
    def judge(pairs: list[Pair]) -> list[float]:
        return _predict(model, np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    return compare(images, batch, BEST_JOD, judge, smallest_px=_SMALLEST_SIDE_PX)


def _predict(model: Any, tests: Images, references: Images) -> list[float]:
    """Return n JOD of two (n, h, w, 3) uint8 arrays."""
    import torch

    with torch.inference_mode():
        jod, _ = model.predict(tests, references, dim_order="BHWC")
    return [float(value) for value in np.atleast_1d(jod.cpu().numpy())]


@kept
def _model(display: str, pixels_per_degree: float, device: str) -> Any:
    import torch

    with _quiet("torch.utils.cpp_extension"):
        import pycvvdp
    # with a fixed pixels per degree the display's resolution is not used
    geometry = pycvvdp.vvdp_display_geometry([1920, 1080], ppd=pixels_per_degree)
    return pycvvdp.cvvdp(display_name=display, display_geometry=geometry, quiet=True, device=torch.device(device))


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Silence a logger: pycvvdp's import loads torch's compiler support, which warns of a missing GPU."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@cache
def _data_folder() -> Path:
    # found without importing: the import takes seconds, and the displays are needed when a suite is checked
    spec = importlib.util.find_spec("pycvvdp")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'pycvvdp'", name="pycvvdp")
    return Path(spec.origin).parent / "vvdp_data"


@cache
def _srgb_displays() -> tuple[str, ...]:
    displays = json.loads((_data_folder() / "display_models.json").read_text(encoding="utf-8"))
    return tuple(name for name, model in displays.items() if model.get("colorspace", "sRGB") == "sRGB")


def cvvdp(options: dict[str, Any]) -> Cvvdp:
    """Factory of the metric `cvvdp`; see `CvvdpOptions`."""
    return Cvvdp(read_options(CvvdpOptions, "cvvdp", options))
