r"""Fits gain and offset of a board's power sensor to the log of an external meter.

external      ___/‾‾‾‾‾‾‾‾‾\______     1. shift between the clocks: largest correlation
board       ____/‾‾‾‾‾‾‾‾‾\_______     2. means of the steady stretches: a point each
                  ╰─ visit ─╯          3. external = gain * board + offset, with 95 % intervals (`line_fit`)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from perjoule.errors import MeterError
from perjoule.meters.line_fit import Points, fit_line
from perjoule.meters.log_energy import learn_response, require_alive
from perjoule.meters.logs import PowerLog
from perjoule.meters.samples import SensorTiming
from perjoule.meters.sensor import Sensor
from perjoule.types import Boundary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHIFT_S = 10.0  # clocks of two machines differ by less, if both logs have wall-clock times
GRID_S = 0.01
LEAST_OVERLAP_S = 2.0
POINT_S = 0.25  # a stretch has two refreshes of any sensor, or more
LEAST_POINTS = 3  # at the lower and at the upper level: fewer do not show their noise
MOST_POINTS = 100  # the fit takes their third power
LEAST_SPREAD = 0.2  # of the highest power, between the lowest and the highest: else gain and offset are not separable
STEADY_SHARE = 0.03  # of the board's range: more change within a stretch is a transition
STEADY_CHANGES = 8.0  # times the usual change between readings: noise and rounding, however large
GUARD_SHARE = 0.1  # of the averaging time: how much of a transition a reading hides below STEADY_SHARE
LEAST_CORRELATION = 0.8
PEAKS = 5  # shifts that are looked at closely
GAP = 2.5  # times the usual time between samples, and more than POINT_S: without samples there is no power
LEAST_GAIN, MOST_GAIN = 0.5, 2.0  # published boards have 0.87 to 1.15, and power supplies lose up to a third


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `calibrate` prints: gain and offset of a board's sensor.

    Attributes:
        board: Digest of the board's UUID, or its index in the log; None if it is unknown.
        gain: True power = gain * reading + offset_w.
        gain_low: Lower end of the gain's 95 % interval.
        gain_high: Its upper end.
        gain_interval: Both ends.
        offset_w: Offset in W.
        offset_low_w: Lower end of the offset's 95 % interval.
        offset_high_w: Its upper end.
        offset_interval_w: Both ends.
        shift_s: Time of the external log minus that of the board's log, for the same event.
        correlation: Correlation of the two logs after the shift.
        overlap_s: Seconds that both logs cover.
        points: Number of steady stretches used.
        blocks: Number of uninterrupted visits to a level of power that they belong to.
        lowest_w: Lowest reading used.
        highest_w: Highest reading used.
        residual_w: Standard deviation of the stretches around the line.
        boundary: What the external meter covers.
        centre_w: Mean reading of the stretches.
        level_uncertainty_w: Half width of the 95 % interval of the corrected power at `centre_w`.
        response: How the board's sensor averages.
        stored: File of the stored calibration; None if it was not stored.
        notes: What was left out or assumed.
    """

    board: str | None
    gain: float
    gain_low: float
    gain_high: float
    gain_interval: tuple[float, float]
    offset_w: float
    offset_low_w: float
    offset_high_w: float
    offset_interval_w: tuple[float, float]
    shift_s: float
    correlation: float
    overlap_s: float
    points: int
    blocks: int
    lowest_w: float
    highest_w: float
    residual_w: float
    boundary: Boundary
    centre_w: float
    level_uncertainty_w: float
    response: str
    stored: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def sensor(self) -> Sensor:
        """The correction that follows from it."""
        return Sensor(
            gain=self.gain,
            offset_w=self.offset_w,
            gain_uncertainty=(self.gain_high - self.gain_low) / 2,
            level_uncertainty_w=self.level_uncertainty_w,
            centre_w=self.centre_w,
            boundary=self.boundary if self.boundary == "system" else None,
            origin="calibrated against an external meter",
        )


