"""Sensors that see only part of the time: the bound on their error, and work that they may misread."""

from __future__ import annotations

from math import sqrt

from perjoule.warnings import warning


def part_time_uncertainty_j(*, duration_s: float, period_s: float, seen_share: float, range_w: float) -> float:
    """Return a bound in J on the error of a sensor that sees only a share of time, over a window at random phase.

    In each period T, the mean power over the seen share s is used for all of T. For power that varies independently of
    the sensor, the error of a window W has a standard deviation of sigma * sqrt(T * W * (1 - s)) (after
    arXiv 2312.02741), and sigma is at most half of the power's range R. The seen share may lie anywhere in the period
    before a refresh, so at the ends of the window up to one period may be missed or counted in error. With three
    standard deviations:

        bound = 3/2 R sqrt(T W (1 - s)) + R T          the first term at most R W (1 - s)

    The bound is not valid for load that repeats in step with the sensor: see `aliasing`.

    Args:
        duration_s: The window W.
        period_s: The refresh T.
        seen_share: s, 0 to 1; for a sensor that sees everything the bound is 0.
        range_w: R, largest minus smallest possible power of the device.
    """
    unseen = min(max(1.0 - seen_share, 0.0), 1.0)
    if unseen == 0:
        return 0.0
    between_s = min(1.5 * sqrt(period_s * duration_s * unseen), duration_s * unseen)
    return range_w * (between_s + period_s)


# -- work that repeats ---------------------------------------------------------------------------------------------

MOST_LOOKS_PER_CYCLE = 3  # four or more looks, spread evenly over a repeat, see enough of it
MOST_REPEATS_PER_LOOK = 8  # work is not regular enough to stay in step for longer
LEAST_LOOKS = 8
IN_STEP_WANDER = 0.25  # of a repeat


def aliasing(repeat_s: float, refresh_s: float, looks: int) -> str | None:
    """Return W215 if work that repeats every `repeat_s` stays in step with a sensor refreshed every `refresh_s`.

    Look k (a refresh) has the phase x k (mod 1) of the work, x = refresh_s / repeat_s. A mean over N looks keeps this
    share of the work's n-th harmonic:

        |sum of exp(2 pi i n x k) over k| / N = |sin(pi N n x)| / (N |sin(pi n x)|) = sin(pi w) / (pi w),

    where w = N |n x - m| is how far the phase wanders over the window, in cycles of that harmonic, and m is the whole
    number next to n x. A wander of a quarter keeps 90 %: the looks always see the same parts of the work, and miss the
    others in the whole window. After one full cycle the harmonic is averaged out. So the work counts as in step if
    w < 1/4 for n = 1, 2 or 3 and 1 <= m <= 8: higher harmonics are weak, and work is not regular enough for larger m.

    Args:
        repeat_s: Time of one repeat, e.g. a denoising step.
        refresh_s: The sensor's refresh.
        looks: Refreshes N within the window.

    Returns:
        The coded warning; None if the phase wanders, or if the window has fewer than two repeats or eight looks, which
        are too few to exclude chance.
    """
    if looks < LEAST_LOOKS or not 0 < repeat_s <= looks * refresh_s / 2:
        return None
    for n in range(1, MOST_LOOKS_PER_CYCLE + 1):
        repeats = n * refresh_s / repeat_s
        m = round(repeats)
        if 1 <= m <= MOST_REPEATS_PER_LOOK and looks * abs(repeats - m) < IN_STEP_WANDER:
            said = f"the work repeats every {repeat_s:.4g} s, the sensor is refreshed every {refresh_s:.4g} s"
            return warning("W215", f"{said}: in the ratio {m}:{n}, so it always sees the same parts of the work")
    return None
