"""Computes a reading from the log of an energy counter, without a clock or a device.

A counter that is refreshed every T shows, at any moment, the energy up to its last refresh. Subtracting two
values read at arbitrary moments is biased low by (P_work - P_idle) * T / 2 for work between rests, and
repeating does not remove it. So both ends are moved to a refresh (an *edge*), and the added energy is subtracted:

     idle    before                                  stopped_s   after          rest
    ─────────┤├┬───────────────── work ──────────────────┬─────────┤├────────────┤├──
               started_s                                 └─ tail ──┘└ idle again ┘

    energy = after - before - tails

The tail after the work has two models, and the one with the narrower bound is used:

    at rest       tail = length * P_idle; the device fell to the power measured before and again after
    working on    tail = its share of the energy of the last update period; all that is known is that power
                  stays between the lowest and the highest that was ever seen, so that at most
                  dP * x * (T - x) / T can be wrong

    bound = uncertainty of the tail model + half of each edge's width * tail power + quantisation

Not in the bound: the gain of the sensor itself, about 5 % (arXiv 2312.02741), which no window removes.

If a counter was reset, stopped or disappeared inside the window, its readings until then are used, and the power
reading, if there is one, fills the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median, stdev

from perjoule.meters.part_time import part_time_uncertainty_j
from perjoule.types import CounterLog, Edge, IdlePower, UpdatePeriod
from perjoule.warnings import has_code, warning

QUANTISATION_J = 0.002  # the counter counts whole mJ, and two values are subtracted
LIMIT_HEADROOM = 1.1  # boards overshoot their power limit for milliseconds, counters do not by more than this
IDLE_STEP_W = 5.0  # a smaller change of idle power does not cause a warning
SPREAD_SIGMAS = 3.0  # for a bound that holds in at least 99.5 % of windows,
SPREAD_SIGMAS_PER_GAP = 10.0  # additional sigmas divided by the number of gaps, from Student's t at 99.7 %
RANGE_SHARE = 0.8  # a rest shorter than an update period varies more than whole periods do, as power readings show
LEAST_DOUBT = 0.02  # of idle power; a measurement of one second is not more precise a minute later
QUIET_SHARE = 0.15  # a device whose power varies by more than this share of its mean is not at rest
UNSEEN_RANGE = 1.0  # power may exceed the range that sensors showed by this share of it
SEAM_S = 0.003  # between the end of the window and the first poll after it, on a busy host
STUCK_GAPS = 3.0  # a counter is stuck after this many longest update periods without a change
BLIND_S = 0.25  # power readings that end earlier than this before the window's end do not fill a gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracketed:
    """Energy and bound of a window, or None with the reasons.

    `partial_energy_j`: energy counted in the first `partial_s` of the window, if the total is unknown.
    """

    energy_j: float | None
    uncertainty_j: float | None
    warnings: tuple[str, ...]
    partial_energy_j: float | None = None
    partial_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Energy in J, its bound, and warnings."""

    energy_j: float
    bound_j: float
    warnings: tuple[str, ...] = ()


# -- measurements before the window --------------------------------------------------------------------------------


def gap_power_w(first: Edge, second: Edge) -> float:
    """Return mean power between two edges in W."""
    return (second.energy_j - first.energy_j) / (second.at_s - first.at_s)


def update_period(edges: Sequence[Edge]) -> UpdatePeriod:
    """Return the update period over consecutive edges. Raises ValueError for fewer than two."""
    gaps = [second.at_s - first.at_s for first, second in pairwise(edges)]
    if not gaps:
        raise ValueError(f"an update period needs two edges, there are {len(edges)}")
    return UpdatePeriod(median_s=median(gaps), shortest_s=min(gaps), longest_s=max(gaps), gap_count=len(gaps))


def idle_power(edges: Sequence[Edge], seen_w: Sequence[float] = ()) -> IdlePower:
    """Return mean power over consecutive edges, and its range over the edges and the power readings `seen_w`.

    Raises ValueError for fewer than two edges.
    """
    powers = [gap_power_w(first, second) for first, second in pairwise(edges)]
    if not powers:
        raise ValueError(f"idle power needs two edges, there are {len(edges)}")
    mean_w = gap_power_w(edges[0], edges[-1])
    return IdlePower(
        power_w=mean_w,
        # With a single gap the spread is unknown; half the power is a cautious value.
        spread_w=stdev(powers) if len(powers) > 1 else mean_w / 2,
        lowest_w=min([*powers, *seen_w]),
        highest_w=max([*powers, *seen_w]),
        gap_count=len(powers),
    )


