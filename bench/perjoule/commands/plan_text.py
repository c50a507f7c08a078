"""The forecast for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perjoule.commands.tables import text_table
from perjoule.forecast.forecasting import CellForecast, Forecast
from perjoule.forecast.records import Effect, Projection


def as_text(found: Forecast) -> str:
    """A head, the cells, where the joules come from, the detectable differences."""
    parts = ["\n".join(_head(found)), text_table([_cell(cell) for cell in found.cells]), "\n".join(_sources(found))]
    parts.append("minimal detectable effect, one cell against another (one-sided 5 %, four cases of five)")
    parts[-1] += "\n" + text_table([_effect(effect) for effect in found.effects])
    parts += [f"note: {note}" for note in found.notes]
    return "\n\n".join(part for part in parts if part)


def _head(found: Forecast) -> Iterator[str]:
    yield (
        f"{found.suite}: {found.prompts} prompts × {found.seeds} seeds × {len(found.cells)} cells × "
        f"{found.blocks} blocks = {found.images} images in {found.trials} trials,"
    )
    adaptive = sum(cell.evaluations is None for cell in found.cells)
    yield (
        f"{found.evaluations:,} denoiser evaluations{f' and those of {adaptive} adaptive cells' if adaptive else ''}, "
        f"at most {found.disk_bytes_at_most / 2**20:,.0f} MiB of images; scored by {', '.join(found.metrics)}"
    )
    if found.energy_j is None or found.energy_kwh is None:
        yield "energy: not known, see the reasons below; --calibrate meters a few images"
    else:
        rest = f", without {found.unpriced} cells of which nothing is known" if found.unpriced else ""
        yield f"energy, ESTIMATED: {_span(found.energy_j)} J = {_span(found.energy_kwh)} kWh{rest}"
    if found.duration_s is None:
        yield "time: not known"
    else:
        more = "; loading, warm-up and scoring come on top"
        yield f"time, ESTIMATED: {_span(found.duration_s.times(1 / 60))} minutes of windows and rests{more}"


def _cell(cell: CellForecast) -> dict[str, Any]:
    each, whole, lasts = cell.energy_j_per_image, cell.energy_j, cell.duration_s
    return {
        "cell": cell.cell_id,
        "steps": cell.steps,
        "trials": cell.trials,
        "images": cell.images,
        "evaluations": cell.evaluations,
        "J/image": each.value if each else None,
        "from": each.low if each else None,
        "to": each.high if each else None,
        "J": whole.value if whole else None,
        "s": lasts.value if lasts else None,
        "published": f"{cell.anchor.energy_j_per_image:.4g}" if cell.anchor else None,
    }


def _sources(found: Forecast) -> Iterator[str]:
    """Each source, and each reason for a gap, with the cells it is about."""
    said: dict[str, list[str]] = {}
    for cell in found.cells:
        if cell.energy_j_per_image is None:
            text = f"no joules: {cell.reason}"
        else:
            kind = "judged range" if cell.energy_j_per_image.level is None else "95 % interval"
            text = f"estimated ({kind}) from {cell.rests_on} joules ({cell.boundary}): {cell.source}"
            text += f"; {cell.reason}" if cell.reason else ""
        said.setdefault(text, []).append(cell.cell_id)
    for text, cells in said.items():
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


def _span(found: Projection) -> str:
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"
