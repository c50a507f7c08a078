"""LPIPS: distance between the features of a classifier for an image and for its reference.

Zhang et al., CVPR 2018, arXiv:1801.03924; package `lpips` (BSD-2-Clause), which contains the linear heads v0.1. The
backbone has torchvision's ImageNet weights. 0 is identical, lower is better. The authors recommend `alex` for metrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.errors import UnknownNameError, UsageError
from perjoule.files import at_home
from perjoule.protocols import ImageSet
from perjoule.quality.batches import Outcome, score_in_batches
from perjoule.quality.keeping import kept
from perjoule.quality.options import read_options, resolve_device
from perjoule.quality.references import Pair, compare
from perjoule.quality.weights import digest_state, fetch_weights, load_tensors, weights_cached
from perjoule.types import MetricSpec, Score

LICENCE = "BSD-2-Clause AND BSD-3-Clause"  # lpips, torchvision
# torchvision's addresses; the eight digits in a name are the first of the file's SHA-256
_BACKBONES = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "squeeze": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
}
_SMALLEST_SIDE_PX = 32  # smaller images are empty after the last pooling of a backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class LpipsOptions:
    """Options of `lpips`.

    Attributes:
        net: Backbone: `alex`, `vgg` or `squeeze`; each has a different scale.
        weights: File with a torchvision state dict of that backbone; None downloads torchvision's.
        device: `auto` or a torch device.
        batch_size: Images per pass.
    """

    net: str = "alex"
    weights: str | None = None
    device: str = "auto"
    batch_size: int = 16


class Lpips:
    """The metric `lpips`."""

    def __init__(self, options: LpipsOptions) -> None:
        """Create the metric. Raises UnknownNameError for an unknown backbone."""
        if options.net not in _BACKBONES:
            raise UnknownNameError("backbone", options.net, _BACKBONES, "metric lpips: option net")
        self._options = options

    @property
    def card(self) -> MetricSpec:
        """Return the spec without a digest of the backbone's weights."""
        return MetricSpec(
            name="lpips",
            direction="lower",
            track="fidelity",
            needs_reference=True,
            unit="LPIPS",
            weights_digest="",
            licence=LICENCE,
            description=(
                f"LPIPS v0.1 ({self._options.net}, package lpips {version('lpips')}) against the longest run of the "
                "same model, prompt and seed, whose own value is 0 by definition"
            ),
            advisory=False,
            bounds=(0.0, None),
            weights=self._options.weights or _BACKBONES[self._options.net],
            commercial=True,
            margin=0.02,
            scale="0: the same image; 0.02 is a provisional choice",
        )

    @property
    def spec(self) -> MetricSpec:
        """Properties with the digest of backbone and heads."""
        return replace(self.card, weights_digest=self._loaded("cpu")[1])

    def weights_here(self) -> bool:
        """Return whether the backbone's weights are in a cache."""
        return self._options.weights is not None or weights_cached(_BACKBONES[self._options.net])

    def score(self, images: ImageSet, on_progress: Callable[[int], None]) -> list[Score]:
        """Return one distance per image; 0 for a reference, unscored without a reference or if the sizes differ."""
        import torch

        device = resolve_device(self._options.device, "lpips")
        model, _ = self._loaded(device)

        def tensor(pictures: Sequence[Any]) -> Any:
            return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1

        def distances(pairs: list[Pair]) -> list[float]:
            with torch.inference_mode():
                values = model(tensor([p[0] for p in pairs]), tensor([p[1] for p in pairs]))
            return [float(value) for value in values.flatten().cpu()]

        def judge(batch: range) -> Sequence[Outcome]:
            return compare(images, batch, 0.0, distances, smallest_px=_SMALLEST_SIDE_PX)

        return score_in_batches(images, "lpips", self._options.batch_size, judge, on_progress)

    def _loaded(self, device: str) -> tuple[Any, str]:
        net, own = self._options.net, self._options.weights
        if own is not None:
            file = at_home(own)
            if not file.is_file():
                raise UsageError(f"metric lpips: option weights = {own!r}: no such file")
        else:
            url = _BACKBONES[net]
            digits = Path(url).stem.rpartition("-")[2]
            file = fetch_weights(url, sha256=digits, licence=LICENCE, metric="lpips")
        return _load(net, file, device)


@kept
def _load(net: str, file: Path, device: str) -> tuple[Any, str]:
    """Return the network on a device, and its digest."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it uses deprecated arguments of torchvision
        # the package would download the backbone itself, without checking a digest and even with --offline
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    state = load_tensors(file, "lpips")
    # `slice1.0.weight` is `features.0.weight` of torchvision
    wanted = {name: "features." + name.partition(".")[2] for name in model.net.state_dict()}
    missing = sorted(set(wanted.values()) - set(state))
    if missing:
        raise UsageError(f"metric lpips: {file} does not contain torchvision's {net}: {missing[0]} is missing")
    try:
        model.net.load_state_dict({name: state[source] for name, source in wanted.items()})
    except RuntimeError as error:
        raise UsageError(f"metric lpips: {file} does not contain torchvision's {net}: {error}") from error
    return model.to(device), digest_state(model.state_dict())


def lpips(options: dict[str, Any]) -> Lpips:
    """Factory of the metric `lpips`; see `LpipsOptions`."""
    return Lpips(read_options(LpipsOptions, "lpips", options))
