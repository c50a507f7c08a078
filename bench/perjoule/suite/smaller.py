"""Names of cells whose windows did not fit into memory and were drawn with fewer images per pipeline call.

Such windows are another operating point, so they belong to a variant and a cell of their own, e.g. `sd15@b4` and
`sd15@b4-025` instead of `sd15` and `sd15-025`, and are never pooled with the windows of the planned cell. Names in
suite files cannot contain `@`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from perjoule.types import Cell

_MARK = re.compile(r"@b([1-9][0-9]{0,8})")


def with_batch(cell: Cell, size: int) -> Cell:
    """Return a planned cell with at most `size` images per pipeline call, under the name that states it."""
    name = cell.variant.name
    smaller = f"{name}@b{size}"
    cell_id = smaller + cell.cell_id.removeprefix(name)
    return replace(cell, cell_id=cell_id, variant=replace(cell.variant, name=smaller), batch_size=size)


def planned_name(name: str) -> str:
    """Return the name of a variant or cell in the plan, e.g. `sd15-025` for `sd15@b4-025`."""
    return _MARK.sub("", name, count=1)


def smaller_batch(name: str) -> int | None:
    """Return the images per pipeline call that a variant or cell is named after; None for those of the plan."""
    mark = _MARK.search(name)
    return int(mark[1]) if mark else None
