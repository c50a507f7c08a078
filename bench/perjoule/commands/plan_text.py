"""The forecast for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from perjoule.commands.tables import work_column, work_unit
from perjoule.display import duration, memory, scale
from perjoule.forecast.forecasting import CellForecast, Forecast
from perjoule.forecast.records import Effect, Projection
from perjoule.text_table import text_table
from perjoule.types.price import Halving

# columns that a narrow terminal leaves out, the first ones first
_LEAST = ("published", "evaluations", "images", "TFLOP/image", "GFLOP/image", "FLOP/image", "trials", ("from", "to"))
_LEAST_OF_EFFECTS = ("unit", "in sd")
_MOST_SIZES = 3


def as_text(forecast: Forecast, width: int | None = None) -> str:
    """A head, the cells, where the joules come from, the detectable differences."""
    unit = work_unit(cell.flops_per_image for cell in forecast.cells)
    cells = text_table([_cell(cell, unit) for cell in forecast.cells], width, _LEAST)
    effects = text_table([_effect(effect) for effect in forecast.effects], width, _LEAST_OF_EFFECTS)
    question = "minimal detectable effect, one cell against another (one-sided 5 %, four cases of five)"
    notes = [f"note: {note}" for note in forecast.notes]
    parts = [
        _filled(_head(forecast), width),
        cells,
        _filled(_sources(forecast), width),
        f"{_filled([question], width)}\n{effects}",
        *(_filled([note], width) for note in notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _filled(sentences: Iterable[str], width: int | None) -> str:
    """Return sentences on lines of their own, wrapped for a terminal."""
    return "\n".join(one if width is None else textwrap.fill(one, width) for one in sentences)


def _head(forecast: Forecast) -> Iterator[str]:
    yield (
        f"{forecast.suite}: {forecast.prompts} prompts × {forecast.seeds} seeds × {len(forecast.cells)} cells × "
        f"{forecast.blocks} blocks = {forecast.images} images in {forecast.trials} trials,"
    )
    adaptive = sum(cell.evaluations is None for cell in forecast.cells)
    others = f" and those of {adaptive} adaptive cells" if adaptive else ""
    yield (
        f"{forecast.evaluations:,} denoiser evaluations{others}; {_disk(forecast)}; "
        f"scored by {', '.join(forecast.metrics)}"
    )
    if (selection := forecast.selection) is not None:
        largest = selection.largest_cosine
        pairs = "" if largest is None else f"; the two most similar have a cosine of {largest:.3f}"
        yield (
            f"prompts: {forecast.prompts} of {selection.candidates:,} by {selection.method} ({selection.model}, seed "
            f"{selection.seed}){pairs}"
        )
    if forecast.energy_j is None or forecast.energy_kwh is None:
        yield "energy: not known, see the reasons below; --calibrate meters a few images"
    else:
        rest = f", without {forecast.unpriced} cells of which nothing is known" if forecast.unpriced else ""
        unit = scale([forecast.energy_j.value], "J")
        energy = _span(forecast.energy_j.times(1 / unit.factor))
        yield f"energy, ESTIMATED: {energy} {unit.unit} = {_span(forecast.energy_kwh)} kWh{rest}"
    if forecast.duration_s is None:
        yield (
            "time: not known, because nothing states seconds for these cells: --calibrate measures a few images, "
            "--from RUN takes the time of an earlier run"
        )
    else:
        more = "; loading, warm-up and scoring come on top"
        middle, low, high = (
            duration(s) for s in (forecast.duration_s.value, forecast.duration_s.low, forecast.duration_s.high)
        )
        yield f"time, ESTIMATED: {middle} [{low}, {high}] of windows and rests{more}"
    if (half := forecast.halving) is not None:
        middles = [None if one is None else one.value for one in (half.energy_j, half.duration_s)]
        words = Halving(energy_j=middles[0], duration_s=middles[1], shrinks=half.shrinks).words
        yield f"price of certainty, ESTIMATED: {words[0].lower()}{words[1:]}"


def _disk(forecast: Forecast) -> str:
    """Return e.g. `about 6.6 MiB, at most 14 MiB, of images of 64 × 64 px`."""
    sizes = [f"{width} × {height}" for width, height in forecast.image_sizes]
    of = f" of {' and '.join(sizes)} px" if len(sizes) <= _MOST_SIZES else f" of {len(sizes)} sizes"
    most = f"at most {memory(forecast.disk_bytes_at_most)}"
    if forecast.disk_bytes is None:
        return f"{most} of images{of}"
    return f"about {memory(forecast.disk_bytes)}, {most}, of images{of}"


def _cell(cell: CellForecast, unit: tuple[str, float] | None) -> dict[str, Any]:
    each, whole, lasts = cell.energy_j_per_image, cell.energy_j, cell.duration_s
    return {
        "cell": cell.cell_id,
        "steps": cell.steps,
        "trials": cell.trials,
        "images": cell.images,
        "evaluations": cell.evaluations,
        **work_column(cell.flops_per_image, unit),
        "J/image": each.value if each else None,
        "from": each.low if each else None,
        "to": each.high if each else None,
        "J": whole.value if whole else None,
        "s": lasts.value if lasts else None,
        "published": f"{cell.anchor.energy_j_per_image:.4g}" if cell.anchor else None,
    }


def _sources(forecast: Forecast) -> Iterator[str]:
    """Each source, and each reason for a gap, with the cells it is about."""
    cells_by_source: dict[str, list[str]] = {}
    for cell in forecast.cells:
        if cell.energy_j_per_image is None:
            text = f"no joules: {cell.reason}"
        else:
            kind = "judged range" if cell.energy_j_per_image.level is None else "95 % interval"
            text = f"estimated ({kind}) from {cell.rests_on} joules ({cell.boundary}): {cell.source}"
            text += f"; {cell.reason}" if cell.reason else ""
        cells_by_source.setdefault(text, []).append(cell.cell_id)
    for text, cells in cells_by_source.items():
        yield f"{_some(cells)}: {text}"


def _some(cells: list[str]) -> str:
    return ", ".join(cells) if len(cells) <= 4 else f"{', '.join(cells[:3])} and {len(cells) - 3} more"


def _effect(effect: Effect) -> dict[str, Any]:
    mde = None if effect.mde is None else f"{effect.mde:.2%}" if effect.unit == "relative" else f"{effect.mde:.4g}"
    return {
        "axis": effect.axis,
        "n": effect.n,
        "MDE": mde,
        "unit": effect.unit,
        "in sd": effect.mde_in_sd,
        "because": effect.source or effect.reason,
    }


def _span(projection: Projection) -> str:
    return f"{projection.value:.4g} [{projection.low:.4g}, {projection.high:.4g}]"
