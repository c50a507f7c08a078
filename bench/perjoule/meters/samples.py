r"""Computes a reading from power samples, without a clock or a device.

A sensor shows the mean power of some time before its last refresh, and is refreshed every T. There are three ways to
compute a window's energy:

    inside      An instant sensor covers the last T or less, perhaps only a quarter of it (arXiv 2312.02741). Each
                refresh is used for the T before it, but only if all of that lies in the window; the rest at the
                ends, less than T each, is assumed to continue like the readings next to it. What the device does around
                the window has no effect.

        shown by   |--- a ---|--- b ---|--- c ---|--- d ---|
        refreshes  |         |         |         |         |         a includes time before the window
        window          |<---------------------------->|             d includes time after it
        counted as      |b ~~|--- b ---|--- c ---|c ~~~|

    shifted     A log, in which the device may work before and after the window. A reading is the mean of the time
                around its delay d before it was shown, so the readings are integrated d later:

        energy = integral from started_s + d to stopped_s + d

    followed    A sensor that averages over A, or a window without two readings inside: the work is fully shown
                only A + T after its end. The samples are integrated until then, and what they show of the time before
                and after the window is subtracted. It is rest, or, if the device was not at rest, the power shown at
                the start of the window and at the end of the settling time.

        energy = integral to (stopped_s + settle) - settle / 2 * (P_before + P_after)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt
from statistics import median

from perjoule.meters.bracketed import LIMIT_HEADROOM, Bracketed
from perjoule.meters.rest import idle_uncertainty_w
from perjoule.types import IdlePower
from perjoule.warnings import warning

GAP_POLLS = 2.5  # there is a gap between two samples if they are more than this many poll intervals apart
MOST_MISSING = 0.5  # of a window in gaps: with more, there is no number
LOST_PERIODS, LOST_S = 3.0, 0.3  # a source without an answer for this long at the end of the window is lost
LOOKS_FOR_PATTERN = 4  # fewer readings do not show how power continues
LEAST_SEEN = 0.2  # smallest share of time that a published sensor sees (arXiv 2312.02741)
SIGMAS = 3.0  # plus the same divided by the number of readings minus one, since the spread of few readings is uncertain
SIGMAS_PER_LOOK = 10.0
UNSEEN_LOOKS = 1.75  # readings at the far end of the range that may have been missed; tested with rare bursts
BLIND_SHARE = 0.3  # of T at mean power: the last part of a refresh at either end is not covered
BLIND_AVERAGE = 0.1  # of A at rest power: an average over A hides variations of rest
AT_REST = 0.05  # of rest power: a reading this close to those of rest shows rest
# A device that draws more than rest next to the window works, if that is more than this share of the highest power
# above rest, or adds more than this share of the energy to the bound. A warm device that rests does neither.
WORKS_ON, MATTERS = 0.25, 0.1
STEP_VARIANCE = 1 / 12  # of a step that may be anywhere between two looks, relative to T and its height


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A reading of a power sensor in W, or None if it failed (an error or 0 W), with the reason if known."""

    t_s: float
    power_w: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorTiming:
    """Timing of a sensor and of its polling, in s.

    Attributes:
        poll_s: Time between two polls.
        period_s: The sensor's refresh T.
        averaging_s: Averaging time; 0 for an instant sensor, whose averaging time is unknown but at most T.
        late_s: Mean delay between a refresh and its first poll.
        doubt_s: Uncertainty of the mean delay between power and reading, beyond half a refresh; for a sensor whose
            averaging time was learnt from its readings.
    """

    poll_s: float
    period_s: float
    averaging_s: float = 0.0
    late_s: float = 0.0
    doubt_s: float = 0.0

    @property
    def delay_s(self) -> float:
        """Mean delay between the power and the reading that shows it."""
        return (max(self.averaging_s, self.period_s) + self.period_s) / 2

    @property
    def settle_s(self) -> float:
        """Time after the work until the sensor has shown all of it."""
        return max(self.averaging_s, self.period_s) + self.period_s

    @property
    def inside_from_s(self) -> float:
        """Shortest window that always has readings inside: two refreshes, and a poll to notice the second."""
        return float("inf") if self.averaging_s > self.period_s else 2 * self.period_s + 2 * self.poll_s

    def follow_s(self, duration_s: float) -> float:
        """Return how long a window of `duration_s` must be followed after its end."""
        return 0.0 if duration_s >= self.inside_from_s else self.settle_s


