"""Recognises the columns of a foreign table by their names: spellings, units, and `quality:<metric>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perjoule.errors import UsageError

QUALITY = "quality:"
IDENTIFIERS = (
    "variant", "prompt_id", "prompt", "role", "policy", "provenance", "boundary", "family", "device", "model",
    "category", "challenge",
)  # fmt: skip
WHOLE_NUMBERS = ("seed", "steps", "batch_size", "block", "n")
NUMBERS = ("energy_j", "duration_s", "uncertainty_j", "nfe_per_image", "flops_per_image")
COLUMNS = (*IDENTIFIERS, *WHOLE_NUMBERS, *NUMBERS)
# other spellings of these columns, in lower case and with _ for spaces
_SPELLINGS = {
    "energy_j_per_image": "energy_j",
    "duration_s_per_image": "duration_s",
    "num_inference_steps": "steps",
    "nfe": "nfe_per_image",
    "flops": "flops_per_image",
    "repeat": "block",
    "repetition": "block",
    "round": "block",
    "n_images": "n",
    "image_count": "n",
}
# unit -> its value in SI as numerator and denominator; spelled as in SI
_ENERGY_UNITS = {
    "J": (1, 1), "kJ": (1_000, 1), "mJ": (1, 1_000), "MJ": (1_000_000, 1), "uJ": (1, 1_000_000), "µJ": (1, 1_000_000),
    "Ws": (1, 1), "Wh": (3_600, 1), "kWh": (3_600_000, 1), "mWh": (18, 5), "MWh": (3_600_000_000, 1),
    "joule": (1, 1), "joules": (1, 1),
}  # fmt: skip
_TIME_UNITS = {
    "s": (1, 1), "sec": (1, 1), "seconds": (1, 1), "ms": (1, 1_000), "us": (1, 1_000_000), "µs": (1, 1_000_000),
    "min": (60, 1), "minutes": (60, 1), "h": (3_600, 1), "hours": (3_600, 1),
}  # fmt: skip
_QUANTITIES = {
    "energy": ("energy_j", _ENERGY_UNITS),
    "uncertainty": ("uncertainty_j", _ENERGY_UNITS),
    "duration": ("duration_s", _TIME_UNITS),
}
_WITH_UNIT = re.compile(
    r"(energy|uncertainty|duration)(?:[\s_]*[(\[]\s*|[\s_-]+)([^\s()\[\]_]+)\s*[)\]]?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a foreign table: its name as written, our name or None, and its unit in SI as a fraction."""

    written: str
    name: str | None
    unit: str = ""
    scale: tuple[int, int] = (1, 1)


def columns_of(names: Sequence[str], path: Path, further: Sequence[str] = ()) -> list[Column]:
    """Recognise the columns of a table; `further` are names that this table may have in addition to `COLUMNS`.

    Raises:
        UsageError: If two columns are the same, or the unit of a required column is unknown.
    """
    columns = [column_of(name, path, further) for name in names]
    written_as: dict[str, str] = {}
    for column in columns:
        if column.name is None:
            continue
        if column.name in written_as:
            problem = "duplicate columns" if written_as[column.name] == column.written else "mixed units or spellings"
            raise UsageError(
                f"{path}: {written_as[column.name]} and {column.written} both give {column.name}: {problem}; "
                "keep one column"
            )
        written_as[column.name] = column.written
    return columns


def column_of(name: str, path: Path, further: Sequence[str] = ()) -> Column:
    """Recognise one column, e.g. `Energy (Wh)` as `energy_j`; raises UsageError if its unit is ambiguous."""
    text = name.strip().strip("\ufeff").strip()
    spelling = re.sub(r"[\s-]+", "_", text.casefold())
    spelling = _SPELLINGS.get(spelling, spelling)
    if spelling in COLUMNS or spelling in further:
        return Column(written=name, name=spelling)
    prefix, colon, metric = text.partition(":")
    if colon and prefix.strip().casefold() == "quality" and metric.strip():
        return Column(written=name, name=QUALITY + metric.strip())
    with_unit = _WITH_UNIT.fullmatch(text)
    if with_unit is None:
        return Column(written=name, name=None)
    target, units = _QUANTITIES[with_unit[1].casefold()]
    unit = with_unit[2].replace("\N{GREEK SMALL LETTER MU}", "µ")
    candidates = {known for known in units if known.casefold() == unit.casefold()}
    if not candidates:
        return Column(written=name, name=None)
    # mJ is milli and MJ mega; mj, or a name in capitals, is ambiguous
    if len(candidates) > 1 and (unit not in candidates or text.isupper()):
        quantity = with_unit[1].lower()
        low, high = sorted(candidates, reverse=True)
        raise UsageError(
            f"{path}: column {text}: {low} (milli) or {high} (mega)? Name it {quantity}_{low} or {quantity}_{high}, or "
            f"convert it to {target}"
        )
    return Column(written=name, name=target, unit=unit, scale=units[unit if unit in units else candidates.pop()])


def without_unit(names: Iterable[str]) -> list[str]:
    """Return columns of energy without a unit or with an unknown unit."""
    return [name for name in names if re.match(r"\s*energy\b|\s*energy_", name, re.IGNORECASE)]
