"""Warnings that make a window invalid for a verdict. Texts only: nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable

from perjoule.warnings import has_code

# the number of a window with one of these is wrong (W202, W212, W213, W215), or includes more than this work on this
# device: a suspension (W251), other processes (W260), a changed power limit (W263). Warnings that affect both sides
# equally (W203, W205, W214, W223) or are part of the bound (W201, W207, W210, W211) do not prevent a comparison
INVALIDATING = ("W202", "W212", "W213", "W215", "W225", "W251", "W260", "W263")
# share of disturbed windows that a comparison tolerates
TOLERATED_SHARE = 0.05
# slowed down by heat or a power brake; a board at its power cap works as configured
_BRAKED = re.compile("(slowdown|brake|sync boost)")


def disturbance(warnings: Iterable[str]) -> str | None:
    """Return the first warning that makes a window invalid for a verdict, or None."""
    return next((text for text in warnings if has_code(text, *INVALIDATING) or _is_braked(text)), None)


def _is_braked(text: str) -> bool:
    return has_code(text, "W261") and _BRAKED.search(text) is not None