def integrate(
    samples: Sequence[Sample],
    started_s: float,
    stopped_s: float,
    timing: SensorTiming,
    idle: IdlePower | None,
    limit_w: float | None = None,
    swing_w: float = 0.0,
) -> Bracketed:
    """Return the window's energy from power samples up to `stopped_s + timing.follow_s(stopped_s - started_s)`.

    All samples are used, including equal neighbours. A source that stopped before the end gives a partial energy up to
    its last answer. The bound treats power between readings as unknown: see `_inside` and `_followed`. It does not
    include load that repeats in step with a sensor that sees only part of the time, or peaks that were never shown.

    Args:
        samples: Samples in order of time.
        started_s: Start of the window.
        stopped_s: End of the window.
        timing: Timing of the sensor.
        idle: Power at rest, before the window; None if the device may work before and after the window (a log).
        limit_w: Power limit of the board, if known.
        swing_w: Largest swing of power measured on this device, within a rest or within a window.
    """
    good = [(sample.t_s, sample.power_w) for sample in samples if sample.power_w is not None]
    if not good:
        problem = next((sample.problem for sample in samples if sample.problem), "")
        return _invalid(_missing(len(samples), len(samples)), *[warning("W220", problem)] * bool(problem))
    powers = [power_w for _, power_w in good]
    if limit_w is not None and max(powers) > LIMIT_HEADROOM * limit_w:
        return _invalid(warning("W212", f"a power of {max(powers):.1f} W is above the limit of {limit_w:g} W"))
    lost_s = good[-1][0]
    if idle is not None and stopped_s - lost_s > max(LOST_PERIODS * timing.period_s, LOST_S):
        return _partial(samples, _Stairs(good, timing), started_s, stopped_s, idle)
    missing_count = len(samples) - len(good)
    stairs = _Stairs(good, timing)
    swing_w = max(swing_w, idle.highest_w - idle.lowest_w if idle is not None else 0.0)
    holes_s = stairs.holes_s(started_s, stopped_s)
    if holes_s > MOST_MISSING * (stopped_s - started_s):
        without = f"there are no samples for {holes_s:.1f} s of a window of {stopped_s - started_s:.1f} s"
        return _invalid(_missing(missing_count, len(samples)) if missing_count else warning("W207", without))
    said: tuple[str, ...] = (_missing(missing_count, len(samples)),) if missing_count else ()
    bound_j: float | None
    if idle is None:
        energy_j, bound_j = _shifted(stairs, started_s, stopped_s, swing_w)
    elif stopped_s - started_s >= timing.inside_from_s:
        energy_j, bound_j = _inside(stairs, started_s, stopped_s, swing_w)
    else:
        energy_j, bound_j, works_on = _followed(stairs, started_s, stopped_s, idle, swing_w, limit_w)
        said += (works_on,) if works_on else ()
    return Bracketed(energy_j=energy_j, uncertainty_j=bound_j, warnings=said)


class _Stairs:
    """Power as shown by the sensor: each reading lasts until the next one; gaps are divided between neighbours."""

    def __init__(self, good: Sequence[tuple[float, float]], timing: SensorTiming) -> None:
        self.timing = timing
        self._hole_s = GAP_POLLS * timing.poll_s
        self._holes = [(one, other) for (one, _), (other, _) in pairwise(good) if other - one > self._hole_s]
        self.last_s = good[-1][0]
        # steps: (begin, W)
        self.steps = [(float("-inf"), good[0][1])]
        for (before_s, _), (t_s, power_w) in pairwise(good):
            since_s = (before_s + t_s) / 2 if t_s - before_s > self._hole_s else t_s - timing.late_s
            self.steps.append((since_s, power_w))

    def between(self, begin_s: float, end_s: float) -> list[tuple[float, float]]:
        """Return (duration, W) of the steps from `begin_s` to `end_s`, equal neighbours merged."""
        ends = [*(since_s for since_s, _ in self.steps[1:]), float("inf")]
        pieces: list[tuple[float, float]] = []
        for (since_s, power_w), until_s in zip(self.steps, ends, strict=True):
            length_s = min(until_s, end_s) - max(since_s, begin_s)
            if length_s <= 0:
                continue
            if pieces and pieces[-1][1] == power_w:
                pieces[-1] = (pieces[-1][0] + length_s, power_w)
            else:
                pieces.append((length_s, power_w))
        return pieces

    def at(self, t_s: float) -> float:
        """Return the power shown at a time."""
        return self.steps[bisect_right(self.steps, t_s, key=lambda step: step[0]) - 1][1]

    def change_after_s(self, from_s: float, to_s: float) -> float:
        """Return the time of the reading's first change between two times; `to_s` if there is none."""
        changes = (since_s for (_, one), (since_s, other) in pairwise(self.steps) if one != other)
        return next((since_s for since_s in changes if from_s <= since_s < to_s), to_s)

    def holes_s(self, begin_s: float, end_s: float) -> float:
        """Return seconds without a reading, beyond the usual time between two."""
        holes = [*self._holes, (self.last_s, end_s)]
        lengths = [min(other, end_s) - max(one, begin_s) for one, other in holes]
        return sum(length_s - self.timing.poll_s for length_s in lengths if length_s > self._hole_s)


