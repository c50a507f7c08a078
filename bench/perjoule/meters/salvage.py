"""The energy of a window in which a counter was reset, stopped or disappeared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from perjoule.meters.bracketed import QUANTISATION_J, Bracketed, front_part, range_w, unseen_j
from perjoule.types import CounterLog
from perjoule.warnings import has_code, warning

STUCK_GAPS = 3.0  # a counter is stuck after this many longest update periods without a change
BLIND_S = 0.25  # power readings that end earlier than this before the window's end do not fill a gap


@dataclass(frozen=True, slots=True)
class Look:
    """The value of the counter at `t_s`."""

    t_s: float
    energy_j: float
    power_w: float | None = None


def looks_of(log: CounterLog) -> list[Look]:
    """Return all readings of the counter, in order of time."""
    looks = [Look(log.before.late_s, log.before.energy_j)]
    looks += [
        Look(poll.t_s, poll.energy_j, poll.power_w)
        for poll in log.polls
        if poll.energy_j is not None and log.before.late_s <= poll.t_s <= log.stopped_s
    ]
    if log.stop_j is not None:
        looks.append(Look(log.stopped_s, log.stop_j))
    if log.after is not None:
        looks.append(Look(log.after.late_s, log.after.energy_j))
    return looks


def stuck_since_s(log: CounterLog, looks: Sequence[Look]) -> float | None:
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


def salvaged(log: CounterLog, looks: Sequence[Look], stuck_s: float | None) -> Bracketed:
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
    lowest_w, highest_w = range_w(log)
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
    energy_j = counted_j - front_part(log).energy_j
    energy_j += sum(_power_between_w(log, begin_s, end_s) * (end_s - begin_s) for begin_s, end_s in holes)
    if log.after is not None or complete:  # energy that the counter did not show yet when the window ended
        energy_j += _power_between_w(log, log.stopped_s, log.stopped_s) * log.period.median_s / 2
    seams = 1 + len([one for one, other in pairwise([(0.0, 0.0), *holes]) if one[1] != other[0]])
    bound_j = QUANTISATION_J + (highest_w - lowest_w) / 2 * hole_s + seams * highest_w * period_s
    return Bracketed(energy_j=energy_j, uncertainty_j=bound_j + unseen_j(log), warnings=said)


def _power_between_w(log: CounterLog, begin_s: float, end_s: float) -> float:
    """Return the mean power reading of an interval and an update period after it; without readings, the mid-range."""
    reach_s = log.period.longest_s
    near = [
        poll.power_w
        for poll in log.polls
        if poll.power_w is not None and begin_s - reach_s <= poll.t_s <= end_s + reach_s
    ]
    return sum(near) / len(near) if near else sum(range_w(log)) / 2


def _partial(log: CounterLog, looks: Sequence[Look], until_s: float) -> tuple[float | None, float | None]:
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
    counted_j = last.energy_j - log.before.energy_j - front_part(log).energy_j
    return counted_j + power_w * (last.t_s - refreshed_s), last.t_s - log.started_s


def _what_failed(log: CounterLog, looks: Sequence[Look], stuck_s: float | None) -> tuple[str, ...]:
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
