"""Computes a reading from the log of an energy counter, without a clock or a device.

A counter that is refreshed every T shows, at any moment, the energy up to its last refresh. Subtracting two
values read at arbitrary moments is biased low by (P_work - P_idle) * T / 2 for work between rests, and
repeating does not remove it. So both ends are moved to a refresh (an *edge*), and the added energy is subtracted:

     idle    before                                  stopped_s   after          rest
    ─────────┤├┬───────────────── work ──────────────────┬─────────┤├────────────┤├──
               started_s                                 └─ tail ──┘└ idle again ┘

    energy = after - before - tails

The tail after the work has two models, and the one with the narrower bound is used:

    at rest       tail = length * P_rest + fall; P_rest is the power between the next two edges
    working on    tail = its share of the energy of the last update period; all that is known is that power
                  stays between the lowest and the highest that was ever seen, so that at most
                  dP * x * (T - x) / T can be wrong

    bound = uncertainty of the tail model + half of each edge's width * tail power + quantisation

Real boards fall to their rest over milliseconds after the device has finished: the fall is (P_work - P_rest) times at
most FALL_S, and less where earlier windows have shown that (see `show`). Real counters may lag, or average power over
up to a second. As long as that is not excluded, the window is closed by the first edge that is late enough, and a rest
after it that is higher than the one before may be energy of the work.

Not in the bound: gain and offset of the sensor itself, about 5 % and up to 20 W (arXiv 2312.02741), which no window
removes; see `calibration`.

If a counter was reset, stopped or disappeared inside the window, its readings until then are used, and the power
reading, if there is one, fills the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

from perjoule.meters.bracketed import LIMIT_HEADROOM, QUANTISATION_J, Bracketed, Part, front_part, range_w, unseen_j
from perjoule.meters.rest import gap_power_w, idle_uncertainty_w, is_at_rest
from perjoule.meters.salvage import looks_of, salvaged, stuck_since_s
from perjoule.types import CounterLog, Edge, IdlePower, UpdatePeriod
from perjoule.warnings import has_code, warning

IDLE_STEP_W = 5.0  # a smaller change of idle power does not cause a warning
FALL_S = 0.010  # boards are at rest this long after the end of work (3 to 10 ms were recorded)
BOX_S = 1.0  # the longest average of a published sensor
MOST_BLUR = 0.15  # of a rest's power; if polls were so late, a later rest is used
SURE = 1.5  # times the power that an average over BOX_S would have shown after the work
MOST_ELEVATED = 0.25  # of the power at work above rest: a board that rests at more after work is taken to average
LAG_DOUBT_S = 0.005  # of a measured lag
BOX_DOUBT = 0.05  # of a measured box
DECAY_S = 0.2  # a rest that is elevated after work does not come down faster than with this time constant,
MOST_DECAY = 0.5  # and not by more than this share of the elevation before it is measured
LEFT_S = 0.001  # of work: so little energy of it may still come after the reach, as a part of the fall
MATTERS = 0.02  # of the net energy: a change of the rest that moves it by less does not cause a warning
MOST_PEAK = 2.0  # work may end with this many times of what it drew above rest on average
QUIET_WORK = 0.8  # of the rest after it, work draws at least this much
WORKS = 5.0  # times the doubt about rest: work that draws less above it shows nothing
SEAM_S = 0.003  # between the end of the window and the first poll after it, on a busy host


def expected_uncertainty_j(
    period: UpdatePeriod, idle: IdlePower, edge_width_s: float = 0.0007, fall_j: float = 0.0
) -> float:
    """Return the bound in J of work between rests at the worst phase; it does not depend on the duration."""
    return period.longest_s * idle_uncertainty_w(idle) + edge_width_s * idle.power_w + QUANTISATION_J + fall_j


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
    looks = looks_of(log)
    resets = [(one, other) for one, other in pairwise(looks) if other.energy_j < one.energy_j]
    stuck_s = stuck_since_s(log, looks)
    after = log.after
    if after is None or stuck_s is not None or resets:
        return salvaged(log, looks, stuck_s)
    log = closed(log)
    after = log.after
    assert after is not None

    counted_j = after.energy_j - log.before.energy_j
    span_s = after.at_s - log.before.at_s
    widths_s = log.before.width_s + after.width_s
    if log.limit_w is not None and counted_j > LIMIT_HEADROOM * log.limit_w * (span_s + widths_s):
        return _invalid("W212", f"{counted_j:.1f} J in {span_s:.3f} s is above the limit of {log.limit_w:g} W")
    least_w = _least_w(log, after)
    if counted_j < 0.5 * least_w * span_s:
        said = f"{counted_j:.3f} J in {span_s:.3f} s is less than half of {least_w:.1f} W at rest"
        return _invalid("W213", said)

    front, tail = front_part(log), _tail(log, after)
    energy_j = counted_j - front.energy_j - tail.energy_j
    bound_j = front.bound_j + tail.bound_j + QUANTISATION_J + unseen_j(log)
    warnings = tail.warnings
    if may_average(log) and _is_quiet(log):
        owing = warning("W218", "windows so far do not exclude that the counter averages power over up to 1 s")
        warnings = (*warnings, owing)
    return Bracketed(energy_j=energy_j, uncertainty_j=bound_j, warnings=warnings)


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


def closed(log: CounterLog) -> CounterLog:
    """Return the log as an ideal counter would have written it, where the board rests around the window.

    The edges are moved by the counter's lag and half of its box, since over rests the mean over a box is the power in
    its middle, and `after` becomes the first edge that contains all energy of the work.
    """
    edges = [edge for edge in (log.after, log.rest, *log.later) if edge is not None]
    for number, (one, other) in enumerate(pairwise(edges), start=1):
        if other.energy_j < one.energy_j:  # the counter fell after the window was closed: only its rest is lost
            edges = edges[:number]
            break
    if not _is_quiet(log):
        return replace(log, rest=edges[1] if len(edges) > 1 else None, later=())
    response, shift_s = log.response, 0.0
    if response.lag_s is not None and response.box_s is not None:
        late_s, shift_s = late_after_s(response.lag_s, response.box_s), response.lag_s + response.box_s / 2
    else:  # the window itself may show that the counter is faster than the slowest one
        shown, late_s = show(log), response.reach_s
        if shown is not None and not may_average(log):
            late_s = shown.reach_s if response.averages else min(late_s, shown.reach_s)
            most_s = max(shown.most_s + shown.doubt_s, shown.least_s)
            response = replace(response, most_fall_s=min(response.most_fall_s, most_s))
        elif _draws_like_rest(log, edges[-1]):
            late_s = 0.0
    late_s += log.stopped_s
    first = next((i for i, edge in enumerate(edges) if edge.at_s >= late_s), len(edges) - 1)
    edges = [_earlier(edge, shift_s) for edge in edges[first:]]
    return replace(
        log,
        before=_earlier(log.before, shift_s),
        after=edges[0],
        rest=edges[1] if len(edges) > 1 else None,
        later=tuple(edges[2:]),
        response=response,
    )


def late_after_s(lag_s: float, box_s: float) -> float:
    """Return the time in s after work from which on a counter with a measured lag and box has counted all of it."""
    return lag_s + box_s + max(LAG_DOUBT_S, BOX_DOUBT * box_s) if lag_s or box_s else 0.0


def _draws_like_rest(log: CounterLog, last: Edge) -> bool:
    """Return whether no more was drawn above rest than the doubt about rest, in the time to show it."""
    above_j = last.energy_j - log.before.energy_j - log.idle.power_w * (last.at_s - log.before.at_s)
    above_w = above_j / max(log.stopped_s - log.started_s, 1e-6)
    return above_w <= idle_uncertainty_w(log.idle)


def _is_measured(log: CounterLog) -> bool:
    return log.response.lag_s is not None and log.response.box_s is not None


def _earlier(edge: Edge, shift_s: float) -> Edge:
    return replace(edge, early_s=edge.early_s - shift_s, late_s=edge.late_s - shift_s) if shift_s else edge


def _tail(log: CounterLog, after: Edge) -> Part:
    """Return the part from the end of the window to the edge after it.

    The device is taken to rest after the window, unless that leaves more than twice the doubt of one that works on.
    Where both models hold, so does the narrower bound of the two around the rest.
    """
    rest, working = _tail_at_rest(log, after), _tail_working_on(log, after)
    if rest is None:
        return working
    if (
        may_average(log)
        or log.response.lag_s
        or log.response.box_s
        or after.at_s - log.stopped_s > log.period.longest_s
    ):
        return rest  # not the first edge, or not all of the energy
    if not _is_measured(log):  # that model knows no lag
        late_j = log.response.reach_s * max(work_power_w(log, after) - log.idle.power_w, 0.0)
        working = replace(working, bound_j=working.bound_j + late_j)
    if rest.bound_j > 2 * working.bound_j:
        return replace(working, warnings=rest.warnings)
    return replace(rest, bound_j=min(rest.bound_j, abs(rest.energy_j - working.energy_j) + working.bound_j))


def _tail_at_rest(log: CounterLog, after: Edge) -> Part | None:
    """Return the tail of a device that rests before and after the window; None if it did not rest before."""
    if not _is_quiet(log):
        return None
    idle, length_s = log.idle, max(after.at_s - log.stopped_s, 0.0)
    doubt_w = idle_uncertainty_w(idle)
    before_w = idle.power_w if log.rest_before_w is None else log.rest_before_w
    power_w, drift_w, late_j = before_w, 0.0, 0.0
    warnings: tuple[str, ...] = ()
    seen = rest_after(log)
    if seen is None:
        power_w = idle.power_w
    else:
        rest_w, blur_w, middle_s = seen
        change_w = rest_w - before_w
        if abs(rest_w - idle.power_w) <= doubt_w + blur_w:  # the same rest: use all readings of it
            power_w = (idle.gap_count * idle.power_w + rest_w) / (idle.gap_count + 1)
        else:  # a rest that is still coming down was higher in the tail
            power_w = rest_w
            passed_s = middle_s - (log.stopped_s + after.at_s) / 2
            drift_w = max(change_w, 0.0) * min(passed_s / DECAY_S, MOST_DECAY)
        doubt_w = max(doubt_w, blur_w)
        late_j = _late_j(log, change_w, doubt_w, after)
        if _is_news(log, rest_w, change_w, doubt_w + blur_w, after):
            said = f"idle power was {before_w:.1f} W before the window and {rest_w:.1f} W after it"
            warnings = (warning("W208", said),)
    least_j, most_j = _fall_j(log, after, power_w)
    # a rest varies more over a part of an update period than over all of it
    near_s = sqrt(length_s * (length_s + min(log.period.median_s, length_s)) / 2)
    bound_j = near_s * doubt_w + length_s * drift_w + after.width_s / 2 * (power_w + doubt_w)
    return Part(length_s * power_w + least_j, bound_j + most_j - least_j + late_j, warnings)


def rest_after(log: CounterLog) -> tuple[float, float, float] | None:
    """Return power in W of the first gap after the fall, its uncertainty due to edges, and its middle in s; or None."""
    edges = [edge for edge in (log.after, log.rest, *log.later) if edge is not None]
    gaps = list(pairwise(edges))
    if not gaps:
        return None
    box_s = log.response.box_s or 0.0
    settled_s = FALL_S + box_s * (0.5 + BOX_DOUBT) if _is_measured(log) else max(FALL_S, log.response.reach_s)
    fallen = [gap for gap in gaps if gap[0].at_s >= log.stopped_s + settled_s] or gaps[-1:]
    first, second = next((gap for gap in fallen if is_narrow(*gap)), min(fallen, key=_blur))
    power_w = gap_power_w(first, second)
    return power_w, power_w * _blur((first, second)), (first.at_s + second.at_s) / 2


def is_narrow(first: Edge, second: Edge) -> bool:
    """Return whether neither of two edges was polled so late that the power between them is uncertain."""
    return _blur((first, second)) <= MOST_BLUR


def _blur(gap: tuple[Edge, Edge]) -> float:
    """Return the relative uncertainty of the power between two edges, due to their widths."""
    return (gap[0].width_s + gap[1].width_s) / (gap[1].at_s - gap[0].at_s)


def _late_j(log: CounterLog, change_w: float, doubt_w: float, after: Edge) -> float:
    """Return the energy in J that the counter may owe to the work, if its lag is unknown.

    A counter that averages over a second shows energy of the work after it, as a rest that is higher than before. One
    that lags shows a part of the rest before instead of the rest after.
    """
    late_j = 0.0 if _is_measured(log) else abs(change_w) * log.response.reach_s
    if may_average(log):
        owed_j = max(change_w + doubt_w, 0.0) * (BOX_S + max(after.at_s - log.stopped_s, 0.0))
        if log.limit_w is not None:  # no work draws more than this
            owed_j = min(owed_j, LIMIT_HEADROOM * log.limit_w * (log.stopped_s - log.started_s))
        late_j += owed_j
    return late_j


def may_average(log: CounterLog) -> bool:
    """Return whether the counter may average over as much as a second; see `longest_box_s`."""
    return log.response.averages and longest_box_s(log) >= BOX_S


def longest_box_s(log: CounterLog) -> float:
    """Return the longest box that the counter may have, as far as the window shows it; at most `BOX_S`.

    A time x after work of W, a counter with a box B still shows the share min(W, B - x) / B of its power. One that
    shows the share s has a box of at most x / (1 - s), or of W / s and more.
    """
    edges = [edge for edge in (log.after, log.rest, *log.later) if edge is not None]
    seen = rest_after(log)
    if not edges or seen is None:
        return BOX_S
    if _draws_like_rest(log, edges[-1]):
        return 0.0
    before_w = log.idle.power_w if log.rest_before_w is None else log.rest_before_w
    above_w = work_power_w(log, edges[-1]) - before_w
    shown_w = max(seen[0] - before_w, 0.0) + idle_uncertainty_w(log.idle) + seen[1]
    share = shown_w / above_w if above_w > 0 else 1.0
    if share >= MOST_ELEVATED or SURE * share * BOX_S >= min(log.stopped_s - log.started_s, BOX_S):
        return BOX_S
    return min((seen[2] - log.stopped_s) / (1 - share), BOX_S)


def _fall_j(log: CounterLog, after: Edge, rest_w: float) -> tuple[float, float]:
    """Return the least and the most energy in J, above rest, between the end of the window and the edge after it."""
    length_s = max(after.at_s - log.stopped_s, 0.0)
    above_w = max(_most_work_w(log, after, rest_w) - rest_w, 0.0)
    most_j = above_w * min(log.response.most_fall_s, length_s)
    # of the last update period, what is not rest after the window nor at least as much as rest before its end
    if log.stop_j is not None and most_j:
        # an edge that coincides with the end may be in `stop_j` or not
        since_s = length_s % log.period.median_s
        open_s = max(log.period.shortest_s - since_s - SEAM_S, 0.0) if since_s > SEAM_S else 0.0
        counted_j = after.energy_j - log.stop_j - rest_w * length_s - QUIET_WORK * rest_w * open_s
        most_j = min(most_j, max(counted_j, 0.0))
    least_j = min(above_w * log.response.least_fall_s, most_j) if length_s >= FALL_S else 0.0
    return least_j, most_j


def work_power_w(log: CounterLog, after: Edge) -> float:
    """Return a power in W that work has reached in the window: the highest of its mean and of the power readings."""
    seen = [poll.power_w for poll in log.polls if poll.power_w is not None]
    duration_s = max(log.stopped_s - log.started_s, 1e-6)
    outside_s = max(after.at_s - log.before.at_s - duration_s, 0.0)
    return max([(after.energy_j - log.before.energy_j - log.idle.power_w * outside_s) / duration_s, *seen])


def _most_work_w(log: CounterLog, after: Edge, rest_w: float) -> float:
    """Return the highest plausible power in W at the end of the work, from the last update period with work in it."""
    power_w = work_power_w(log, after)
    length_s = max(after.at_s - log.stopped_s, 0.0)
    open_s = log.period.median_s - length_s % log.period.median_s - SEAM_S
    if log.stop_j is None or open_s <= 0:
        return power_w
    end_w = (after.energy_j - log.stop_j - rest_w * length_s) / open_s
    most_w = rest_w + MOST_PEAK * max(power_w - rest_w, 0.0)
    return max(power_w, min(end_w, most_w))


def _is_news(log: CounterLog, rest_w: float, change_w: float, doubt_w: float, after: Edge) -> bool:
    """Return whether the rest after the window is not the usual one, and the difference matters for net energy."""
    least_w = max(IDLE_STEP_W, 2 * doubt_w)
    if abs(change_w) <= least_w:
        return False
    usual = log.rest_after
    if usual is not None and abs(rest_w - usual.power_w) <= max(least_w, 3 * usual.spread_w):
        return False
    above_w = max(work_power_w(log, after) - log.idle.power_w, 0.0)
    return abs(change_w) > MATTERS * above_w


def _is_quiet(log: CounterLog) -> bool:
    """Return whether the device rested before the window, according to counter and power reading."""
    return is_at_rest(log.idle, _blur_w(log.before.width_s, log.period.median_s, log.idle.power_w))


def _tail_working_on(log: CounterLog, after: Edge) -> Part:
    """Return the tail as a share of its last update period, bounded by the range of power."""
    lowest_w, highest_w = range_w(log)
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
    return Part(tail_j, bound_j)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a window shows about the fall of its board and the reach of its counter, in s; see `show`.

    Attributes:
        near_s: Time between the end of the work and the edge that shows most.
        most_s: Upper limit of the fall, without `doubt_s`.
        doubt_s: Uncertainty of that limit, due to the rest.
        least_s: Lower limit.
        reach_s: Time after the end of the work from which on hardly any energy of it is counted; inf if unknown.
    """

    near_s: float
    most_s: float
    doubt_s: float
    least_s: float
    reach_s: float


