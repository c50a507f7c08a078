r"""From power samples to a reading. Pure: no clock, no device.

A sensor shows the mean power of its last averaging window A, refreshed every T. What the work added is
therefore fully shown only A + T after the work ended, and the samples are integrated until then:

    power shown      ______________
                   _/              \_
    ─────────┬────┴───── work ──────┬─┴──────┬──
          started_s             stopped_s    stopped_s + settle     energy = integral - settle * P_idle
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from perjoule.meters.edges import LIMIT_HEADROOM, Bracketed, IdlePower
from perjoule.warnings_table import warning

GAP_POLLS = 2.5  # two samples further apart than so many poll intervals have a hole between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A poll of a power sensor: W, or None where it gave no answer (an error or 0 W)."""

    t_s: float
    power_w: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorTiming:
    """poll_s: our interval; period_s: the sensor's refresh T; settle_s: how long after the work it is followed."""

    poll_s: float
    period_s: float
    settle_s: float


def integrate(
    samples: Sequence[Sample],
    started_s: float,
    stopped_s: float,
    timing: SensorTiming,
    idle: IdlePower,
    limit_w: float | None = None,
) -> Bracketed:
    """Energy of the window from power samples that reach to `stopped_s + timing.settle_s`.

    Every sample counts, equal neighbours included, and holds until the next one. The bound adds: idle
    uncertainty over the settling; for each change between samples, that it may have happened anywhere within
    a refresh; for holes, half of the power range. It cannot see load that repeats in step with a sensor that
    looks only part of the time.
    """
    good = [(sample.t_s, sample.power_w) for sample in samples if sample.power_w is not None]
    missing_count = len(samples) - len(good)
    if not good or missing_count > len(good):
        return _invalid("W207", f"{missing_count} of {len(samples)} power samples are missing")
    powers = [power_w for _, power_w in good]
    if limit_w is not None and max(powers) > LIMIT_HEADROOM * limit_w:
        return _invalid("W212", f"a power of {max(powers):.1f} W is above the limit of {limit_w:g} W")

    end_s = stopped_s + timing.settle_s
    # The first sample stands for the moments before it, the last one for those after it.
    inner = [max(t_s, started_s) for t_s, _ in good[1:]]
    bounds = [started_s, *(min(t_s, end_s) for t_s in inner), end_s]
    total_j = sum(
        power_w * max(right_s - left_s, 0.0)
        for power_w, (left_s, right_s) in zip(powers, pairwise(bounds), strict=True)
    )
    energy_j = total_j - timing.settle_s * idle.power_w

    range_w = max(*powers, idle.power_w) - min(*powers, idle.power_w)
    changes_w = sum(abs(second - first) for first, second in pairwise([idle.power_w, *powers, idle.power_w]))
    holes_s = sum(
        right_s - left_s - timing.poll_s
        for left_s, right_s in pairwise(bounds)
        if right_s - left_s > GAP_POLLS * timing.poll_s
    )
    reach_s = end_s - started_s
    uncertainty_j = (
        timing.settle_s * idle.uncertainty_w
        + min(changes_w * (timing.period_s / 2 + timing.poll_s), range_w * reach_s)
        + range_w * holes_s / 2
        + 0.001 * reach_s  # samples are whole mW
    )
    warnings = []
    if missing_count:
        warnings.append(warning("W207", f"{missing_count} of {len(samples)} power samples are missing"))
    return Bracketed(energy_j=energy_j, uncertainty_j=uncertainty_j, warnings=tuple(warnings))


def refresh_period(samples: Sequence[Sample]) -> float | None:
    """The sensor's update period in s: the shortest time between changes; None if fewer than three were seen.

    The shortest, since two refreshes with equal values look like one long one.
    """
    changes = [second.t_s for first, second in pairwise(samples) if first.power_w != second.power_w and second.power_w]
    gaps = [second - first for first, second in pairwise(changes)]
    return min(gaps) if len(gaps) > 1 else None


def _invalid(code: str, sentence: str) -> Bracketed:
    return Bracketed(energy_j=None, uncertainty_j=None, warnings=(warning(code, sentence),))
