"""Energy of a stretch of a power log, with the timing of its sensor learnt from the readings.

The log may begin and end anywhere in the work, so nothing is assumed about rests: `samples.integrate` uses the readings
inside the window for an instant sensor, and the readings after their delay for one that averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from perjoule.errors import MeterError
from perjoule.meters.bracketed import Bracketed
from perjoule.meters.logs import PowerLog
from perjoule.meters.samples import Sample, SensorTiming, integrate
from perjoule.warnings import warning

SLOW_AVERAGE_S = 1.0  # NVML's average on Ampere and newer
SUDDEN_SHARE = 0.4  # of the log's range within one refresh: more than an average or a filter can show
LEAST_RANGE = 0.1  # of the mean: with less, nothing shows how the sensor responds
RISE, RISE_SHARE = (0.1, 0.9), 0.8  # a moving average shows these shares of a step 0.8 of its length apart
FROZEN_S, FROZEN_PERIODS = 3.0, 30.0
LEAST_TO_FREEZE = 10  # samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How a sensor responds: its timing, and how its averaging time is known."""

    timing: SensorTiming
    words: str


def learn_response(log: PowerLog, averaging_s: float | None = None) -> Response:
    """Return the timing of a log's sensor.

    The refresh is the usual time between changes. The averaging time is that of NVML's reading if the column's name
    says which one it is; otherwise it is learnt from the fastest large change in the log.

    Args:
        log: The log.
        averaging_s: Averaging time if it is known; 0 for an instant sensor.
    """
    good = log.good
    gaps = sorted(other.t_s - one.t_s for one, other in pairwise(log.samples) if other.t_s > one.t_s)
    poll_s = gaps[len(gaps) // 2]
    changes = [t_s for (_, one), (t_s, other) in pairwise(good) if one != other]
    between = sorted(other - one for one, other in pairwise(changes))
    # a quarter of the way: equal refreshes make long times, late polls make short ones
    period_s = max(between[len(between) // 4], poll_s) if between else max(0.1, poll_s)
    late_s = poll_s / 2 if poll_s < period_s else 0.0
    doubt_s = 0.0
    if averaging_s is not None:
        words = f"averaging {averaging_s:g} s as stated"
    elif "instant" in log.column:
        averaging_s, words = 0.0, "instant by its name"
    elif "average" in log.column:
        averaging_s, words = SLOW_AVERAGE_S, f"averaging {SLOW_AVERAGE_S:g} s by its name"
    else:
        averaging_s, doubt_s, words = _learn_averaging(good, period_s)
    timing = SensorTiming(
        poll_s=max(poll_s, period_s / 2.5),
        period_s=period_s,
        averaging_s=averaging_s if averaging_s > period_s else 0.0,
        late_s=late_s,
        doubt_s=doubt_s,
    )
    return Response(timing=timing, words=words)


def _learn_averaging(good: Sequence[tuple[float, float]], period_s: float) -> tuple[float, float, str]:
    """Return averaging time, its uncertainty in s, and words."""
    powers = [power_w for _, power_w in good]
    low_w, high_w = min(powers), max(powers)
    range_w = high_w - low_w
    if range_w < LEAST_RANGE * sum(powers) / len(powers):
        return 0.0, SLOW_AVERAGE_S / 2, "averaging time unknown, up to 1 s was assumed"
    if _largest_change_w(good, period_s) >= SUDDEN_SHARE * range_w:
        return 0.0, 0.0, "instant by its sudden changes"
    rise_s = _fastest_rise_s(good, low_w + RISE[0] * range_w, low_w + RISE[1] * range_w)
    if rise_s is None:
        return 0.0, SLOW_AVERAGE_S / 2, "averaging time unknown, up to 1 s was assumed"
    averaging_s = rise_s / RISE_SHARE
    if abs(averaging_s - SLOW_AVERAGE_S) < SLOW_AVERAGE_S / 4:
        averaging_s = SLOW_AVERAGE_S
    averaging_s = min(averaging_s, SLOW_AVERAGE_S)  # no published board averages over longer
    return averaging_s, averaging_s / 4, f"averaging {averaging_s:.2g} s, learnt from its fastest change"


def _largest_change_w(good: Sequence[tuple[float, float]], period_s: float) -> float:
    """Return the largest change from one refresh to the next."""
    refreshes = [good[0]]
    for t_s, power_w in good:
        if power_w != refreshes[-1][1]:
            refreshes.append((t_s, power_w))
    steps = [abs(w - v) for (s, v), (t, w) in pairwise(refreshes)]
    return max(steps, default=0.0)


def _fastest_rise_s(good: Sequence[tuple[float, float]], low_w: float, high_w: float) -> float | None:
    """Return the shortest time from at most `low_w` to at least `high_w`, or back."""
    fastest, last_low_s, last_high_s = None, None, None
    for t_s, power_w in good:
        since_s = None
        if power_w <= low_w:
            since_s, last_high_s, last_low_s = last_high_s, None, t_s
        elif power_w >= high_w:
            since_s, last_low_s, last_high_s = last_low_s, None, t_s
        if since_s is not None and (fastest is None or t_s - since_s < fastest):
            fastest = t_s - since_s
    return fastest


def require_alive(log: PowerLog) -> None:
    """Raise MeterError if the reading never changes: a frozen sensor measures nothing."""
    powers = {power_w for _, power_w in log.good}
    if len(powers) == 1 and len(log.good) >= LEAST_TO_FREEZE:
        raise MeterError(
            f"the reading of {log.column} is {powers.pop():g} W in all {len(log.good)} samples: a sensor that never "
            "changes is frozen or too coarse, and its joules are not a measurement; check the log or the driver"
        )


def window_energy(log: PowerLog, response: Response, begin_s: float, end_s: float) -> Bracketed:
    """Return the energy between two times of the log, both within it."""
    timing = response.timing
    margin_s = 2 * timing.settle_s + 1.0
    near = [one for one in log.samples if begin_s - margin_s <= one.t_s <= end_s + margin_s]
    inside = [one for one in near if begin_s <= one.t_s <= end_s]
    frozen_s = _longest_constant_s(inside)
    result = integrate(near or list(log.samples), begin_s, end_s, timing, None)
    if frozen_s > max(FROZEN_S, FROZEN_PERIODS * timing.period_s) and _is_high(log, inside):
        said = warning("W225", f"{log.column} did not change for {frozen_s:.1f} s of the window")
        if frozen_s > 0.9 * (end_s - begin_s):
            return Bracketed(energy_j=None, uncertainty_j=None, warnings=(*result.warnings, said))
        return Bracketed(
            energy_j=result.energy_j, uncertainty_j=result.uncertainty_j, warnings=(*result.warnings, said)
        )
    return result


def _longest_constant_s(samples: Sequence[Sample]) -> float:
    longest, since_s, last_w = 0.0, 0.0, None
    for one in samples:
        if one.power_w is None:
            continue
        if one.power_w != last_w:
            since_s, last_w = one.t_s, one.power_w
        longest = max(longest, one.t_s - since_s)
    return longest


def _is_high(log: PowerLog, inside: Sequence[Sample]) -> bool:
    """Return whether the window shows work: its median is in the upper half of the log's range."""
    powers = [power_w for _, power_w in log.good]
    here = [one.power_w for one in inside if one.power_w is not None]
    return bool(here) and median(here) > (min(powers) + max(powers)) / 2
