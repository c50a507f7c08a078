"""Warnings that make a window invalid for a verdict. Nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from perjoule.warnings import has_code

if TYPE_CHECKING:
    import polars as pl

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


def disturbances(warnings: pl.Series) -> pl.Series:
    """Return the `disturbance` of each window, given the lists of their warnings; null for none."""
    import polars as pl  # takes a tenth of a second, and meters look at texts only

    texts = warnings.explode().drop_nulls().unique()  # few, even of a million windows
    marking = pl.Series([text for text in texts if disturbance([text])], dtype=pl.String)
    return warnings.list.eval(pl.element().filter(pl.element().is_in(marking))).list.first()


def _is_braked(text: str) -> bool:
    return has_code(text, "W261") and _BRAKED.search(text) is not None