def calibrate(
    external: PowerLog, board: PowerLog, *, boundary: Boundary = "gpu-board", averaging_s: float | None = None
) -> Calibration:
    """Fit gain and offset.

    Args:
        external: Log of the external meter.
        board: Log of the board's own sensor, of the same time.
        boundary: What the external meter covers; `system` for a wall meter.
        averaging_s: Averaging time of the board's sensor, if known.

    Raises:
        MeterError: The logs do not overlap, do not show the same work, or have a single level of power.
    """
    require_alive(board)
    response = learn_response(board, averaging_s)
    timing = response.timing
    lag_s = 0.0
    both_wall = external.begins_utc_s is not None and board.begins_utc_s is not None
    if both_wall:
        lag_s = (board.begins_utc_s or 0.0) - (external.begins_utc_s or 0.0)  # of the board's zero in external time
    alone = (external.begins_utc_s is None) != (board.begins_utc_s is None)
    own, other = _shown(board, timing), _as_shown(external, timing)
    shift_s, correlation = _shift(own, other, lag_s, timing.period_s, anywhere=alone)
    _require_range(own.power_w, "power of the board's log", "a few seconds")
    if correlation < LEAST_CORRELATION:
        raise MeterError(
            f"the two logs do not show the same work: their correlation is {correlation:.2f} at best; give logs of "
            "the same time in which the power changes"
        )
    own = own.moved(shift_s)
    points = _steady(own, other, timing)
    try:
        line = fit_line(points)
    except ValueError as error:
        raise MeterError(f"gain and offset are not separable: {error}; log rests and work for longer") from error
    if not LEAST_GAIN <= line.gain.value <= MOST_GAIN:
        raise MeterError(
            f"the fitted gain is {line.gain.value:.3g}, which no board has ({LEAST_GAIN:g} to {MOST_GAIN:g}); check "
            "units, columns and whether both logs are of the same board"
        )
    notes = [*external.notes, *board.notes]
    if _levels(points.reading_w) < 3:
        notes.append("two levels of power: whether the sensor is linear between them is not known")
    return Calibration(
        board=board.board,
        gain=line.gain.value,
        gain_low=line.gain.low,
        gain_high=line.gain.high,
        gain_interval=(line.gain.low, line.gain.high),
        offset_w=line.offset_w.value,
        offset_low_w=line.offset_w.low,
        offset_high_w=line.offset_w.high,
        offset_interval_w=(line.offset_w.low, line.offset_w.high),
        shift_s=float(shift_s - lag_s),
        correlation=float(correlation),
        overlap_s=float(min(own.t_s[-1], other.t_s[-1]) - max(own.t_s[0], other.t_s[0])),
        points=int(points.size.sum()),
        blocks=len(np.unique(points.visit)),
        lowest_w=float(points.reading_w.min()),
        highest_w=float(points.reading_w.max()),
        residual_w=line.residual_w,
        boundary=boundary,
        centre_w=line.centre_w,
        level_uncertainty_w=line.level_w.half,
        response=response.words,
        notes=tuple(notes),
    )


def _arrays(log: PowerLog) -> tuple[Floats, Floats]:
    good = np.array(log.good)
    return good[:, 0], good[:, 1]


def _shown(log: PowerLog, timing: SensorTiming) -> _Track:
    """Return the board's log, moved back to the middle of the time that a reading stands for."""
    t_s, power_w = _arrays(log)
    return _Track(t_s - timing.delay_s - timing.late_s, power_w)


class _Track:
    """A power log whose energy between any two times is quickly known; each reading lasts until the next one."""

    def __init__(self, t_s: Floats, power_w: Floats) -> None:
        waits = np.diff(t_s)
        self.t_s, self.power_w, self.step_s = t_s, power_w, float(np.median(waits))
        self._total_j = np.concatenate([[0.0], np.cumsum(power_w[:-1] * waits)])
        is_gap = waits > max(GAP * self.step_s, POINT_S)
        self._gaps_s = np.concatenate([[0.0], np.cumsum(np.where(is_gap, waits, 0.0))])

    @property
    def duration_s(self) -> float:
        """Time from the first to the last sample."""
        return float(self.t_s[-1] - self.t_s[0])

    def moved(self, seconds: float) -> _Track:
        """Return the log with another clock."""
        return _Track(self.t_s + seconds, self.power_w)

    def gaps_s(self, begin_s: Floats, end_s: Floats) -> Floats:
        """Return the seconds of each stretch that lie in gaps."""
        seconds: Floats = np.interp(end_s, self.t_s, self._gaps_s) - np.interp(begin_s, self.t_s, self._gaps_s)
        return seconds

    def means(self, edges: Floats) -> Floats:
        """Return the mean power between neighbouring edges; nan in a gap."""
        means = np.diff(np.interp(edges, self.t_s, self._total_j)) / np.diff(edges)
        return np.where(self.gaps_s(edges[:-1], edges[1:]) > 0, np.nan, means)

    def range_w(self, begin_s: float, end_s: float) -> float:
        """Return the range of the readings between two times."""
        first = max(int(np.searchsorted(self.t_s, begin_s, side="right")) - 1, 0)
        last = int(np.searchsorted(self.t_s, end_s, side="right"))
        return float(np.ptp(self.power_w[first : max(last, first + 1)]))


