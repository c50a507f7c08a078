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