def idle_uncertainty_w(idle: IdlePower) -> float:
    """Return a bound on the power of a single rest in W."""
    sigmas = SPREAD_SIGMAS + SPREAD_SIGMAS_PER_GAP / max(idle.gap_count - 1, 1)
    return max(sigmas * idle.spread_w, RANGE_SHARE * (idle.highest_w - idle.lowest_w), LEAST_DOUBT * idle.power_w)


def expected_uncertainty_j(period: UpdatePeriod, idle: IdlePower, edge_width_s: float = 0.0007) -> float:
    """Return the bound in J of work between rests at the worst phase; it does not depend on the duration."""
    return period.longest_s * idle_uncertainty_w(idle) + edge_width_s * idle.power_w + QUANTISATION_J


# -- the window ----------------------------------------------------------------------------------------------------


def bracket(log: CounterLog) -> Bracketed:
    """Turn the log of a window into energy and bound.

    Returns:
        Energy in J from `started_s` to `stopped_s`. It is None if the counter counted more than the limit allows
        (W212) or less than half of the device's power at rest (W213), or failed (W211, W220) without a power reading
        to fill in; the partial energy is then the energy counted until the failure. It is also None if the process
        was suspended in the window (W251).
    """
    if log.lost is not None and has_code(log.lost, "W251"):  # suspended: the counted energy is not that of the work
        return Bracketed(energy_j=None, uncertainty_j=None, warnings=(log.lost,))
    looks = _looks(log)
    resets = [(one, other) for one, other in pairwise(looks) if other.energy_j < one.energy_j]
    stuck_s = _stuck_since_s(log, looks)
    after = log.after
    if after is None or stuck_s is not None or resets:
        return _salvaged(log, looks, stuck_s)
    if log.rest is not None and log.rest.energy_j < after.energy_j:
        # the window itself was closed before the counter fell; only the reading at rest is lost
        log = replace(log, rest=None)

    counted_j = after.energy_j - log.before.energy_j
    span_s = after.at_s - log.before.at_s
    widths_s = log.before.width_s + after.width_s
    if log.limit_w is not None and counted_j > LIMIT_HEADROOM * log.limit_w * (span_s + widths_s):
        return _invalid("W212", f"{counted_j:.1f} J in {span_s:.3f} s is above the limit of {log.limit_w:g} W")
    least_w = _least_w(log, after)
    if counted_j < 0.5 * least_w * span_s:
        said = f"{counted_j:.3f} J in {span_s:.3f} s is less than half of {least_w:.1f} W at rest"
        return _invalid("W213", said)

    front, tail = _front(log), _tail(log, after)
    energy_j = counted_j - front.energy_j - tail.energy_j
    bound_j = front.bound_j + tail.bound_j + QUANTISATION_J + _unseen_j(log)
    return Bracketed(energy_j=energy_j, uncertainty_j=bound_j, warnings=tail.warnings)


def _least_w(log: CounterLog, after: Edge) -> float:
    """Return the lowest power in W of the device before, in and after the window."""
    seen = [poll.power_w for poll in log.polls if poll.power_w is not None]
    if log.rest is not None:
        seen.append(gap_power_w(after, log.rest))
    return min([log.idle.lowest_w, *seen])


def power_ratio(log: CounterLog) -> float | None:
    """Return counter energy divided by energy of the power reading, between the first and last reading inside.

    The result is None if the window has fewer than ten readings of both. Two sensors of one board differ by a few
    per cent in their gains; a much larger difference means that one of them misses load.
    """
    looks = [poll for poll in log.polls if poll.energy_j is not None and poll.power_w is not None]
    if len(looks) < 10:
        return None
    by_power_j = sum((b.t_s - a.t_s) * ((a.power_w or 0.0) + (b.power_w or 0.0)) / 2 for a, b in pairwise(looks))
    by_counter_j = (looks[-1].energy_j or 0.0) - (looks[0].energy_j or 0.0)
    return by_counter_j / by_power_j if by_power_j > 0 and by_counter_j >= 0 else None