def _shift(own: _Track, other: _Track, lag_s: float, period_s: float, *, anywhere: bool) -> tuple[float, float]:
    """Return the shift to add to the board's times, and the correlation at it.

    It is the shift under which one log explains most about the other: the likelihood ratio of a line against none, so
    that a long overlap counts for more than a short one that fits a little better, as that of the next work may.
    """
    grid_s = max(GRID_S, other.step_s / 2, min(own.duration_s, 7200.0) / 20_000)
    reach_s = other.duration_s + own.duration_s if anywhere else SHIFT_S
    # work in step with the refresh looks different to both meters within a refresh, but not over two
    bin_s = max(grid_s, 2 * period_s)
    step_s = max(grid_s, reach_s / 400)

    def scan(middle_s: float) -> list[tuple[float, float, float]]:
        shifts = middle_s + np.arange(-reach_s, reach_s + step_s / 2, step_s)
        return [(*_agreement(own, other, float(shift_s), bin_s), float(shift_s)) for shift_s in shifts]

    scores = scan(lag_s)
    if max(score for score, _, _ in scores) == -np.inf:
        raise MeterError(
            f"the logs do not overlap: the board's covers {own.t_s[0] + lag_s:.1f} to {own.t_s[-1] + lag_s:.1f} s, the "
            f"external one {other.t_s[0]:.1f} to {other.t_s[-1]:.1f} s of its time; give logs of the same time (times "
            "without a zone are read as UTC)"
        )
    padded = [-np.inf, *(score for score, _, _ in scores), -np.inf]
    peaks = [one for i, one in enumerate(scores) if padded[i] <= one[0] >= padded[i + 2] and one[0] > -np.inf]
    peaks = sorted(peaks, key=lambda one: (-one[0], abs(one[2] - lag_s)))[:PEAKS]
    while step_s > grid_s * 1.01:
        reach_s, step_s = 2 * step_s, max(grid_s, step_s / 10)
        peaks = [max(scan(peak[2]), key=lambda one: (one[0], -abs(one[2] - lag_s))) for peak in peaks]
    _, correlation, shift_s = max(peaks, key=lambda one: (one[0], -abs(one[2] - lag_s)))
    return shift_s, correlation


def _agreement(own: _Track, other: _Track, shift_s: float, bin_s: float) -> tuple[float, float]:
    """Return the log-likelihood ratio and the correlation of two logs; -inf without enough overlap."""
    first_s, last_s = max(own.t_s[0] + shift_s, other.t_s[0]), min(own.t_s[-1] + shift_s, other.t_s[-1])
    if last_s - first_s < max(LEAST_OVERLAP_S, 0.5 * min(own.duration_s, other.duration_s)):
        return -np.inf, 0.0
    edges = np.arange(first_s, last_s, bin_s)
    mine_w, other_w = own.means(edges - shift_s), other.means(edges)
    both = ~(np.isnan(mine_w) | np.isnan(other_w))
    mine_w, other_w = mine_w[both], other_w[both]
    if len(mine_w) < 3:
        return -np.inf, 0.0
    if mine_w.std() == 0 or other_w.std() == 0:
        return 0.0, 0.0
    correlation = float(np.corrcoef(mine_w, other_w)[0, 1])
    explained = min(correlation * abs(correlation), 0.99999)
    return -len(mine_w) * float(np.log1p(-explained)), correlation


def _as_shown(external: PowerLog, timing: SensorTiming) -> _Track:
    """Return the external log as the board's sensor would show it; a meter that is slower than it is left as it is."""
    t_s, power_w = _arrays(external)
    if np.median(np.diff(t_s)) < timing.period_s:
        for width_s in (max(timing.averaging_s, timing.period_s), timing.period_s):
            total_j = np.concatenate([[0.0], np.cumsum((power_w[1:] + power_w[:-1]) / 2 * np.diff(t_s))])
            begin_s, end_s = (np.clip(t_s + side * width_s / 2, t_s[0], t_s[-1]) for side in (-1, 1))
            power_w = (np.interp(end_s, t_s, total_j) - np.interp(begin_s, t_s, total_j)) / (end_s - begin_s)
    return _Track(t_s, power_w)


