"""Warnings that make a window invalid for a verdict. Texts only: nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable

from perjoule.warnings import has_code

# a window with one of these has a number that is wrong (W202, W212, W213, W215), or is not of this work on this device
# alone: stopped on the way (W251), other processes (W260), another power limit (W263). What is the same on both sides
# (W203, W205, W214, W223) or is in the bound (W201, W207, W210, W211) does not forbid a comparison
INVALIDATING = ("W202", "W212", "W213", "W215", "W251", "W260", "W263")
# a board that heat or a power brake held back; one at its power cap is as it was set up
_BRAKED = re.compile("(slowdown|brake|sync boost)")


def disturbance(warnings: Iterable[str]) -> str | None:
    """The first warning of a window that makes it invalid for a verdict, or None."""
    return next((text for text in warnings if has_code(text, *INVALIDATING) or _is_braked(text)), None)


def _is_braked(text: str) -> bool:
    return has_code(text, "W261") and _BRAKED.search(text) is not None
