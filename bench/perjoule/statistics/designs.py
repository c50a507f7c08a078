"""Names of the designs of `sequential`, without its imports."""

from __future__ import annotations

from typing import Literal, get_args

Design = Literal["pocock", "obrien-fleming", "confidence-sequence"]
DESIGNS: tuple[Design, ...] = get_args(Design)