def _inside(stairs: _Stairs, started_s: float, stopped_s: float, swing_w: float) -> tuple[float, float]:
    """Return energy and bound in J from the readings inside the window.

    A refresh later than T after the start covers only the window. The readings from the first such refresh until the
    end are used for the time from one period before that refresh to the last refresh.

    The bound: the mean of n readings at random phase has a variance of s^2 / n (as in
    `part_time.part_time_uncertainty_j`, for the smallest share of time that is seen), where s is the smaller of the
    spread of the readings and the uncertainty from their neighbours: a spike in a single reading may represent many
    spikes, whereas a lasting step has only an uncertain time. Swings that all readings may have missed, the ends, and
    gaps are added.
    """
    timing = stairs.timing
    period_s, late_s = timing.period_s, timing.late_s
    clean_s = started_s + period_s
    first_s = stairs.change_after_s(clean_s + late_s, clean_s + period_s + late_s)
    pieces = stairs.between(first_s, stopped_s)
    seen_s = stopped_s - first_s
    powers = [power_w for _, power_w in pieces]
    mean_w = sum(length_s * power_w for length_s, power_w in pieces) / seen_s
    variance = sum(length_s * (power_w - mean_w) ** 2 for length_s, power_w in pieces) / seen_s
    steps = [other - one for one, other in pairwise(powers)]
    square = sum(step * step for step in steps)
    holes_s = stairs.holes_s(started_s, stopped_s)
    looks = max(round((seen_s - holes_s) / period_s) + 1, 2)

    # Correlation of a reading with the next one: 1 for slow load, -1 for load that alternates
    lasts = 1.0
    if looks >= LOOKS_FOR_PATTERN and variance > 0:
        lasts = max(1 - square / (2 * (looks - 1) * variance), -1.0)
    head_s = first_s - clean_s
    tail_s = min(pieces[-1][0] % period_s, period_s)  # since the last refresh
    energy_j = mean_w * seen_s + powers[-1] * (period_s - tail_s)
    for length_s, power_w in ((head_s, powers[0]), (tail_s, powers[-1])):
        energy_j += length_s * (mean_w + lasts * (power_w - mean_w))

    spikes = max(-sum(one * other for one, other in pairwise(steps)), 0.0)
    spread = min(variance * looks / (looks - 1), (spikes + STEP_VARIANCE * square) / (looks - 1))
    sigmas = SIGMAS + SIGMAS_PER_LOOK / (looks - 1)
    range_w = max(max(powers) - min(powers), swing_w)
    unseen = (1 - LEAST_SEEN) * (looks + 2) * spread
    between_j = period_s * sqrt(sigmas**2 * unseen + (UNSEEN_LOOKS * range_w) ** 2)
    between_j = min(between_j, range_w * (stopped_s - started_s))
    bound_j = between_j + BLIND_SHARE * mean_w * period_s + range_w * holes_s / 2 + 0.0005 * (stopped_s - started_s)
    return energy_j, bound_j