def _unseen_j(log: CounterLog) -> float:
    """Return the energy in J that a part-time counter may have missed; see `part_time.part_time_uncertainty_j`."""
    if log.seen_share >= 1.0:
        return 0.0
    lowest_w, highest_w = _range_w(log)
    return part_time_uncertainty_j(
        duration_s=log.stopped_s - log.started_s,
        period_s=log.period.median_s,
        seen_share=log.seen_share,
        range_w=highest_w - lowest_w,
    )


def _front(log: CounterLog) -> _Part:
    """Return the part from the edge before the window to its start: short, unless several boards were waited for."""
    idle = log.idle
    length_s = max(log.started_s - log.before.at_s, 0.0)
    doubt_w = max(idle_uncertainty_w(idle), idle.highest_w - idle.power_w, idle.power_w - idle.lowest_w)
    bound_j = length_s * doubt_w + log.before.width_s / 2 * idle.highest_w
    return _Part(length_s * idle.power_w, bound_j)


def _tail(log: CounterLog, after: Edge) -> _Part:
    """Return the part from the end of the window to the edge after it, by the model with the smaller bound."""
    rest, working = _tail_at_rest(log, after), _tail_working_on(log, after)
    if rest is None:
        return working
    chosen = rest if rest.bound_j <= working.bound_j else working
    return replace(chosen, warnings=rest.warnings)


def _tail_at_rest(log: CounterLog, after: Edge) -> _Part | None:
    """Return the tail of a device that rests before and after the window; None if it did not rest before."""
    idle = log.idle
    length_s = max(after.at_s - log.stopped_s, 0.0)
    doubt_w = idle_uncertainty_w(idle)
    if not _is_quiet(log):
        return None
    power_w = idle.power_w
    warnings: tuple[str, ...] = ()
    if log.rest is not None:
        rest_w = gap_power_w(after, log.rest)
        blur_w = _blur_w(after.width_s + log.rest.width_s, log.rest.at_s - after.at_s, rest_w)
        change_w = abs(rest_w - idle.power_w)
        if change_w <= doubt_w + blur_w:  # the same rest: use all readings of it
            power_w = (idle.gap_count * idle.power_w + rest_w) / (idle.gap_count + 1)
        else:
            # A device falls to its idle power gradually. The rest after the window is nearer to the tail in time, and
            # the tail may exceed it by as much as it exceeds idle power.
            power_w, doubt_w = rest_w, max(doubt_w, 2 * change_w)
        doubt_w = max(doubt_w, blur_w)
        if change_w > max(IDLE_STEP_W, 2 * idle_uncertainty_w(idle)) + blur_w:
            said = f"idle power was {idle.power_w:.1f} W before the window and {rest_w:.1f} W after it"
            warnings = (warning("W208", said),)
    return _Part(length_s * power_w, length_s * doubt_w + after.width_s / 2 * (power_w + doubt_w), warnings)


def _is_quiet(log: CounterLog) -> bool:
    """Return whether the device rested before the window, according to counter and power reading."""
    idle = log.idle
    most_w = QUIET_SHARE * idle.power_w + _blur_w(log.before.width_s, log.period.median_s, idle.power_w)
    return idle_uncertainty_w(idle) <= most_w


