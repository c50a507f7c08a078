"""Power at rest: measured before windows, and learnt from the rest after each of them.

A board rests at a higher power right after work than before it (clocks and temperature stay up), and comes down within
a second or two. So there are two rests: the one before work, which net energy is computed from, and the one after it,
which fills the time between the end of the work and the refresh that closes the window.

All arithmetic here is on edges; a late poll makes an edge wide, and says nothing about power.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median, stdev

from perjoule.types import Edge, IdlePower, UpdatePeriod

SPREAD_SIGMAS = 3.0  # for a bound that holds in at least 99.5 % of windows,
SPREAD_SIGMAS_PER_GAP = 10.0  # additional sigmas divided by the number of gaps, from Student's t at 99.7 %
RANGE_SHARE = 0.8  # a rest shorter than an update period varies more than whole periods do, as power readings show
LEAST_DOUBT = 0.02  # of idle power; a measurement of one second is not more precise a minute later
QUIET_SHARE = 0.15  # a device whose power varies by more than this share of its mean is not at rest
WIDE_S = 0.001  # an edge wider than this, more than a fiftieth of the period, and
WIDE_SHARE = 0.02
WIDE_TIMES = 3.0  # than three times the usual width was polled late
NARROW_EDGES = 4
MAD_SIGMAS = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def gap_power_w(first: Edge, second: Edge) -> float:
    """Return mean power between two edges in W."""
    return (second.energy_j - first.energy_j) / (second.at_s - first.at_s)


def narrow_edges(edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges that were not polled late: those as narrow as a prompt poll sees them, if they are enough.

    Otherwise those that are not wider than usual; if every call takes long, all are.
    """
    if len(edges) < NARROW_EDGES:
        return list(edges)
    period_s = median(second.at_s - first.at_s for first, second in pairwise(edges))
    prompt = [edge for edge in edges if edge.width_s <= WIDE_S + WIDE_SHARE * period_s]
    if len(prompt) >= max(NARROW_EDGES, len(edges) / 2):
        return prompt
    usual_s = median(edge.width_s for edge in edges)
    return [edge for edge in edges if edge.width_s <= max(WIDE_TIMES * usual_s, WIDE_S + WIDE_SHARE * period_s)]


def late_share(edges: Sequence[Edge]) -> float:
    """Return the share of the edges that were polled late, against the narrowest quarter of them."""
    widths_s = sorted(edge.width_s for edge in edges)
    period_s = median(second.at_s - first.at_s for first, second in pairwise(edges))
    most_s = max(WIDE_TIMES * widths_s[len(widths_s) // 4], WIDE_S + WIDE_SHARE * period_s)
    return sum(width_s > most_s for width_s in widths_s) / len(widths_s)


def narrow_gaps(edges: Sequence[Edge]) -> list[tuple[Edge, Edge]]:
    """Return the gaps between consecutive edges of which neither was polled late."""
    kept = set(narrow_edges(edges))
    return [(first, second) for first, second in pairwise(edges) if first in kept and second in kept]


def update_period(edges: Sequence[Edge]) -> UpdatePeriod:
    """Return the update period over consecutive edges. Raises ValueError for fewer than two."""
    if len(edges) < 2:
        raise ValueError(f"an update period needs two edges, there are {len(edges)}")
    gaps_s = [second.at_s - first.at_s for first, second in narrow_gaps(edges) or pairwise(edges)]
    return UpdatePeriod(median_s=median(gaps_s), shortest_s=min(gaps_s), longest_s=max(gaps_s), gap_count=len(gaps_s))


def idle_power(edges: Sequence[Edge], seen_w: Sequence[float] = ()) -> IdlePower:
    """Return mean power over consecutive edges, and its range over the edges and the power readings `seen_w`.

    Raises ValueError for fewer than two edges.
    """
    gaps = list(pairwise(narrow_edges(edges)))
    if not gaps:
        raise ValueError(f"idle power needs two edges, there are {len(edges)}")
    powers = [gap_power_w(first, second) for first, second in gaps]
    mean_w = gap_power_w(gaps[0][0], gaps[-1][1])
    return IdlePower(
        power_w=mean_w,
        # With a single gap the spread is unknown; half the power is a cautious value.
        spread_w=stdev(powers) if len(powers) > 1 else mean_w / 2,
        lowest_w=min([*powers, *seen_w]),
        highest_w=max([*powers, *seen_w]),
        gap_count=len(powers),
    )


def usual_rest(powers_w: Sequence[float]) -> IdlePower:
    """Return median and spread (by the median absolute deviation) of the rests after the last few windows."""
    middle_w = median(powers_w)
    return IdlePower(
        power_w=middle_w,
        spread_w=MAD_SIGMAS * median(abs(power_w - middle_w) for power_w in powers_w),
        lowest_w=min(powers_w),
        highest_w=max(powers_w),
        gap_count=len(powers_w),
    )


def idle_uncertainty_w(idle: IdlePower) -> float:
    """Return a bound on the power of a single rest in W."""
    sigmas = SPREAD_SIGMAS + SPREAD_SIGMAS_PER_GAP / max(idle.gap_count - 1, 1)
    return max(sigmas * idle.spread_w, RANGE_SHARE * (idle.highest_w - idle.lowest_w), LEAST_DOUBT * idle.power_w)


def is_at_rest(idle: IdlePower, blur_w: float = 0.0) -> bool:
    """Return whether the device rested, according to counter and power reading; `blur_w` is due to edges."""
    return idle_uncertainty_w(idle) <= QUIET_SHARE * idle.power_w + blur_w
