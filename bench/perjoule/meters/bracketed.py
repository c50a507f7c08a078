"""The result of a counter's window, and the parts of it that need neither edges nor a rest after the work."""

from __future__ import annotations

from dataclasses import dataclass

from perjoule.meters.part_time import part_time_uncertainty_j
from perjoule.meters.rest import gap_power_w, idle_uncertainty_w
from perjoule.types import CounterLog

QUANTISATION_J = 0.002  # the counter counts whole mJ, and two values are subtracted
LIMIT_HEADROOM = 1.1  # boards overshoot their power limit for milliseconds, counters do not by more than this
UNSEEN_RANGE = 1.0  # power may exceed the range that sensors showed by this share of it


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
class Part:
    """Energy in J, its bound, and warnings."""

    energy_j: float
    bound_j: float
    warnings: tuple[str, ...] = ()


def range_w(log: CounterLog) -> tuple[float, float]:
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


def unseen_j(log: CounterLog) -> float:
    """Return the energy in J that a part-time counter may have missed; see `part_time.part_time_uncertainty_j`."""
    if log.seen_share >= 1.0:
        return 0.0
    lowest_w, highest_w = range_w(log)
    return part_time_uncertainty_j(
        duration_s=log.stopped_s - log.started_s,
        period_s=log.period.median_s,
        seen_share=log.seen_share,
        range_w=highest_w - lowest_w,
    )


def front_part(log: CounterLog) -> Part:
    """Return the part from the edge before the window to its start: short, unless several boards were waited for."""
    idle = log.idle
    power_w = idle.power_w if log.rest_before_w is None else log.rest_before_w
    length_s = max(log.started_s - log.before.at_s, 0.0)
    doubt_w = max(idle_uncertainty_w(idle), idle.highest_w - idle.power_w, idle.power_w - idle.lowest_w)
    doubt_w += abs(power_w - idle.power_w)
    bound_j = length_s * doubt_w + log.before.width_s / 2 * max(idle.highest_w, power_w)
    return Part(length_s * power_w, bound_j)
