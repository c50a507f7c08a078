r"""Test of whether a sensor sees only part of the time.

Some boards refresh their power reading every T, but the reading covers only a share of T (25 of 100 ms on A100 and
H100, arXiv 2312.02741). It is not documented whether an energy counter uses such a reading, so it is tested: a short
burst of fixed work is counted at several offsets in the update period.

     counter's refreshes  |         |         |         |         |
     what it sees         |    ____ |    ____ |    ____ |    ____ |
     burst at 0.25 T      |  ▄▄     |         |         |         |     seen by half
     burst at 0.5 T       |         |     ▄▄  |         |         |     counted twice or more
     burst at 0           |         |         |         |▄▄       |     not seen at all

A counter that sees everything counts the same each time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean

from perjoule.meters.clock import Clock
from perjoule.meters.rest import gap_power_w
from perjoule.meters.watcher import EdgeWatcher
from perjoule.types import Edge, IdlePower, UpdatePeriod
from perjoule.warnings import warning

BURST_SHARE = 0.25  # of the update period; published sensors see at least 20 % of the time
REACH_PERIODS = 2.0  # a burst is counted until this long after its end: one period for its refresh, one for a lag
FALSE_ALARM = 0.01  # of the F-test
# Largest minus smallest mean energy over the mean. A sensor that sees the share s of time, with bursts of T/4, moves it
# by 4 (1 - s) / s or more: 300 % at 25 %, 100 % at 80 %, 25 % at 94 %.
LEAST_SWING = 0.25
MOST_SPREAD = 0.2  # of the mean, between bursts at one offset: a larger spread could hide a swing of LEAST_SWING
REST_NEIGHBOURS = 1  # a device that comes to rest slowly drifts; averaging over more neighbours would miss that
CENTRES = 40  # of the grid on which the seen share is fitted
SHARES = tuple(i / 20 for i in range(4, 20))  # published sensors see at least 20 %


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTest:
    """Result of the test whether the energy of a burst depends on its offset in the update period.

    Attributes:
        part_time: True if it does, False if it does not, None if the test was inconclusive.
        p_value: Probability of such differences between the offsets if the true differences are zero.
        swing: Largest minus smallest mean over the offsets, relative to the mean over all.
        seen_share: Fitted share of time that the counter sees; 1.0 if `part_time` is False, None if it is None.
        offsets_s: Seconds after a refresh at which bursts were started.
        energies_j: Mean energy of a burst at each offset, minus rest.
        spread_j: Standard deviation between bursts at one offset.
        words: The result as a sentence.
    """

    part_time: bool | None
    p_value: float
    swing: float
    seen_share: float | None
    offsets_s: tuple[float, ...]
    energies_j: tuple[float, ...]
    spread_j: float
    words: str

    @property
    def warning(self) -> str | None:
        """W214 for a part-time counter, W216 for an inconclusive test, None for a counter that sees everything."""
        if self.part_time is None:
            return warning("W216", self.words)
        return warning("W214", self.words) if self.part_time else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Burst:
    """A burst: its index, start after the refresh, duration, counted energy, and the power before."""

    number: int
    after_s: float
    length_s: float
    counted_j: float
    span_s: float
    rest_w: float


def phase_test(
    watcher: EdgeWatcher,
    period: UpdatePeriod,
    idle: IdlePower,
    burst: Callable[[float], None],
    clock: Clock,
    *,
    offsets: int = 8,
    repeats: int = 3,
    chance: random.Random | None = None,
) -> PhaseTest:
    """Run `offsets * repeats` short bursts over the counter's update period, and compare their counted energies.

    Each burst is counted from the refresh before it until `REACH_PERIODS` after it, for the same time at every offset,
    because a device may fall to its idle power slowly. The power between the two refreshes before a burst, averaged
    over neighbouring bursts, is subtracted. Offsets are in a new random order in every repeat, so that warming up does
    not look like an effect of the offset. The test takes about five periods per burst (12 s at 0.1 s).

    Args:
        watcher: Watcher of the counter, which must have measured its period.
        period: The counter's update period.
        idle: Power at rest; bursts must exceed its spread.
        burst: Keeps the device busy for about the given seconds and returns when the work is done. The work is always
            the same: its length may vary, its power should not.
        clock: The clock.
        offsets: Number of offsets in the update period, 8 or more for sensors that see a quarter of it.
        repeats: Bursts per offset, at least 2.
        chance: Random numbers for the order.

    Raises:
        ValueError: Fewer than 4 offsets or 2 repeats.
        Fault: The counter failed.
    """
    if offsets < 4 or repeats < 2:
        raise ValueError(f"a phase test needs at least 4 offsets and 2 repeats, not {offsets} and {repeats}")
    chance = chance or random.Random()
    grid_s = [period.median_s * i / offsets for i in range(offsets)]
    runs: list[list[_Burst]] = [[] for _ in grid_s]
    last = watcher.next_edge()
    order = [i for _ in range(repeats) for i in chance.sample(range(offsets), offsets)]
    for number, i in enumerate(order):
        run, last = _run(number, watcher, last, grid_s[i], period, burst, clock)
        runs[i].append(run)
    return _judge(grid_s, runs, period, idle)


def _run(
    number: int,
    watcher: EdgeWatcher,
    earlier: Edge,
    offset_s: float,
    period: UpdatePeriod,
    burst: Callable[[float], None],
    clock: Clock,
) -> tuple[_Burst, Edge]:
    """Run one burst `offset_s` after the next refresh; also return the last observed refresh."""
    before = watcher.next_edge()
    clock.sleep(before.at_s + offset_s - clock.now())
    started_s = clock.now()
    burst(BURST_SHARE * period.median_s)
    length_s = clock.now() - started_s
    edges = [watcher.next_edge()]
    # from the start and not from the end, because the duration may include the device's own delay
    until_s = max(started_s + (BURST_SHARE + REACH_PERIODS) * period.median_s, edges[0].at_s)
    while len(edges) < 2 or edges[-1].at_s < until_s:
        edges.append(watcher.next_edge())
    left, right = next((one, other) for one, other in pairwise(edges) if other.at_s >= until_s)
    until_j = left.energy_j + gap_power_w(left, right) * (until_s - left.at_s)
    run = _Burst(
        number=number,
        after_s=started_s - before.at_s,
        length_s=max(length_s, 1e-9),
        counted_j=until_j - before.energy_j,
        span_s=until_s - before.at_s,
        rest_w=gap_power_w(earlier, before),
    )
    return run, edges[-1]


def _judge(
    offsets_s: Sequence[float], runs: Sequence[Sequence[_Burst]], period: UpdatePeriod, idle: IdlePower
) -> PhaseTest:
    """Decide by a one-way analysis of variance over the offsets, and by the size of the differences.

    Energies are scaled to the mean length of the bursts, because a burst that is 5 % longer uses 5 % more energy.
    """
    every = [run for group in runs for run in group]
    length_s = fmean(run.length_s for run in every)
    groups = [
        [(run.counted_j - _rest_w(run, every) * run.span_s) * length_s / run.length_s for run in group]
        for group in runs
    ]
    means = [fmean(group) for group in groups]
    mean_j = fmean(means)
    repeats = len(groups[0])
    within = sum((value - mean) ** 2 for group, mean in zip(groups, means, strict=True) for value in group)
    between = repeats * sum((mean - mean_j) ** 2 for mean in means)
    freedom = len(groups) - 1, len(groups) * (repeats - 1)
    spread_j = sqrt(within / freedom[1])
    p_value = _f_tail(between / freedom[0], spread_j**2, freedom)
    swing = (max(means) - min(means)) / mean_j if mean_j > 0 else 0.0

    part_time: bool | None
    if mean_j <= 3 * max(idle.spread_w * period.median_s, spread_j) / sqrt(len(every)):
        part_time, words = None, f"bursts of {length_s * 1000:.0f} ms do not differ from rest"
    elif p_value < FALSE_ALARM and swing >= LEAST_SWING:
        part_time, words = True, f"a burst counts for {min(means):.3g} to {max(means):.3g} J, depending on its phase"
    elif spread_j <= MOST_SPREAD * mean_j:
        part_time, words = False, f"a burst counts for {mean_j:.3g} J at any phase, within {swing:.0%}"
    else:
        part_time, words = None, f"bursts at the same phase differ by {spread_j / mean_j:.0%}"
    share = _seen_share(runs, groups, period) if part_time else None if part_time is None else 1.0
    if part_time:
        words += f"; the counter sees about {share:.0%} of the time"
    return PhaseTest(
        part_time=part_time,
        p_value=p_value,
        swing=swing,
        seen_share=share,
        offsets_s=tuple(offsets_s),
        energies_j=tuple(means),
        spread_j=spread_j,
        words=words,
    )


def _rest_w(run: _Burst, every: Sequence[_Burst]) -> float:
    """Return power before a burst: the mean over neighbouring bursts, because one value is noisy and rest may drift."""
    return fmean(other.rest_w for other in every if abs(other.number - run.number) <= REST_NEIGHBOURS)


def _f_tail(between: float, within: float, freedom: tuple[int, int]) -> float:
    """Return the probability of a ratio of variances at least as large, from the F distribution."""
    if within <= 0:
        return 0.0 if between > 0 else 1.0
    from scipy.special import fdtrc  # imported here, because it loads numpy

    return float(fdtrc(*freedom, between / within))


def _seen_share(runs: Sequence[Sequence[_Burst]], groups: Sequence[Sequence[float]], period: UpdatePeriod) -> float:
    """Return the share of the update period that fits best, over all positions of that share."""
    points = [
        (run.after_s / period.median_s, run.length_s / period.median_s, energy_j)
        for group, energies in zip(runs, groups, strict=True)
        for run, energy_j in zip(group, energies, strict=True)
    ]

    def misfit(share: float, begin: float) -> float:
        seen = [_overlap(begin, share, start, length) for start, length, _ in points]
        square = sum(one * one for one in seen)
        # the scale is fitted too, because the true energy of a burst is unknown
        scale = sum(one * point[2] for one, point in zip(seen, points, strict=True)) / square if square else 0.0
        return sum((point[2] - scale * one) ** 2 for one, point in zip(seen, points, strict=True))

    return min((misfit(share, i / CENTRES), share) for share in SHARES for i in range(CENTRES))[1]


def _overlap(begin: float, share: float, start: float, length: float) -> float:
    """Return the share of a burst that lies in [begin, begin + share], on a circle of length 1."""
    after = (start - begin) % 1.0
    end = after + min(length, 1.0)
    return (max(min(share, end) - after, 0.0) + max(min(1.0 + share, end) - 1.0, 0.0)) / length
