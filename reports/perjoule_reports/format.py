"""Formats numbers and texts: with `perjoule.display`, all that scales units, chooses digits and cleans foreign text.

All numbers are SI until they get here. A column of joules becomes kilojoules as a whole, an interval decides how many
digits its number gets, and a prompt loses the characters that could reorder or hide printed text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from perjoule.display import ABSENT as ABSENT  # these are offered here too
from perjoule.display import Scale as Scale
from perjoule.display import fixed
from perjoule.display import number as number
from perjoule.display import quantity as quantity
from perjoule.display import scale as scale
from perjoule.text import one_line
from perjoule.text import provenance_title as title_of
from perjoule.types import Interval
from perjoule_reports.records import Tone

clean = one_line  # the name used in this package
WH_PER_1000_PER_JOULE = 1000 / 3600
TONES: dict[str | None, Tone] = {"measured": "calm", "estimated": "loud", "simulated": "alarm", "not stated": "loud"}
PROVENANCE_WORDS = {
    "measured": "joules read from a meter",
    "estimated": "joules worked out from a model, not read from a meter",
    "simulated": "joules from a simulated meter: not energy",
    "not stated": "the imported table does not say how its joules were obtained",
}
_BRANDS = {"measured": "", "estimated": "est.", "simulated": "sim.", "not stated": "n.s."}


def finite(value: object) -> float | None:
    """Return `value` as a float, or None if it is absent, not a number or infinite."""
    if value is None or isinstance(value, str) or not hasattr(value, "__float__"):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def interval(
    value: Interval, unit: Scale | None = None, signed: bool = False, decimals: int | None = None
) -> tuple[str, str]:
    """Format a number and its interval with digits that suit the width, e.g. `("0.972", "[0.951, 0.984]")`.

    The second text is empty if there is no interval. `decimals` replaces the digits that suit the width.
    """
    factor = unit.factor if unit else 1.0
    if value.value is None or not math.isfinite(value.value):
        return ABSENT, ""
    centre = value.value / factor
    if value.low is None or value.high is None or not math.isfinite(value.high - value.low):
        return _signed(number(centre) if decimals is None else fixed(centre, decimals), signed), ""
    low, high = value.low / factor, value.high / factor
    if decimals is None:
        decimals = _decimals(high - low, max(abs(low), abs(high), abs(centre)))
    texts = [_signed(fixed(v, decimals), signed) for v in (centre, low, high)]
    return texts[0], f"[{texts[1]}, {texts[2]}]"


def decimals_of(values: Iterable[Interval], unit: Scale | None = None) -> int | None:
    """Return one number of decimals for a column: that of its middle number, but enough to show the smallest one.

    None without numbers.
    """
    factor = unit.factor if unit else 1.0
    known = [v for v in values if v.value is not None and math.isfinite(v.value)]
    wanted = []
    for value in known:
        ends = [abs(end) / factor for end in (value.value, value.low, value.high) if end is not None]
        width = 0.0 if value.low is None or value.high is None else (value.high - value.low) / factor
        wanted.append(_decimals(width, max(ends)))
    if not wanted:
        return None
    sizes = [abs(v.value or 0.0) / factor for v in known if v.value]
    least = 1 - math.floor(math.log10(min(sizes))) if sizes else 0
    return min(6, max(sorted(wanted)[len(wanted) // 2], min(least, 3)))


def difference(value: Interval, unit: Scale | None = None, decimals: int | None = None) -> tuple[str, str]:
    """Format a difference and its interval with signs; `no difference` if it is exactly zero, without an interval."""
    if value.value == 0 and value.low == 0 and value.high == 0:
        return "no difference", ""
    return interval(value, unit, signed=True, decimals=decimals)


def memory(value: float) -> str:
    """Format bytes in binary units, e.g. `15.6 GiB`."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{value:.0f} B"


def percent(ratio: float) -> str:
    """Format a ratio as a percentage: whole from 10 % up, two significant digits below."""
    return f"{fixed(ratio * 100, 0) if abs(ratio) >= 0.0995 else number(ratio * 100, 2)} %"


def moment(text: str) -> str:
    """Return e.g. `2026-05-17 10:15 UTC` for an ISO 8601 time; any other text as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def steps(value: float | None) -> str:
    """Format a step count: whole for a fixed ladder, one decimal for the mean of a policy."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def step_count(value: float | None) -> str:
    """Return e.g. `1 step`, `12 steps`, `13.4 steps`; `unstated steps` if the count is unknown."""
    if value is None:
        return "unstated steps"
    return f"{steps(value)} {'step' if value == 1 else 'steps'}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, e.g. `1 prompt`, `24 prompts`, `2 passes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}".replace(",", "\u202f")


def brand(provenance: str | None) -> str:
    """Return the short mark of joules of this provenance; empty for measured joules."""
    return _BRANDS.get(provenance or "", "unk.")


def provenance_title(provenance: str | None, imported: bool = False) -> str:
    """Return the provenance of the joules in capitals, for a banner or a badge."""
    if provenance is None:
        return "NO JOULES" if imported else "NOT MEASURED"
    return title_of(provenance)


def shorten(text: str, length: int) -> str:
    """Cut a text to `length` characters, the last one an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _decimals(width: float, magnitude: float) -> int:
    """Return enough decimals to distinguish the interval's ends, with at most four significant digits in all."""
    most = 3 - math.floor(math.log10(magnitude)) if magnitude > 0 else 2
    wanted = 1 - math.floor(math.log10(1.2 * width)) if width > 0 else most - 1
    return min(6, max(0, min(wanted, most)))


def _signed(text: str, signed: bool) -> str:
    plain = not signed or text.startswith("\N{MINUS SIGN}") or not text.strip("0.")
    return text if plain else "+" + text