def _steady(own: _Track, other: _Track, timing: SensorTiming) -> Points:
    """Return the steady stretches of the time that both logs cover.

    A steady reading shows that the power was steady for at least the averaging time around it.
    """
    first_s, last_s = max(own.t_s[0], other.t_s[0]), min(own.t_s[-1], other.t_s[-1])
    point_s = max(POINT_S, 2 * timing.period_s, other.step_s)
    guard_s = timing.period_s + GUARD_SHARE * timing.averaging_s + timing.doubt_s + other.step_s
    edges = np.arange(first_s, last_s, point_s)
    if len(edges) < 3:
        raise MeterError(f"the logs overlap for {last_s - first_s:.1f} s only; at least 10 stretches are needed")
    ours, theirs = own.means(edges), other.means(edges)
    slopes = np.diff(np.interp(edges, other.t_s, other.power_w)) / point_s * timing.period_s
    changes = np.abs(np.diff(own.power_w))
    usual_w = float(np.median(changes[changes > 0]))
    allowed_w = max(STEADY_SHARE * float(np.nanmax(ours) - np.nanmin(ours)), STEADY_CHANGES * usual_w)
    steady = [own.range_w(a - guard_s, b + guard_s) <= allowed_w for a, b in pairwise(edges)]
    around_s = guard_s + timing.settle_s / 2  # a gap in the external log is averaged like power
    gaps_s = sum(log.gaps_s(edges[:-1] - around_s, edges[1:] + around_s) for log in (own, other))
    places = np.flatnonzero(np.array(steady) & (gaps_s == 0))
    needs_s = point_s + 2 * guard_s
    if len(places) < 2 * LEAST_POINTS:
        raise MeterError(
            f"the logs have {len(places)} steady stretches, at least {2 * LEAST_POINTS} are needed: keep the power "
            f"constant for {needs_s + (LEAST_POINTS - 1) * point_s:.1f} s or longer, at rest and at work (this sensor: "
            f"period {timing.period_s:.3g} s, averaging {timing.averaging_s:.2g} s)"
        )
    visits = np.cumsum(np.concatenate([[0], np.diff(places) > 1]))
    # neighbours of a visit are merged, so that a long log is not slower than a short one
    per_point = -(-len(places) // MOST_POINTS)
    since = places - np.array([places[visits == visit][0] for visit in visits])
    groups = np.unique(visits * len(edges) + since // per_point, return_inverse=True)[1]
    size = np.bincount(groups).astype(float)
    columns = (ours[places], theirs[places], slopes[places], (edges[:-1] + edges[1:])[places] / 2, visits)
    reading_w, external_w, slope_w, middle_s, visit = (np.bincount(groups, column) / size for column in columns)
    _require_levels(reading_w, needs_s)
    return Points(
        reading_w=reading_w, external_w=external_w, slope_w=slope_w, t_s=middle_s, visit=np.round(visit), size=size
    )


def _require_range(reading_w: Floats, what: str, needs: str) -> tuple[float, float]:
    low_w, high_w = float(reading_w.min()), float(reading_w.max())
    if high_w - low_w < LEAST_SPREAD * high_w:
        raise MeterError(
            f"the {what} is {low_w:.1f} to {high_w:.1f} W: gain and offset are not separable at one level of power; "
            f"log a rest and work that draws much more, for at least {needs} each"
        )
    return low_w, high_w


def _require_levels(reading_w: Floats, needs_s: float) -> None:
    low_w, high_w = _require_range(reading_w, "steady power", f"{needs_s:.1f} s")
    below = int((reading_w < (low_w + high_w) / 2).sum())
    if min(below, len(reading_w) - below) < LEAST_POINTS:
        raise MeterError(
            f"the logs have {below} steady stretches near {low_w:.1f} W and {len(reading_w) - below} near "
            f"{high_w:.1f} W, at least {LEAST_POINTS} of each are needed: keep the power constant for longer (a single "
            f"stretch takes {needs_s:.1f} s with this sensor)"
        )


def _levels(reading_w: Floats) -> int:
    """Return the number of levels of power that are clearly apart."""
    ordered = np.sort(reading_w)
    return 1 + int((np.diff(ordered) > LEAST_SPREAD * float(np.ptp(ordered)) / 2).sum())


def as_text(one: Calibration) -> str:
    """Return the calibration as text."""
    lines = [
        f"true power = {one.gain:.4f} x reading {one.offset_w:+.2f} W  [{one.boundary}]",
        f"  gain {one.gain:.4f} [{one.gain_low:.4f}, {one.gain_high:.4f}], offset {one.offset_w:+.2f} W "
        f"[{one.offset_low_w:+.2f}, {one.offset_high_w:+.2f}], 95 % intervals",
        f"  from {one.points} steady stretches in {one.blocks} visits to a level, {one.lowest_w:.1f} to "
        f"{one.highest_w:.1f} W, residual {one.residual_w:.2g} W",
        f"  the external clock is {abs(one.shift_s):.3f} s {'ahead' if one.shift_s >= 0 else 'behind'}, correlation "
        f"{one.correlation:.3f} over {one.overlap_s:.1f} s; sensor {one.response}",
    ]
    if one.stored is not None:
        lines.append(f"  stored for {one.board}; apply it with --sensor stored")
    else:
        most_w = max(one.sensor.uncertainty_w(reading_w) for reading_w in (one.lowest_w, one.highest_w))
        lines.append(
            f"  not stored (--store BOARD); apply it with --sensor {one.gain:.4f},{one.offset_w:.2f},{most_w:.2g}"
        )
    return "\n".join([*lines, *(f"  {note}" for note in one.notes)])