def _tail_working_on(log: CounterLog, after: Edge) -> _Part:
    """Return the tail as a share of its last update period, bounded by the range of power."""
    lowest_w, highest_w = _range_w(log)
    length_s = max(after.at_s - log.stopped_s, 0.0)
    # some update periods are shorter, and some longer, than the few that were measured
    more_s = (log.period.longest_s - log.period.shortest_s) / 2
    shortest_s, period_s, longest_s = log.period.shortest_s - more_s, log.period.median_s, log.period.longest_s + more_s
    if length_s > shortest_s - SEAM_S:
        # An edge coincides with the end of the window: it may be in `stop_j` or not, or its poll was late.
        shortest_s, period_s, longest_s = length_s, length_s + period_s / 2, length_s + longest_s
    gap_j = after.energy_j - (log.stop_j if log.stop_j is not None else after.energy_j - highest_w * period_s)
    # Limits of the tail's energy: the range of power applies to the tail and to the time before it.
    least_j = max(lowest_w * length_s, gap_j - highest_w * (longest_s - length_s))
    most_j = min(highest_w * length_s, gap_j - lowest_w * (shortest_s - length_s))
    least_j, most_j = (
        min(least_j, most_j),
        max(least_j, most_j),
    )  # they cross if the measured range was narrower than that of power
    tail_j = min(max(gap_j * length_s / period_s, least_j), most_j)
    bound_j = max(most_j - tail_j, tail_j - least_j) + after.width_s / 2 * highest_w
    return _Part(tail_j, bound_j)


def _blur_w(widths_s: float, gap_s: float, power_w: float) -> float:
    """Return the uncertainty in W of the mean power between two edges, due to their width."""
    return power_w * widths_s / gap_s


def _range_w(log: CounterLog) -> tuple[float, float]:
    """Return the lowest and highest plausible power of the device, in W."""
    seen = [log.idle.lowest_w, log.idle.highest_w]
    seen += [poll.power_w for poll in log.polls if poll.power_w is not None]
    if log.after is not None and log.rest is not None:
        seen.append(gap_power_w(log.after, log.rest))
    if log.after is not None:
        duration_s = max(log.stopped_s - log.started_s, 1e-6)
        outside_s = max(log.after.at_s - log.before.at_s - duration_s, 0.0)
        # mean power of the work if the device was at the lowest power for the rest of the bracket
        seen.append((log.after.energy_j - log.before.energy_j - min(seen) * outside_s) / duration_s)
    lowest_w, highest_w = min(seen), max(seen)
    more_w = UNSEEN_RANGE * (highest_w - lowest_w)
    # sensors miss peaks more easily than rests
    most_w = highest_w + 2 * more_w
    return max(lowest_w - more_w, 0.0), most_w if log.limit_w is None else min(most_w, LIMIT_HEADROOM * log.limit_w)


# -- counters that failed inside the window ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """Return the value of the counter at `t_s`."""

    t_s: float
    energy_j: float
    power_w: float | None = None


def _looks(log: CounterLog) -> list[_Look]:
    """Return all readings of the counter, in order of time."""
    looks = [_Look(log.before.late_s, log.before.energy_j)]
    looks += [
        _Look(poll.t_s, poll.energy_j, poll.power_w)
        for poll in log.polls
        if poll.energy_j is not None and log.before.late_s <= poll.t_s <= log.stopped_s
    ]
    if log.stop_j is not None:
        looks.append(_Look(log.stopped_s, log.stop_j))
    if log.after is not None:
        looks.append(_Look(log.after.late_s, log.after.energy_j))
    return looks


def _stuck_since_s(log: CounterLog, looks: Sequence[_Look]) -> float | None:
    """Return the last change of the counter before it stopped for too long; None if it did not stop.

    A counter that catches up was only late: its final value is then sufficient for the whole time at rest.
    """
    since_s = looks[0].t_s
    for one, other in pairwise(looks):
        if other.energy_j == one.energy_j:
            if other.t_s - since_s > STUCK_GAPS * log.period.longest_s:
                return since_s
        else:
            since_s = other.t_s
    return None