def _shifted(stairs: _Stairs, started_s: float, stopped_s: float, swing_w: float) -> tuple[float, float]:
    """Return energy and bound in J from the readings after their mean delay, for a window anywhere in the work.

    The integral of a reading that averages over A weighs the power around an end of the window with a ramp instead of
    a step. Both weights have the same sum, so constant power causes no error; power of range R within A causes at most
    R A / 8 for a rectangular average. The bound uses R A / 4, because readings show less than the range, and half of a
    refresh for the unknown time of each reading. A delay that is wrong by x moves the window: x times the difference
    between the power at both ends.
    """
    timing = stairs.timing
    averaging_s = max(timing.averaging_s, timing.period_s)
    begin_s, end_s = started_s + timing.delay_s, stopped_s + timing.delay_s
    pieces = stairs.between(begin_s, end_s)
    powers = [power_w for _, power_w in pieces]
    energy_j = sum(length_s * power_w for length_s, power_w in pieces)
    late_s = timing.period_s / 2 + timing.poll_s
    bound_j = 0.0005 * (stopped_s - started_s) + BLIND_SHARE * timing.period_s * energy_j / (stopped_s - started_s)
    for at_s in (started_s, stopped_s):
        around = [power_w for _, power_w in stairs.between(at_s - averaging_s / 2, at_s + 1.5 * averaging_s + late_s)]
        range_w = max(around) - min(around)
        bound_j += range_w * (averaging_s / 4 + late_s + timing.doubt_s / 2)
    bound_j += abs(stairs.at(end_s) - stairs.at(begin_s)) * (late_s + timing.doubt_s)
    if timing.averaging_s > timing.period_s:
        bound_j += BLIND_AVERAGE * swing_w * timing.period_s
    else:
        changes = [abs(other - one) for one, other in pairwise(powers)]
        swing_w = max(swing_w, max(changes, default=0.0))
        bound_j += min(UNSEEN_LOOKS * timing.period_s, stopped_s - started_s) * swing_w
    range_w = max(powers) - min(powers)
    bound_j += max(range_w, swing_w) * stairs.holes_s(begin_s, end_s) / 2
    return energy_j, bound_j


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """What the sensor shows of the time before or after a window.

    Attributes:
        power_w: Mean power.
        bound_j: Bound on the error of that time's energy in the window's samples.
        extra_w: Power above rest, 0 at rest.
    """

    power_w: float
    bound_j: float
    extra_w: float


def _side(shown_w: float, idle: IdlePower, lowest_w: float, highest_w: float, timing: SensorTiming) -> _Side:
    """Return one side of a window.

    The samples of the window contain half of what was drawn in the settling time next to it, if power was even. If it
    was between `lowest_w` and `highest_w`, and at the highest for a share f of that time, they contain up to
    (highest_w - lowest_w) f (1 - f) / 2 of it more or less, when all of that share is next to the window or far from
    it. In addition the reading may miss up to a refresh next to the window.
    """
    margin_w = AT_REST * idle.power_w
    if idle.lowest_w - margin_w <= shown_w <= idle.highest_w + margin_w:
        return _Side(power_w=idle.power_w, bound_j=timing.settle_s * idle_uncertainty_w(idle) / 2, extra_w=0.0)
    range_w = highest_w - lowest_w
    share = (shown_w - lowest_w) / range_w if range_w else 0.0
    bound_j = timing.settle_s * range_w * share * (1 - share) / 2 + timing.period_s * (highest_w - shown_w)
    return _Side(power_w=shown_w, bound_j=bound_j, extra_w=shown_w - idle.power_w)


