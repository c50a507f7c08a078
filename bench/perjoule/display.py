"""Numbers for people: SI prefixes, digits and durations. Everything else in perjoule is in SI units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perjoule.types import Estimate, Interval

ABSENT = "–"
NO_DIFFERENCE = "no difference"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One unit for a whole column or axis: a displayed number is the SI number divided by `factor`."""

    factor: float
    unit: str


PERCENT = Scale(factor=0.01, unit="%")


def scale(values: Iterable[float | None], unit: str) -> Scale:
    """Choose the SI prefix with which the median of `values` lies between 1 and 1000; none if the largest does."""
    magnitudes = sorted(abs(v) for v in values if v)
    if not magnitudes or 1 <= magnitudes[-1] < 1000:
        return Scale(factor=1.0, unit=unit)
    middle = magnitudes[len(magnitudes) // 2]
    for factor, prefix in _PREFIXES:
        if middle >= factor:
            return Scale(factor=factor, unit=prefix + unit)
    return Scale(factor=_PREFIXES[-1][0], unit=_PREFIXES[-1][1] + unit)


def number(value: float | None, digits: int = 3) -> str:
    """Format with `digits` significant digits and no exponent; longer integers keep all their digits."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    return fixed(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """Format a single quantity with its own prefix, e.g. `3.10 kJ`."""
    if value is None:
        return ABSENT
    chosen = scale([value], unit)
    return f"{number(value / chosen.factor, digits)} {chosen.unit}"


def bounded(value: float, bound: float | None, unit: str) -> str:
    """Format a quantity with its bound in the same unit, e.g. `8.512 kJ ± 0.031 kJ (0.4 %)`."""
    if bound is None:
        return f"{quantity(value, unit, 4)}, bound unknown"
    chosen = scale([value if bound < 10 * value else bound], unit)
    share = f" ({fixed(100 * bound / value, 1)} %)" if value > 0 else ""
    texts = (f"{number(one / chosen.factor, digits)} {chosen.unit}" for one, digits in ((value, 4), (bound, 2)))
    return f"{' ± '.join(texts)}{share}"


def interval(
    value: Interval, unit: Scale | None = None, signed: bool = False, decimals: int | None = None
) -> tuple[str, str]:
    """Format a number and its interval with digits that suit the width, e.g. `("0.972", "[0.951, 0.984]")`.

    The second text is empty if there is no interval, and names an end that was not found in the data: `[−46, open]`.
    `decimals` replaces the digits that suit the width.
    """
    factor = unit.factor if unit else 1.0
    if value.value is None or not math.isfinite(value.value):
        return ABSENT, ""
    centre = value.value / factor
    ends = [None if end is None else end / factor for end in ends_of(value)]
    known = [end for end in ends if end is not None]
    if not known:
        return _signed(number(centre) if decimals is None else fixed(centre, decimals), signed), ""
    if decimals is None:
        decimals = _decimals(_width(centre, known), max(map(abs, (centre, *known))))
    low, high = ("open" if end is None else _signed(fixed(end, decimals), signed) for end in ends)
    return _signed(fixed(centre, decimals), signed), f"[{low}, {high}]"


def ends_of(value: Interval) -> tuple[float | None, float | None]:
    """Return the ends of an interval, None for an open or infinite end."""
    low, high = (None if end is None or not math.isfinite(end) else end for end in (value.low, value.high))
    return low, high


def excludes_zero(value: Interval) -> bool:
    """Return True if the whole interval lies on one side of zero; its far end may be open."""
    low, high = ends_of(value)
    return (low is not None and low > 0) or (high is not None and high < 0)


def _width(centre: float, known: Sequence[float]) -> float:
    """Return the width of an interval; twice its known half if the other end is open."""
    return abs(known[1] - known[0]) if len(known) == 2 else 2 * abs(known[0] - centre)


def decimals_of(values: Iterable[Interval], unit: Scale | None = None, *, smallest: bool = True) -> int | None:
    """Return one number of decimals for a column: that of its middle number; None without numbers.

    With `smallest` there are enough decimals to show the smallest number. A small difference needs none: it is about 0.
    """
    factor = unit.factor if unit else 1.0
    known = [v for v in values if v.value is not None and math.isfinite(v.value)]
    wanted = []
    for value in known:
        centre, ends = (value.value or 0.0) / factor, [end / factor for end in ends_of(value) if end is not None]
        wanted.append(_decimals(_width(centre, ends) if ends else 0.0, max(map(abs, (centre, *ends)))))
    if not wanted:
        return None
    sizes = [abs(v.value or 0.0) / factor for v in known if v.value and smallest]
    least = 1 - math.floor(math.log10(min(sizes))) if sizes else 0
    return min(6, max(sorted(wanted)[len(wanted) // 2], min(least, 3)))


def difference(value: Interval, unit: Scale | None = None, decimals: int | None = None) -> tuple[str, str]:
    """Format a difference and its interval with signs; `no difference` if it is exactly zero, without an interval."""
    if value.value == 0 and value.low == 0 and value.high == 0:
        return NO_DIFFERENCE, ""
    return interval(value, unit, signed=True, decimals=decimals)


def changes(values: Iterable[Interval], *, percent: bool) -> list[str]:
    """Format the changes of a column with as many decimals each."""
    column = list(values)
    decimals = decimals_of(column, PERCENT if percent else None)
    return [change(value, percent=percent, decimals=decimals) for value in column]


def change(value: Interval, *, percent: bool, decimals: int | None = None) -> str:
    """Format a change in a sentence: `+12.2 % [+11.6, +12.8]`, `−0.303 [−0.317, −0.289]` or `no difference`."""
    text, ends = difference(value, PERCENT if percent else None, decimals)
    unit = " %" if percent and text not in (NO_DIFFERENCE, ABSENT) else ""
    return f"{text}{unit} {ends}".rstrip()


def before_after(joules: tuple[float, float], mark: str = "") -> str:
    """Format two energies per image with one prefix, e.g. `135 → 151 J per image`; one if they are equal.

    `mark` is that of the provenance, e.g. `est.`.
    """
    unit = scale(joules, "J")
    before, after = (number(one / unit.factor) for one in joules)
    shown = before if joules[0] == joules[1] else f"{before} → {after}"
    return " ".join(filter(None, (shown, unit.unit, mark, "per image")))


def _decimals(width: float, magnitude: float) -> int:
    """Return enough decimals to distinguish the interval's ends, with at most four significant digits in all."""
    most = 3 - math.floor(math.log10(magnitude)) if magnitude > 0 else 2
    wanted = 1 - math.floor(math.log10(1.2 * width)) if width > 0 else most - 1
    return min(6, max(0, min(wanted, most)))


def _signed(text: str, signed: bool) -> str:
    plain = not signed or text.startswith("\N{MINUS SIGN}") or not text.strip("0.")
    return text if plain else "+" + text


def percent_interval(estimate: Estimate) -> str:
    """Format a share with its interval, e.g. `13.3 % [8.2, open]`: that end was not found in the data."""
    low, high = ("open" if end is None else f"{100 * end:.1f}" for end in (estimate.low, estimate.high))
    return f"{100 * (estimate.value or 0.0):.1f} % [{low}, {high}]"


def duration(seconds: float) -> str:
    """Format a time in the two largest units that it has, e.g. `1 h 16 min`, `6 min 41 s`, `4.2 s`."""
    if seconds < 10:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    for large, name, small, rest_name in _SPANS:
        # rounded in the smaller unit, so that 59 min 59.7 s is 1 h and not 60 min
        rounded = round(whole / small) * small
        if rounded >= large:
            count, rest = divmod(rounded, large)
            return f"{count} {name}" + (f" {rest // small} {rest_name}" if rest else "")
    return f"{whole} s"


def memory(value: float) -> str:
    """Format bytes in binary units, e.g. `15.6 GiB`."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{value:.0f} B"


def moment(text: str) -> str:
    """Return e.g. `2026-05-17 10:15 UTC` for an ISO 8601 time; any other text as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):  # in UTC it may be before the year 1
        return text


def fixed(value: float, decimals: int) -> str:
    """Format with a number of decimals, with a minus sign instead of a hyphen and without a negative zero."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")
