"""SM clocks of cells. A board at its power limit lowers its clock, so clocks that change with the load are normal.

They matter where cells that are compared ran at different clocks: a part of the difference between them is then that
of the clocks, e.g. because the board was hotter or the cells load it differently.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from perjoule.meters.conditions import POWER_CAP
from perjoule.runs.directory import Run
from perjoule.warnings import warning

CLOCK_CHANGE = 0.1  # of the highest clock; boost clocks vary by a few per cent


def clock_difference(run: Run) -> str | None:
    """Return a coded warning if the SM clocks of two cells differ by more than a tenth; None otherwise.

    The clock of a window is the highest one seen in it, since the lowest is often from before the work; that of a
    cell is the median of its windows.
    """
    if not run.devices:
        return None
    cells = dict(run.windows.select("trial_id", "cell_id").iter_rows())
    clocks: dict[str, list[int]] = defaultdict(list)
    capped: dict[str, int] = defaultdict(int)
    for trial_id, board in run.devices:
        conditions, cell = board.conditions, cells.get(trial_id)
        if cell is None or conditions is None or conditions.sm_clock_mhz is None:
            continue
        clocks[cell].append(conditions.sm_clock_mhz[1])
        capped[cell] += bool((conditions.throttle_reasons or 0) & POWER_CAP)
    if not clocks:
        return None
    ordered = sorted(clocks, key=lambda cell: (median(clocks[cell]), cell))
    slow, fast = ordered[0], ordered[-1]
    if median(clocks[fast]) - median(clocks[slow]) <= CLOCK_CHANGE * median(clocks[fast]):
        return None
    ends = (
        f"{median(clocks[cell]):g} MHz in {cell} (at the power limit in {capped[cell]} of {len(clocks[cell])} windows)"
        for cell in (slow, fast)
    )
    return warning("W262", f"the SM clock differs between cells: {' and '.join(ends)}")