def _salvaged(log: CounterLog, looks: Sequence[_Look], stuck_s: float | None) -> Bracketed:
    """Return the energy of a window whose counter failed for a part of it.

    The energy is the counter's while the counter ran, and the power reading's otherwise. A reading of the counter
    is up to an update period old, so every transition adds a period at the highest power to the bound.
    """
    inside = [look for look in looks if look.t_s <= log.stopped_s]
    if stuck_s is None and log.lost is not None and has_code(log.lost, "W211"):  # the counter stopped after the window
        stuck_s = next(look.t_s for look in inside if look.energy_j == inside[-1].energy_j)
    counted_j = 0.0
    holes: list[tuple[float, float]] = []
    for one, other in pairwise(inside):
        is_stuck = stuck_s is not None and one.t_s >= stuck_s and other.energy_j == one.energy_j
        if other.energy_j < one.energy_j or is_stuck:
            holes.append((one.t_s, other.t_s))
        else:
            counted_j += other.energy_j - one.energy_j
    if inside[-1].t_s < log.stopped_s:
        holes.append((inside[-1].t_s, log.stopped_s))

    said = _what_failed(log, looks, stuck_s)
    lowest_w, highest_w = _range_w(log)
    period_s = log.period.longest_s
    blind_s = max(STUCK_GAPS * period_s, BLIND_S)
    heard_s = [poll.t_s for poll in log.polls if poll.power_w is not None]
    complete = stuck_s is None and log.stop_j is not None
    if log.after is None and not complete and (not heard_s or heard_s[-1] < log.stopped_s - blind_s):
        until_s = holes[0][0] if holes else inside[-1].t_s
        partial_j, partial_s = _partial(log, inside, until_s)
        return Bracketed(
            energy_j=None, uncertainty_j=None, warnings=said, partial_energy_j=partial_j, partial_s=partial_s
        )

    hole_s = sum(end_s - begin_s for begin_s, end_s in holes)
    energy_j = counted_j - _front(log).energy_j
    energy_j += sum(_power_between_w(log, begin_s, end_s) * (end_s - begin_s) for begin_s, end_s in holes)
    if log.after is not None or complete:  # energy that the counter did not show yet when the window ended
        energy_j += _power_between_w(log, log.stopped_s, log.stopped_s) * log.period.median_s / 2
    seams = 1 + len([one for one, other in pairwise([(0.0, 0.0), *holes]) if one[1] != other[0]])
    bound_j = QUANTISATION_J + (highest_w - lowest_w) / 2 * hole_s + seams * highest_w * period_s
    return Bracketed(energy_j=energy_j, uncertainty_j=bound_j + _unseen_j(log), warnings=said)


def _power_between_w(log: CounterLog, begin_s: float, end_s: float) -> float:
    """Return the mean power reading of an interval and an update period after it; without readings, the mid-range."""
    reach_s = log.period.longest_s
    near = [
        poll.power_w
        for poll in log.polls
        if poll.power_w is not None and begin_s - reach_s <= poll.t_s <= end_s + reach_s
    ]
    return sum(near) / len(near) if near else sum(_range_w(log)) / 2


def _partial(log: CounterLog, looks: Sequence[_Look], until_s: float) -> tuple[float | None, float | None]:
    """Return the energy until the last valid reading, extrapolated from its refresh to the time of the reading.

    The result is (J, seconds of the window), or empty if the source failed before the first reading.
    """
    believed = [look for look in looks if look.t_s <= until_s]
    last = believed[-1]
    if last.t_s <= log.started_s:
        return None, None
    same = [look.t_s for look in believed if look.energy_j == last.energy_j]
    earlier = [look.t_s for look in believed if look.energy_j != last.energy_j]
    refreshed_s = (same[0] + max(earlier[-1], same[0] - log.period.longest_s)) / 2 if earlier else same[0]
    power_w = last.power_w if last.power_w is not None else _power_between_w(log, last.t_s, last.t_s)
    counted_j = last.energy_j - log.before.energy_j - _front(log).energy_j
    return counted_j + power_w * (last.t_s - refreshed_s), last.t_s - log.started_s


def _what_failed(log: CounterLog, looks: Sequence[_Look], stuck_s: float | None) -> tuple[str, ...]:
    said = [
        warning("W210", f"the counter went from {one.energy_j:.3f} J to {other.energy_j:.3f} J")
        for one, other in pairwise(looks)
        if other.energy_j < one.energy_j
    ]
    if stuck_s is not None:
        at = f"{stuck_s - log.started_s:.3f} s after the start"
        said.append(warning("W211", f"the counter stopped changing {at}"))
    if log.lost is not None and not (has_code(log.lost, "W211") and stuck_s is not None):
        said.append(log.lost)
    return tuple(said)


def _invalid(code: str, sentence: str) -> Bracketed:
    return Bracketed(energy_j=None, uncertainty_j=None, warnings=(warning(code, sentence),))
