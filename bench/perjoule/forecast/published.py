"""Prices and plausibility anchors from published joules (`published.toml`, a source in every row)."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from perjoule.forecast.nfe import evaluations, guided_calls
from perjoule.forecast.records import Anchor, Price, Projection
from perjoule.types import Cell, Variant

# share of an image's joules that does not come from its steps, at 20 steps and more: LCM Dreamshaper has the largest of
# the published series, 48 of 306 J at 25 steps
BASE_SHARE = 0.16
LEAST_STEPS = 20
# further off than this, something other than the settings is different
IMPLAUSIBLE = 5.0
_BOARDS = ("gpu-board", "gpu-module")
Figure = dict[str, Any]


def published_price(cell: Cell, device: str | None) -> Price:
    """What an image of the cell costs by published figures.

    Args:
        cell: One step count of a variant.
        device: GPU that the run is planned for; None if it is not known.
    """
    model = _model(cell.variant.model)
    if model is None:
        return Price(reason=f"no published figure for {cell.variant.model}: --calibrate, or --from an earlier run")
    if cell.steps is None:
        return Price(reason="the step policy decides when it sees the prompt: --calibrate, or --from an earlier run")
    figures = _series(model, device)
    energy_j = _at(figures, "energy_j", calls_of(cell))
    duration_s = _at(figures, "duration_s", calls_of(cell))
    for low, high in _factors(cell, model, figures[0], device):
        energy_j = energy_j.widened(low, high) if energy_j else None
        duration_s = duration_s.widened(low, high) if duration_s else None
    return Price(
        energy_j=energy_j,
        duration_s=duration_s,
        reason="" if duration_s else f"no seconds were published with the joules of {model['name']}",
        source=_cited(figures),
        rests_on="measured",
        boundary="gpu-board",
    )


def own_side_px(model: str) -> int | None:
    """Width and height of the images that a known model draws by itself."""
    known = _model(model)
    return int(known["side_px"]) if known else None


def anchor(cell: Cell, energy_j: float, boundary: str | None) -> Anchor | None:
    """The nearest published figure for a cell; None if there is none, or if its joules cover something else."""
    model = _model(cell.variant.model)
    if model is None or cell.steps is None or boundary not in _BOARDS:
        return None
    figures = _series(model, None)
    expected = _at(figures, "energy_j", calls_of(cell))
    if expected is None:
        return None
    ratio = energy_j / expected.value
    remark = ""
    if not 1 / IMPLAUSIBLE <= ratio <= IMPLAUSIBLE:
        remark = (
            f"{cell.cell_id}: {energy_j:.4g} J/image is {ratio:.2g} times the {expected.value:.4g} J published for "
            f"{figures[0]['device']}: check board, dtype, size and meter"
        )
    return Anchor(
        energy_j_per_image=expected.value,
        device=str(figures[0]["device"]),
        source=_cited(figures),
        ratio=ratio,
        remark=remark,
    )


@cache
def tables() -> dict[str, Any]:
    """The file as it is."""
    return tomllib.loads(files("perjoule.forecast").joinpath("published.toml").read_text(encoding="utf-8"))


def _model(name: str) -> dict[str, Any] | None:
    for model in tables()["models"]:
        if name.lower() in (known.lower() for known in model["ids"]):
            same = model.get("figures_of")
            figures = model.get("figures") or next(m["figures"] for m in tables()["models"] if m["name"] == same)
            return {**model, "figures": figures}
    return None


def _series(model: dict[str, Any], device: str | None) -> list[Figure]:
    """The figures of one device: of this one if there are any, else of the device with the most."""
    by_device: dict[str, list[Figure]] = defaultdict(list)
    for figure in model["figures"]:
        by_device[figure["device"]].append(figure)
    if device in by_device:
        return by_device[device]
    return max(by_device.values(), key=len)


def _at(figures: Sequence[Figure], key: str, steps: int) -> Projection | None:
    """Joules or seconds at a step count: on the line through a series, or in proportion to a single figure."""
    known = [(figure["steps"], figure[key]) for figure in figures if key in figure]
    if not known:
        return None
    if len(known) > 1:
        import numpy as np

        from perjoule.statistics.lines import line_through

        value = line_through(np.array([n for n, _ in known]), np.array([v for _, v in known])).at(steps)
        return Projection(value=value, low=value, high=value, level=None)
    return proportional(*known[0], steps)


def proportional(steps: int, value: float, wanted: float) -> Projection:
    """From one step count to another, where the share that does not come from the steps is not known."""
    shares = (0.0, BASE_SHARE)
    low, high = sorted(value * (share + (1 - share) * wanted / steps) for share in shares)
    return Projection(value=(low + high) / 2, low=low, high=high, level=None)


def _factors(cell: Cell, model: dict[str, Any], figure: Figure, device: str | None) -> Iterator[tuple[float, float]]:
    """How far other settings may move the figure: (low, high) each."""
    spread, variant = tables()["spread"], cell.variant

    def of(name: str) -> tuple[float, float]:
        return spread[name]["low"], spread[name]["high"]

    yield of("same_device" if device == figure["device"] else "other_device")
    if variant.dtype == "float32" and figure["dtype"] != "float32":
        yield of("float32")
    if (cell.batch_size or 1) > 1:
        yield of("more_images_per_call")
    if model.get("pruned"):
        yield of("pruned")
    if variant.cache is not None:
        yield of("reused_between_steps")
    if is_guided(variant) != figure["guided"]:
        yield of("without_guidance" if figure["guided"] else "with_guidance")
    elif is_guided(variant) and variant.guidance_share < 1:
        # calls without guidance may cost as much as half of the others, or as much as they do
        yield evaluations_of(cell) / (2 * calls_of(cell)), 1.0
    ratio = _pixels(variant, model["side_px"]) / figure["side_px"] ** 2
    if ratio != 1:
        low, high = sorted(ratio**exponent for exponent in of("pixels"))
        yield low, high


def is_guided(variant: Variant) -> bool:
    """Return True if the denoiser works on two rows per call: guidance that is not embedded in the model."""
    if variant.guidance_mode != "auto":
        return variant.guidance_mode == "classifier-free" and variant.guidance > 1
    model = _model(variant.model)
    return variant.guidance > 1 and not (model or {}).get("embedded_guidance", False)


def calls_of(cell: Cell) -> int:
    """Calls of the denoiser for an image of a cell with fixed steps; what an image costs goes by them."""
    variant = cell.variant
    return evaluations(variant.scheduler, cell.steps or 0, variant.scheduler_args)


def evaluations_of(cell: Cell) -> int:
    """Evaluations in rows of the denoiser's batch for an image of a cell with fixed steps."""
    calls = calls_of(cell)
    return calls + (guided_calls(calls, cell.variant.guidance_share) if is_guided(cell.variant) else 0)


def _pixels(variant: Variant, side_px: int) -> int:
    return (variant.width_px or side_px) * (variant.height_px or side_px)


def _cited(figures: Sequence[Figure]) -> str:
    """One line for a series: the first source, the device, the step counts."""
    steps = ", ".join(str(figure["steps"]) for figure in figures)
    return f"published: {figures[0]['source']} ({figures[0]['device']}, {steps} steps)"
