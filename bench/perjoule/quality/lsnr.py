"""L-SNR, the Laplacian signal-to-noise ratio: edge energy relative to noise, without a reference.

BudgetFusion (arXiv:2412.05780) names such a metric, but its formula was not found. These are three provisional
definitions of ours, and none of them is "the paper's L-SNR". All three use only luminance and its Laplacian,

    Y = 0.299 R + 0.587 G + 0.114 B in [0, 1]         L = Y * [[0, 1, 0], [1, -4, 1], [0, 1, 0]], mirrored borders

    a        10 lg( Var(L) / (1.4826 MAD(L))² )     edge energy over the robust noise floor; Gaussian noise: 0 dB
    b        10 lg( Var(Y) / (Var(L) / 20 + eps) )  the Laplacian as a white-noise estimator: its squares sum to 20
    lap_var  Var(L)                                 plain sharpness; noise counts as sharpness

`a` and `b` do not change with contrast, so `a` hardly changes with a uniform blur; `lap_var` grows with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import UnknownNameError
from perjoule.protocols import Images, ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.options import read_options
from perjoule.types import MetricSpec, Score

_EPS = 1e-12  # far below the 3e-8 variance of the smallest step of an 8-bit image, so it does not change a score


def luminance(image: Images) -> NDArray[np.float64]:
    """Return Rec. 601 luma of an image. (h, w, 3) uint8 -> (h, w) float64 in [0, 1]."""
    y: NDArray[np.float64] = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255
    return y


def laplacian(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 4-neighbour Laplacian with mirrored borders (the edge pixel is not repeated). (h, w) -> (h, w)."""
    p = np.pad(y, 1, mode="reflect")
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * y


def lsnr_a(y: NDArray[np.float64]) -> float:
    """Return edge energy over the robust noise floor, in dB. y: (h, w) luminance.

    Raises:
        ValueError: If more than half of the Laplacian is one value, so that there is no noise floor.
    """
    edges = laplacian(y)
    spread = 1.4826 * float(np.median(np.abs(edges - np.median(edges))))
    if spread <= _rounding(y):
        raise ValueError("at least half of the image is exactly flat: L-SNR a has no noise floor")
    return float(10 * np.log10(edges.var() / spread**2))


def lsnr_b(y: NDArray[np.float64]) -> float:
    """Return luminance variance over the white noise estimated from the Laplacian, in dB. y: (h, w) luminance.

    Raises:
        ValueError: If the image is flat.
    """
    signal = float(y.var())
    if signal <= _rounding(y) ** 2:
        raise ValueError("the image is flat: L-SNR b has no signal")
    return float(10 * np.log10(signal / (laplacian(y).var() / 20 + _EPS)))


def lap_var(y: NDArray[np.float64]) -> float:
    """Return the variance of the Laplacian. y: (h, w) luminance.

    Raises:
        ValueError: If the image is flat.
    """
    sharpness = float(laplacian(y).var())
    if sharpness <= _rounding(y) ** 2:
        raise ValueError("the image is flat: its Laplacian has no variance")
    return sharpness


def _rounding(y: NDArray[np.float64]) -> float:
    # equal pixels differ by a few ulp after the weighted sum; a smaller spread is due to rounding
    return 64 * float(np.finfo(np.float64).eps) * max(float(np.abs(y).max(initial=0.0)), 1e-300)


@dataclass(frozen=True, slots=True)
class _Definition:
    formula: Callable[[NDArray[np.float64]], float]
    unit: str
    words: str
    low: float | None


_DEFINITIONS = {
    "a": _Definition(lsnr_a, "dB", "Laplacian edge energy over its robust noise floor", None),
    "b": _Definition(lsnr_b, "dB", "luminance variance over the white noise estimated from the Laplacian", None),
    "lap_var": _Definition(lap_var, "luminance²", "variance of the Laplacian of luminance in [0, 1]", 0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LsnrOptions:
    """Options of `lsnr`. definition: `a`, `b` or `lap_var`."""

    definition: str = "a"


class Lsnr:
    """The metric `lsnr`."""

    def __init__(self, options: LsnrOptions) -> None:
        """Create the metric. Raises UnknownNameError for an unknown definition."""
        if options.definition not in _DEFINITIONS:
            raise UnknownNameError("definition", options.definition, _DEFINITIONS, "metric lsnr")
        self._name = options.definition
        self._definition = _DEFINITIONS[options.definition]

    @property
    def spec(self) -> MetricSpec:
        """Properties of the metric; it is advisory, because sharpness is not quality and a noisy image can be sharp."""
        return MetricSpec(
            name="lsnr",
            direction="higher",
            track="sharpness",
            needs_reference=False,
            unit=self._definition.unit,
            weights_digest="none",
            licence="Apache-2.0",
            description=f"{self._definition.words} (provisional definition {self._name}, not the paper's)",
            advisory=True,
            bounds=(self._definition.low, None),
            commercial=True,
        )

    @property
    def card(self) -> MetricSpec:
        """Return the spec: the metric has no weights."""
        return self.spec

    def weights_here(self) -> bool:
        """Return True: the metric has no weights."""
        return True

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one score per image; flat images are unscored with a reason."""

        def judge(batch: range) -> Sequence[Outcome]:
            return [self._judge(images.images(index)) for index in batch]

        return score_in_batches(images, "lsnr", 1, judge, on_progress)

    def _judge(self, image: Images) -> Outcome:
        try:
            return self._definition.formula(luminance(image))
        except ValueError as error:
            return str(error)


def lsnr(options: dict[str, Any]) -> Lsnr:
    """Factory of the metric `lsnr`; see `LsnrOptions`."""
    return Lsnr(read_options(LsnrOptions, "lsnr", options))
