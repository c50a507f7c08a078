"""Numbers for people: SI prefixes, digits and durations. Everything else in perjoule is in SI units."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perjoule.types import Estimate

ABSENT = "–"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One unit for a whole column or axis: a displayed number is the SI number divided by `factor`."""

    factor: float
    unit: str


def scale(values: Iterable[float | None], unit: str) -> Scale:
    """Choose the SI prefix with which the median of `values` lies between 1 and 1000."""
    magnitudes = sorted(abs(v) for v in values if v)
    if not magnitudes:
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


def fixed(value: float, decimals: int) -> str:
    """Format with a number of decimals, with a minus sign instead of a hyphen and without a negative zero."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")
