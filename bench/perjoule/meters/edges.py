"""From the edges of an energy counter to a reading. Pure: no clock, no device.

A counter that is refreshed every T shows, at any moment, the energy up to its last refresh. Subtracting two
values read at arbitrary moments is biased low by (P_work - P_idle) * T / 2 for work between rests, and
repeating does not remove it. So both ends are moved to a refresh (an *edge*), and the rest that this adds is
taken off at idle power:

     idle    before                                  stopped_s   after          rest
    ─────────┤├┬───────────────── work ──────────────────┬─────────┤├────────────┤├──
               started_s                                 └─ tail ──┘└ idle again ┘

    energy = after - before - tails * P_idle
    bound  = tails * (idle uncertainty) + (edge widths) * (power step) + quantisation

Not in the bound: the gain of the sensor itself, about 5 % (arXiv 2312.02741), which no window removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, stdev

from perjoule.warnings_table import warning

QUANTISATION_J = 0.002  # the counter counts whole mJ, and two values are subtracted
LIMIT_HEADROOM = 1.1  # boards overshoot their power limit for milliseconds, counters do not by more than this
IDLE_STEP_W = 5.0  # idle power that moved by less is not worth a warning
SPREAD_SIGMAS = 3.0  # for a bound that holds in at least 99.5 % of windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A refresh of the counter, seen between two polls.

    Attributes:
        early_s: When the last poll that still saw the old value was sent.
        late_s: When the first poll that saw the new value came back.
        energy_j: The new value.
    """

    early_s: float
    late_s: float
    energy_j: float

    @property
    def at_s(self) -> float:
        """The best guess of the moment."""
        return (self.early_s + self.late_s) / 2

    @property
    def width_s(self) -> float:
        """How well the moment is known."""
        return self.late_s - self.early_s


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePeriod:
    """How often a counter is refreshed: median gap and longest gap in s, and how many were seen."""

    median_s: float
    longest_s: float
    gap_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePower:
    """Power at rest. spread_w: standard deviation between refreshes, edge widths included."""

    power_w: float
    spread_w: float

    @property
    def uncertainty_w(self) -> float:
        """Bound on the power of a single rest."""
        return SPREAD_SIGMAS * self.spread_w


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLog:
    """All that was seen of one window; `rest` is the refresh after `after`, if there was time for it."""

    before: Edge
    started_s: float
    stopped_s: float
    after: Edge
    rest: Edge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracketed:
    """Energy and bound of a window, or None with the reasons."""

    energy_j: float | None
    uncertainty_j: float | None
    warnings: tuple[str, ...]


def gap_power_w(first: Edge, second: Edge) -> float:
    """Mean power between two edges in W."""
    return (second.energy_j - first.energy_j) / (second.at_s - first.at_s)


def update_period(edges: Sequence[Edge]) -> UpdatePeriod:
    """The update period over consecutive edges. Raises ValueError for fewer than two."""
    gaps = [second.at_s - first.at_s for first, second in pairwise(edges)]
    if not gaps:
        raise ValueError(f"an update period needs two edges, there are {len(edges)}")
    return UpdatePeriod(median_s=median(gaps), longest_s=max(gaps), gap_count=len(gaps))


def idle_power(edges: Sequence[Edge]) -> IdlePower:
    """Mean power over consecutive edges of a resting device. Raises ValueError for fewer than two."""
    powers = [gap_power_w(first, second) for first, second in pairwise(edges)]
    if not powers:
        raise ValueError(f"idle power needs two edges, there are {len(edges)}")
    mean_w = gap_power_w(edges[0], edges[-1])
    # With a single gap nothing is known about the spread; half the power is the cautious answer.
    return IdlePower(power_w=mean_w, spread_w=stdev(powers) if len(powers) > 1 else mean_w / 2)


def bracket(edges: EdgeLog, idle: IdlePower, limit_w: float | None = None) -> Bracketed:
    """Turn an edge log into energy and bound.

    Args:
        edges: What was seen, on one monotonic clock.
        idle: Power at rest before the window.
        limit_w: The device's power limit, if it tells.

    Returns:
        Energy in J of `started_s` to `stopped_s`. None where the counter went backwards (W210), paused (W213)
        or counted more than the limit allows (W212).
    """
    before, after, rest = edges.before, edges.after, edges.rest
    counted_j = after.energy_j - before.energy_j
    span_s = after.at_s - before.at_s
    if counted_j < 0 or (rest is not None and rest.energy_j < after.energy_j):
        said = f"the counter went from {before.energy_j:.3f} J to {after.energy_j:.3f} J"
        if rest is not None:
            said += f", then to {rest.energy_j:.3f} J"
        return _invalid("W210", said)
    if limit_w is not None and counted_j > LIMIT_HEADROOM * limit_w * (span_s + after.width_s + before.width_s):
        return _invalid("W212", f"{counted_j:.1f} J in {span_s:.3f} s is above the limit of {limit_w:g} W")

    tail_power_w, tail_uncertainty_w, warnings = _tail_power(edges, idle)
    lowest_w = min(idle.power_w, tail_power_w)
    if counted_j < 0.5 * lowest_w * span_s:
        said = f"{counted_j:.3f} J in {span_s:.3f} s is less than half of {lowest_w:.1f} W at rest"
        return _invalid("W213", said)

    tails_s = max(edges.started_s - before.at_s, 0.0) + max(after.at_s - edges.stopped_s, 0.0)
    energy_j = counted_j - tails_s * tail_power_w
    duration_s = max(edges.stopped_s - edges.started_s, 1e-9)
    step_w = max(energy_j / duration_s, tail_power_w)
    uncertainty_j = tails_s * tail_uncertainty_w + (before.width_s + after.width_s) * step_w + QUANTISATION_J
    return Bracketed(energy_j=energy_j, uncertainty_j=uncertainty_j, warnings=warnings)


def _tail_power(edges: EdgeLog, idle: IdlePower) -> tuple[float, float, tuple[str, ...]]:
    """Power of the tails and its bound in W: what was seen right after the window, doubted by how it differs."""
    if edges.rest is None:
        return idle.power_w, idle.uncertainty_w, ()
    after_w = gap_power_w(edges.after, edges.rest)
    gap_s = edges.rest.at_s - edges.after.at_s
    blur_w = after_w * (edges.after.width_s + edges.rest.width_s) / gap_s
    change_w = abs(after_w - idle.power_w)
    # A device does not fall to its idle power at once, so the rest after the window is nearer to the tail in
    # time.
    uncertainty_w = max(idle.uncertainty_w, change_w, blur_w)
    if change_w <= max(IDLE_STEP_W, 2 * idle.uncertainty_w) + blur_w:
        return after_w, uncertainty_w, ()
    said = f"idle power was {idle.power_w:.1f} W before the window and {after_w:.1f} W after it"
    return after_w, uncertainty_w, (warning("W208", said),)


def _invalid(code: str, sentence: str) -> Bracketed:
    return Bracketed(energy_j=None, uncertainty_j=None, warnings=(warning(code, sentence),))
