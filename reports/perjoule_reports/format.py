"""Formats numbers and texts: with `perjoule.display`, all that scales units, chooses digits and cleans foreign text.

All numbers are SI until they get here. A column of joules becomes kilojoules as a whole, an interval decides how many
digits its number gets, and a prompt loses the characters that could reorder or hide printed text.
"""

from __future__ import annotations

import math

from perjoule.display import ABSENT as ABSENT  # these are offered here too
from perjoule.display import Scale as Scale
from perjoule.display import change as change
from perjoule.display import decimals_of as decimals_of
from perjoule.display import difference as difference
from perjoule.display import ends_of as ends_of
from perjoule.display import excludes_zero as excludes_zero
from perjoule.display import fixed
from perjoule.display import interval as interval
from perjoule.display import memory as memory
from perjoule.display import moment as moment
from perjoule.display import number as number
from perjoule.display import quantity as quantity
from perjoule.display import scale as scale
from perjoule.text import one_line
from perjoule.text import provenance_title as title_of
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


def percent(ratio: float) -> str:
    """Format a ratio as a percentage: whole from 10 % up, two significant digits below."""
    return f"{fixed(ratio * 100, 0) if abs(ratio) >= 0.0995 else number(ratio * 100, 2)} %"


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
