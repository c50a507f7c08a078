r"""Measures how late an energy counter shows energy, and over how long it averages power first.

Work is switched on and off a dozen times at known moments, and the counter is read all the while:

     power       ____/‾‾‾‾‾\____/‾‾‾\_______/‾‾‾‾‾‾‾\____
     counter            __/‾‾                                lag: everything comes later
     counter       _.-'     ` - .                            box: each step takes that long

Both, and the powers at rest and at work, are those that fit the readings best.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perjoule.meters.clock import Clock
from perjoule.meters.watcher import EdgeWatcher
from perjoule.types import Edge, IdlePower, UpdatePeriod
from perjoule.warnings import warning

if TYPE_CHECKING:
    import numpy as np

STEPS = 12
STEP_S = (0.2, 0.5)
QUIET_S = 1.3  # before the first step and after the last, longer than the longest lag and box together
POLL_S = 0.002
LAGS_S, BOXES_S = (0.0, 0.2, 21), (0.0, 1.25, 26)  # first, last and number of tried values
STARTS = 3  # best of these, from which the fit is refined
SIMPLEX_S = ((0.0, 0.0), (0.01, 0.0), (0.0, 0.05))  # around each of them
PROMPT_S = 0.002  # less than this is not told from rise and fall of the board
AS_GOOD = 1.02  # times the smallest misfit: a lag without a box is preferred to both, which differ little if short
LEAST_SIGNAL = 10.0  # times the doubt about rest
MOST_MISFIT = 0.15  # rms of the gaps between refreshes around the fit, as a share of a gap at work


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Lag and box of a counter in s, as remembered for its board."""

    lag_s: float
    box_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LagTest:
    """Result of the measurement.

    Attributes:
        lag_s: Age of the energy that the counter shows at a refresh; None if the measurement was inconclusive.
        box_s: Time over which it averages power first; None likewise.
        misfit: Deviation of the energies between refreshes from the fit (rms), as a share of one at work.
        words: The result as a sentence.
    """

    lag_s: float | None
    box_s: float | None
    misfit: float
    words: str

    @property
    def warning(self) -> str | None:
        """W218 for a counter that lags or averages, or if that is unknown; None for a prompt one."""
        return None if self.lag_s == 0 and self.box_s == 0 else warning("W218", self.words)


def lag_test(
    watcher: EdgeWatcher,
    period: UpdatePeriod,
    idle: IdlePower,
    burst: Callable[[float], None],
    clock: Clock,
    *,
    steps: int = STEPS,
    chance: random.Random | None = None,
) -> LagTest:
    """Switch work on and off, and fit lag and box to what the counter shows. Takes about seven seconds.

    Args:
        watcher: Watcher of the counter.
        period: The counter's update period.
        idle: Power at rest; the work must exceed its spread.
        burst: Keeps the device busy for about the given seconds and returns when the work is done, at constant power.
        clock: The clock.
        steps: Number of steps, on and off, at least 4.
        chance: Random numbers for their lengths.

    Raises:
        ValueError: Fewer than 4 steps.
        Fault: The counter failed.
    """
    if steps < 4:
        raise ValueError(f"a lag test needs at least 4 steps, not {steps}")
    chance = chance or random.Random()
    edges: list[Edge] = []

    def look() -> None:
        edge = watcher.poll()
        if edge is not None:
            edges.append(edge)

    watcher.arm()
    stop = clock.every(POLL_S, look)
    try:
        clock.sleep(QUIET_S)
        work = []
        for number in range(steps // 2):
            if number:
                clock.sleep(chance.uniform(*STEP_S))
            begun_s = clock.now()
            burst(chance.uniform(*STEP_S))
            work.append((begun_s, clock.now()))
        clock.sleep(QUIET_S)
    finally:
        stop()
    return fit(edges[1:], work, idle, period)  # the first edge may be as wide as a period


def fit(edges: Sequence[Edge], work: Sequence[tuple[float, float]], idle: IdlePower, period: UpdatePeriod) -> LagTest:
    """Return lag and box that fit edges of a counter around work between known times."""
    import numpy as np
    from scipy.optimize import minimize  # imported here, because it takes a while

    if len(edges) < 2 * len(work):
        return LagTest(lag_s=None, box_s=None, misfit=1.0, words=f"the counter has only {len(edges)} refreshes")
    origin_s = work[0][0]
    t_s = np.array([edge.at_s for edge in edges]) - origin_s
    energy_j = np.diff([edge.energy_j for edge in edges])  # the noise of power adds up in the sums
    times = np.array(work) - origin_s

    def solve(lag_s: float, box_s: float) -> tuple[float, Any]:
        on = _taken_in(times, t_s - lag_s, box_s)
        # a board rests at a higher power from its first work on
        columns = np.diff(np.stack([t_s, np.maximum(t_s - lag_s, 0.0), on], axis=1), axis=0)
        found = np.linalg.lstsq(columns, energy_j, rcond=None)[0]
        return float(np.sqrt(np.mean((columns @ found - energy_j) ** 2))), found

    grid = sorted(
        (solve(lag_s, box_s)[0], lag_s, box_s) for lag_s in np.linspace(*LAGS_S) for box_s in np.linspace(*BOXES_S)
    )
    grid += sorted(one for one in grid if not one[2])[:1]  # a pure lag
    tries = [
        minimize(
            lambda x, pure=pure: solve(abs(x[0]), 0.0 if pure else abs(x[1]))[0],
            start[1:],
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-6, "initial_simplex": np.array(start[1:]) + SIMPLEX_S},
        )
        for pure, start in [*((False, start) for start in grid[:STARTS]), (True, grid[-1])]
    ]
    best = min(tries, key=lambda one: one.fun)
    if tries[-1].fun <= AS_GOOD * best.fun:
        best = tries[-1]
    lag_s, box_s = abs(float(best.x[0])), 0.0 if best is tries[-1] else abs(float(best.x[1]))
    misfit_j, found = solve(lag_s, box_s)
    work_w = float(found[2])
    misfit = misfit_j / (abs(work_w) * period.median_s) if work_w else 1.0
    if work_w * period.median_s < LEAST_SIGNAL * idle.spread_w * period.median_s or misfit > MOST_MISFIT:
        words = f"the work does not show the counter's lag: readings deviate from the fit by {misfit:.0%}"
        return LagTest(lag_s=None, box_s=None, misfit=misfit, words=words)
    if lag_s + box_s / 2 < PROMPT_S:
        return LagTest(lag_s=0.0, box_s=0.0, misfit=misfit, words="the counter shows energy without a lag")
    words = f"the counter shows energy {1000 * lag_s:.0f} ms late, averaged over {1000 * box_s:.0f} ms"
    return LagTest(lag_s=lag_s, box_s=box_s, misfit=misfit, words=words)


def _taken_in(work: np.ndarray, t_s: np.ndarray, box_s: float) -> np.ndarray:
    """Return the seconds of work that a counter with a box of power has taken in at each time."""
    import numpy as np

    def worked(t_s: np.ndarray, order: int) -> np.ndarray:
        """The integral of being at work, once or twice."""
        begun, ended = np.maximum(t_s[:, None] - work[:, 0], 0.0), np.maximum(t_s[:, None] - work[:, 1], 0.0)
        total: np.ndarray = ((begun**order - ended**order) / order).sum(axis=1)
        return total

    if box_s < 1e-6:
        return worked(t_s, 1)
    mean: np.ndarray = (worked(t_s, 2) - worked(t_s - box_s, 2)) / box_s
    return mean
