"""Parser for shares, e.g. `5%` or `0.05`, used by command line, pytest plugin and suite files."""

from __future__ import annotations

import math

from perjoule.errors import UsageError


class Share(float):
    """A share written without ambiguity: `500%` is 5.0, whereas a plain 5 could mean 5 % or 500 %."""

    __slots__ = ()


def share(value: str | float, name: str) -> Share:
    """Parse a share, e.g. `"5%"`, `"0.05"` or 0.05 as 0.05.

    Args:
        value: Text, or a number below 1. A plain number of 1 or more is ambiguous; a `Share` is not.
        name: The option or key, for messages.

    Raises:
        UsageError: Not a number, negative, not finite, or a plain number of 1 or more; names both spellings.
    """
    text = str(value).strip()
    percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UsageError(f"{name} = {text}: a share of 0 or more is needed, such as 5% or 0.05")
    if percent:
        return Share(number / 100)
    if number >= 1 and not isinstance(value, Share):
        small, large = f"{number:g}% (or {number / 100:g})", f"{100 * number:g}%"
        raise UsageError(f"{name} = {text}: ambiguous: write {small}, or {large} if that is meant")
    return Share(number)


def below_one(value: float, name: str) -> float:
    """Check a share strictly between 0 and 1 given as a number: keys of suite files, arguments in Python.

    Raises:
        UsageError: Out of range; the message shows how to write it if e.g. 2 means 2 %.
    """
    if not 0 < value < 1:
        hint = f"write {value / 100:g} for {value:g} %" if 1 <= value < math.inf else "such as 0.02 for 2 %"
        raise UsageError(f"{name} = {value}: a share between 0 and 1 is needed; {hint}")
    return value
