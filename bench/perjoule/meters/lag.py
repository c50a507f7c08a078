r"""Measures how late an energy counter shows energy, and over how long it averages power first.

Work is switched on and off three dozen times at known moments, and the counter is read all the while:

     power       ____/‾‾‾‾‾\____/‾‾‾\_______/‾‾‾‾‾‾‾\____
     counter            __/‾‾                                lag: everything comes later
     counter       _.-'     ` - .                            box: each step takes that long

Only a refresh within a box after a step can tell a box from a lag: all others show the same energy for each lag and box
with the same delay, lag + box / 2. So the steps are placed evenly over the phases of the update period.

The refreshes are fitted by generalised least squares, with the error of their times that their polls leave. Lags and
boxes that fit almost as well as the best ones, by a likelihood ratio, make up the intervals. A board that rises and
falls over milliseconds looks like a counter with a lag and a box of such a length, which the intervals contain.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perjoule.meters.clock import Clock
from perjoule.meters.watcher import EdgeWatcher
from perjoule.types import Edge, IdlePower, UpdatePeriod
from perjoule.warnings import warning

STEPS = 36
STEP_S = (0.15, 0.4)
QUIET_S = 1.3  # after other work and after the last step, longer than the longest lag and box together
REST_S = 0.4  # then, before the first step
POLL_S = 0.001
RAMP_S = 0.010  # longest time in which published boards reach the power of work, or leave it
KNOWN_S, KNOWN_SHARE = 0.0075, 0.1  # largest half width of the interval of a known lag, and of a known box
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
        lags_s: Interval that contains the lag; None likewise.
        boxes_s: Interval that contains the box; None likewise.
        misfit: Deviation of the energies between refreshes from the fit (rms), as a share of one at work.
        words: The result as a sentence.
    """

    lag_s: float | None
    box_s: float | None
    lags_s: tuple[float, float] | None = None
    boxes_s: tuple[float, float] | None = None
    misfit: float
    words: str

    @property
    def warning(self) -> str | None:
        """W218 for a counter that lags or averages, or if that is unknown; None for a prompt one."""
        return None if self.lag_s == 0 and self.box_s == 0 else warning("W218", self.words)

    @property
    def separable(self) -> bool:
        """Whether the refreshes tell lag and box apart; if not, only lag + box / 2 is known."""
        return self.lags_s is not None and self.boxes_s is not None and _separable(self.lags_s, self.boxes_s)


def covering(lag_s: float | None, box_s: float | None, boxes_s: tuple[float, float] | None) -> Lag | None:
    """Return the lag and box for windows: with the measured delay, and the longest box of its interval.

    Of all pairs that may be true, this one waits longest for the energy of the work. The result is None if nothing was
    measured.
    """
    if lag_s is None or box_s is None or boxes_s is None:
        return None
    delay_s = lag_s + box_s / 2
    longest_s = min(boxes_s[1], 2 * delay_s)
    return Lag(lag_s=delay_s - longest_s / 2, box_s=longest_s)


def _separable(lags_s: tuple[float, float], boxes_s: tuple[float, float]) -> bool:
    (least_lag_s, most_lag_s), (least_s, most_s) = lags_s, boxes_s
    box_s = (least_s + most_s) / 2
    return most_lag_s - least_lag_s <= 2 * KNOWN_S and most_s - least_s <= 2 * max(2 * KNOWN_S, KNOWN_SHARE * box_s)


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
    """Switch work on and off, and fit lag and box to what the counter shows. Takes about 13 seconds.

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

    def phases() -> list[float]:
        """Return a phase of the update period for each burst: evenly spread, in random order."""
        count = steps // 2
        return [(number + chance.random()) / count for number in chance.sample(range(count), count)]

    def until(phase: float) -> float:
        """Return seconds from now until that phase, at least the shortest length of a step."""
        seconds = chance.uniform(STEP_S[0], max(STEP_S[1] - period.median_s, STEP_S[0]))
        since_s = clock.now() + seconds - (edges[-1].at_s if edges else 0.0)
        return seconds + (phase * period.median_s - since_s) % period.median_s

    clock.sleep(QUIET_S)
    watcher.arm()
    stop = clock.every(POLL_S, look)
    try:
        clock.sleep(REST_S)
        work = []
        for begin, end in zip(phases(), phases(), strict=True):
            clock.sleep(until(begin))
            begun_s = clock.now()
            burst(until(end))
            work.append((begun_s, clock.now()))
        clock.sleep(QUIET_S)
    finally:
        stop()
    return fit(edges[1:], work, idle, period)  # the first edge may be as wide as a period


def fit(edges: Sequence[Edge], work: Sequence[tuple[float, float]], idle: IdlePower, period: UpdatePeriod) -> LagTest:
    """Return lag and box that fit edges of a counter around work between known times."""
    from perjoule.meters.lag_fit import StepResponse  # imported here, because scipy takes a while

    if len(edges) < 2 * len(work):
        return LagTest(lag_s=None, box_s=None, misfit=1.0, words=f"the counter has only {len(edges)} refreshes")
    response = StepResponse(edges, work, idle)
    lag_s, box_s = response.best()
    deviation_j, work_w = response.deviation(lag_s, box_s)
    misfit = deviation_j / (abs(work_w) * period.median_s) if work_w else 1.0
    if work_w < LEAST_SIGNAL * idle.spread_w or misfit > MOST_MISFIT:
        words = f"the work does not show the counter's lag: readings deviate from the fit by {misfit:.0%}"
        return LagTest(lag_s=None, box_s=None, misfit=misfit, words=words)
    lags_s, boxes_s = response.intervals(lag_s, box_s)
    lags_s = max(lags_s[0] - RAMP_S / 2, 0.0), lags_s[1] + RAMP_S / 2
    boxes_s = max(boxes_s[0] ** 2 - RAMP_S**2, 0.0) ** 0.5, boxes_s[1]
    delay_s = lag_s + box_s / 2
    if lags_s[0] == boxes_s[0] == 0 and delay_s <= RAMP_S / 2:
        words = "the counter shows energy without a lag"
        return LagTest(lag_s=0.0, box_s=0.0, lags_s=lags_s, boxes_s=boxes_s, misfit=misfit, words=words)
    words = f"the counter shows energy {1000 * lag_s:.0f} ms late, averaged over {1000 * box_s:.0f} ms"
    if not _separable(lags_s, boxes_s):
        words = (
            f"the counter shows energy {1000 * delay_s:.0f} ms late on average: a lag of {_range(lags_s)} and an "
            f"average over {_range(boxes_s)}, which the refreshes do not tell apart"
        )
    return LagTest(lag_s=lag_s, box_s=box_s, lags_s=lags_s, boxes_s=boxes_s, misfit=misfit, words=words)


def _range(interval_s: tuple[float, float]) -> str:
    return f"{1000 * interval_s[0]:.0f} to {1000 * interval_s[1]:.0f} ms"
