"""Shares as people write them, `5%` or `0.05`: the one parser of command line, pytest plugin and suite files."""

from __future__ import annotations

import math

from perjoule.errors import UsageError


class Share(float):
    """A share that was written unmistakably: `500%` is 5.0, whereas a bare 5 could be either 5 % or 500 %."""

    __slots__ = ()


def share(value: str | float, name: str) -> Share:
    """Read `"5%"`, `"0.05"` or 0.05 as 0.05.

    Args:
        value: Text, or a number below 1. A bare number of 1 or more is ambiguous; a `Share` is not and passes.
        name: The option or key, for messages.

    Raises:
        UsageError: Not a number, negative, not finite, or a bare number of 1 or more; names both spellings.
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
    """A share strictly between 0 and 1 where text cannot be written: keys of suite files, arguments in Python.

    Raises:
        UsageError: Out of range; says what 2 should have been if 2 % was meant.
    """
    if not 0 < value < 1:
        hint = f"write {value / 100:g} for {value:g} %" if 1 <= value < math.inf else "such as 0.02 for 2 %"
        raise UsageError(f"{name} = {value}: a share between 0 and 1 is needed; {hint}")
    return value