def _followed(
    stairs: _Stairs, started_s: float, stopped_s: float, idle: IdlePower, swing_w: float, limit_w: float | None
) -> tuple[float, float | None, str | None]:
    """Return energy and bound in J by following the sensor after the window; and W224 if the device was not at rest.

    The bound adds: the uncertainty of rest, or of how power was distributed over the settling time before and after
    the window; for each change between readings, its unknown time within a refresh; for gaps, half of the power range.
    For an instant sensor, it also adds swings that readings may have missed, and for a window that the sensor may have
    missed completely, the maximum energy of the device (unknown without a limit: None). For a sensor that averages, it
    adds the variation that the average hides.
    """
    timing = stairs.timing
    settle_s, end_s = timing.settle_s, stopped_s + timing.settle_s
    reach_s = end_s - started_s
    pieces = stairs.between(started_s, end_s)
    powers = [power_w for _, power_w in pieces]
    around = [power_w for _, power_w in stairs.between(started_s - settle_s, started_s)] + powers
    lowest_w, highest_w = min(*around, idle.lowest_w), max(*around, idle.highest_w)
    shown_j = sum(length_s * power_w for length_s, power_w in pieces)
    peak_w = highest_w  # an average shows it only in a window that is longer
    if limit_w is not None and stopped_s - started_s < timing.averaging_s:
        peak_w = max(highest_w, LIMIT_HEADROOM * limit_w)
    before, after = (_side(stairs.at(t_s), idle, lowest_w, peak_w, timing) for t_s in (started_s, end_s))
    energy_j = shown_j - settle_s * (before.power_w + after.power_w) / 2

    changes_w = sum(abs(other - one) for one, other in pairwise([before.power_w, *powers, after.power_w]))
    bound_j = (
        before.bound_j
        + after.bound_j
        + min(changes_w * (timing.period_s / 2 + timing.poll_s), (highest_w - lowest_w) * reach_s)
        + (highest_w - lowest_w) * stairs.holes_s(started_s, end_s) / 2
        + 0.0005 * reach_s  # samples are whole mW
    )
    working = [
        word
        for word, side in (("before", before), ("after", after))
        if side.extra_w > WORKS_ON * (highest_w - lowest_w) or (side.extra_w > 0 and side.bound_j > MATTERS * energy_j)
    ]
    works_on = None
    if working:
        when = " and ".join(working)
        works_on = warning(
            "W224", f"the device works {when} the window, {before.power_w:.4g} W before, {after.power_w:.4g} W after"
        )
    if timing.averaging_s > timing.period_s:
        level_w = (before.power_w + after.power_w) / 2
        return energy_j, bound_j + BLIND_AVERAGE * level_w * timing.averaging_s, works_on
    bound_j += UNSEEN_LOOKS * swing_w * timing.period_s
    if works_on:
        bound_j += BLIND_SHARE * highest_w * timing.period_s
    if stopped_s - started_s < timing.period_s:
        if limit_w is None:
            return energy_j, None, works_on
        bound_j += (LIMIT_HEADROOM * limit_w - lowest_w) * (stopped_s - started_s)
    return energy_j, bound_j, works_on


def _partial(
    samples: Sequence[Sample], stairs: _Stairs, started_s: float, stopped_s: float, idle: IdlePower
) -> Bracketed:
    """Return the result of a source that stopped answering, with the energy until then."""
    lost_s, timing = stairs.last_s, stairs.timing
    problem = next((sample.problem for sample in samples if sample.t_s > lost_s and sample.problem), "no answer")
    said = warning("W220", f"{problem}; there are no samples of the last {stopped_s - max(lost_s, started_s):.3f} s")
    duration_s = lost_s - started_s
    if duration_s <= 0:
        return _invalid(said)
    if timing.averaging_s > timing.period_s:
        # Means over A that follow each other add up to everything since the start, and some rest before it.
        count = ceil(duration_s / timing.averaging_s)
        means_w = [stairs.at(lost_s - i * timing.averaging_s) for i in range(count)]
        partial_j = timing.averaging_s * sum(means_w)
        partial_j -= idle.power_w * (count * timing.averaging_s - duration_s)
    else:
        # Each reading counts from a refresh before it was seen, the last one until the end.
        shift_s = min(timing.period_s, duration_s)
        pieces = stairs.between(started_s + shift_s, lost_s)
        partial_j = sum(length_s * power_w for length_s, power_w in pieces) + shift_s * stairs.at(lost_s)
    return Bracketed(
        energy_j=None, uncertainty_j=None, warnings=(said,), partial_energy_j=partial_j, partial_s=duration_s
    )


def refresh_period(samples: Sequence[Sample]) -> float | None:
    """Return the sensor's update period in s, from the times between changes; None with fewer than three changes.

    It is the median of the short times, because refreshes with equal values look like a single long one.
    """
    good = [sample for sample in samples if sample.power_w is not None]
    changes = [second.t_s for first, second in pairwise(good) if first.power_w != second.power_w]
    gaps = [second - first for first, second in pairwise(changes)]
    return median(gap for gap in gaps if gap < 1.5 * min(gaps)) if len(gaps) > 1 else None


def _missing(missing_count: int, count: int) -> str:
    return warning("W207", f"{missing_count} of {count} power samples are missing")


def _invalid(*warnings: str) -> Bracketed:
    return Bracketed(energy_j=None, uncertainty_j=None, warnings=warnings)