def show(log: CounterLog) -> Shown | None:
    """Return what a window shows about its board and counter; None for a device that did not rest.

    At an edge u after the end of the work, the energy X(u) above rest is still to come. Power at work is at most dP
    above rest, so the fall is between X(u) / dP and u + X(u) / dP. The edges after a window show that at several u, and
    the last edge before its end, at u < 0, shows it once more.
    """
    edges = [edge for edge in (log.after, log.rest, *log.later) if edge is not None]
    seen = rest_after(log)
    if log.after is None or seen is None or not _is_quiet(log):
        return None
    rest_w, blur_w, middle_s = seen
    above_w = work_power_w(log, log.after) - rest_w
    doubt_w = max(idle_uncertainty_w(log.idle), blur_w)
    if above_w <= WORKS * doubt_w:
        return None
    peak = (_most_work_w(log, log.after, rest_w) - rest_w) / above_w
    flat = next(edge for edge, other in pairwise(edges) if (edge.at_s + other.at_s) / 2 >= middle_s - 1e-9)
    least_s, reach_s = 0.0, float("inf")
    limits = []
    for edge in edges[: edges.index(flat) + 1]:
        after_s = max(edge.at_s - log.stopped_s, 0.0)
        left_j = flat.energy_j - edge.energy_j - rest_w * (flat.at_s - edge.at_s)
        doubt_j = doubt_w * (flat.at_s - edge.at_s) + rest_w * edge.width_s / 2
        least_s = max(least_s, (left_j - doubt_j) / (peak * above_w))
        limits.append((after_s, peak * (after_s + edge.width_s / 2) + left_j / above_w, doubt_j / above_w))
        if left_j <= doubt_j + LEFT_S * above_w:
            reach_s = min(reach_s, after_s)
    if log.stop_j is not None:
        open_s = max(log.period.longest_s - max(edges[0].at_s - log.stopped_s, 0.0), 0.0)
        left_j = flat.energy_j - log.stop_j - rest_w * (flat.at_s - log.stopped_s) - QUIET_WORK * rest_w * open_s
        limits.append((open_s, left_j / above_w, doubt_w * (flat.at_s - log.stopped_s) / above_w))
    near_s, most_s, doubt_s = min(limits)
    return Shown(near_s=near_s, most_s=most_s, doubt_s=doubt_s, least_s=least_s, reach_s=reach_s)


def _blur_w(widths_s: float, gap_s: float, power_w: float) -> float:
    """Return the uncertainty in W of the mean power between two edges, due to their width."""
    return power_w * widths_s / gap_s


def _invalid(code: str, sentence: str) -> Bracketed:
    return Bracketed(energy_j=None, uncertainty_j=None, warnings=(warning(code, sentence),))
