r"""Fits gain and offset of a board's power sensor to the log of an external meter.

external      ___/‾‾‾‾‾‾‾‾‾\______     1. shift between the clocks: largest correlation
board       ____/‾‾‾‾‾‾‾‾‾\_______     2. means of the steady stretches: a point each
                  ╰─ block ─╯          3. external = gain * board + offset, with 95 % intervals
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from perjoule.errors import MeterError
from perjoule.meters.log_energy import Response, learn_response, require_alive
from perjoule.meters.logs import PowerLog
from perjoule.meters.sensor import Sensor
from perjoule.types import Boundary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHIFT_S = 10.0  # clocks of two machines differ by less, if both logs have wall-clock times
GRID_S = 0.01
LEAST_OVERLAP_S = 2.0
BLOCK_S = 1.0  # a sensor's error is the same for about as long
POINT_S = 0.25
LEAST_SPREAD = 0.2  # of the highest power, between the lowest and the highest: else gain and offset are not separable
STEADY_SHARE = 0.06  # of the board's range: more change within a stretch is a transition
NOISE_SHARE = 0.01  # of the highest power: any sensor's noise
LEAST_CORRELATION = 0.8
FEW_LEVELS = 3.0  # standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `calibrate` prints: gain and offset of a board's sensor.

    Attributes:
        board: Digest of the board's UUID, or its index in the log; None if it is unknown.
        gain: True power = gain * reading + offset_w.
        gain_interval: 95 % interval of the gain.
        offset_w: Offset in W.
        offset_interval_w: 95 % interval of the offset.
        shift_s: Time of the external log minus that of the board's log, for the same event.
        correlation: Correlation of the two logs after the shift.
        overlap_s: Seconds that both logs cover.
        points: Number of steady stretches used.
        blocks: Number of independent blocks of them.
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
    gain_interval: tuple[float, float]
    offset_w: float
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
            gain_uncertainty=(self.gain_interval[1] - self.gain_interval[0]) / 2,
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
    lag_s = 0.0
    both_wall = external.begins_utc_s is not None and board.begins_utc_s is not None
    if both_wall:
        lag_s = (board.begins_utc_s or 0.0) - (external.begins_utc_s or 0.0)  # of the board's zero in external time
    alone = (external.begins_utc_s is None) != (board.begins_utc_s is None)
    t_s, board_w = _shown(board, response)
    other_t, other_w = _arrays(external)
    shift_s, correlation = _shift(t_s, board_w, other_t, other_w, lag_s, response.timing.period_s, anywhere=alone)
    t_s = t_s + shift_s
    first_s, last_s = max(t_s[0], other_t[0]), min(t_s[-1], other_t[-1])
    points, blocks = _steady(t_s, board_w, other_t, other_w, first_s, last_s, response)
    _require_levels(points)
    if correlation < LEAST_CORRELATION:
        raise MeterError(
            f"the two logs do not show the same work: their correlation is {correlation:.2f} at best; give logs of "
            "the same time in which the power changes"
        )
    return _fit(points, blocks, board, response, boundary, shift_s - lag_s, correlation, last_s - first_s, external)


def _arrays(log: PowerLog) -> tuple[Floats, Floats]:
    good = np.array(log.good)
    return good[:, 0], good[:, 1]


def _shown(log: PowerLog, response: Response) -> tuple[Floats, Floats]:
    """Return times and readings, moved back to the middle of the time that a reading stands for."""
    t_s, power_w = _arrays(log)
    return t_s - response.timing.delay_s - response.timing.late_s, power_w


def _means(t_s: Floats, power_w: Floats, edges: Floats) -> Floats:
    """Return the mean power between neighbouring edges, each reading lasting until the next one."""
    total_j = np.concatenate([[0.0], np.cumsum(power_w[:-1] * np.diff(t_s))])
    means: Floats = np.diff(np.interp(edges, t_s, total_j)) / np.diff(edges)
    return means


def _shift(
    t_s: Floats, board_w: Floats, other_t: Floats, other_w: Floats, lag_s: float, period_s: float, *, anywhere: bool
) -> tuple[float, float]:
    """Return the shift to add to the board's times, and the correlation at it."""
    grid_s = max(GRID_S, float(np.median(np.diff(other_t))) / 2, min(t_s[-1] - t_s[0], 7200.0) / 20_000)
    reach_s = (other_t[-1] - other_t[0]) + (t_s[-1] - t_s[0]) if anywhere else SHIFT_S
    # work in step with the refresh looks different to both meters within a refresh, but not over two
    bin_s, middle_s = max(grid_s, 2 * period_s), lag_s
    step_s = max(grid_s, reach_s / 400)
    best = (0.0, -1.0)
    while True:
        candidates = middle_s + np.arange(-reach_s, reach_s + step_s / 2, step_s)
        scores = [(_correlation(t_s + s, board_w, other_t, other_w, bin_s), float(s)) for s in candidates]
        score, middle_s = max(scores, key=lambda one: (one[0], -abs(one[1] - lag_s)))
        if score < -0.5:
            raise MeterError(
                f"the logs do not overlap: the board's covers {t_s[0] + lag_s:.1f} to {t_s[-1] + lag_s:.1f} s, the "
                f"external one {other_t[0]:.1f} to {other_t[-1]:.1f} s of its time; give logs of the same time"
            )
        best = (middle_s, score)
        if step_s <= grid_s * 1.01:
            return best
        reach_s, step_s = 2 * step_s, max(grid_s, step_s / 10)


def _correlation(t_s: Floats, board_w: Floats, other_t: Floats, other_w: Floats, bin_s: float) -> float:
    """Return the correlation of the two logs; -1 without enough overlap, 0 if one of them is constant."""
    first_s, last_s = max(t_s[0], other_t[0]), min(t_s[-1], other_t[-1])
    if last_s - first_s < max(LEAST_OVERLAP_S, 0.5 * min(t_s[-1] - t_s[0], other_t[-1] - other_t[0])):
        return -1.0
    edges = np.arange(first_s, last_s, bin_s)
    if len(edges) < 3:
        return -1.0
    one, other = _means(t_s, board_w, edges), _means(other_t, other_w, edges)
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _steady(
    t_s: Floats, board_w: Floats, other_t: Floats, other_w: Floats, first_s: float, last_s: float, response: Response
) -> tuple[Floats, Floats]:
    """Return (reading, external) of steady stretches, one row each, and the number of the block of each."""
    timing = response.timing
    point_s = max(POINT_S, 2 * timing.period_s, 2 * float(np.median(np.diff(other_t))))
    guard_s = 0.75 * max(timing.averaging_s, timing.period_s) + timing.period_s + timing.doubt_s
    edges = np.arange(first_s, last_s, point_s)
    if len(edges) < 3:
        raise MeterError(f"the logs overlap for {last_s - first_s:.1f} s only; at least 10 stretches are needed")
    ours, theirs = _means(t_s, board_w, edges), _means(other_t, other_w, edges)
    allowed_w = max(STEADY_SHARE * float(np.ptp(ours)), NOISE_SHARE * float(ours.max()))
    steady = [_range(t_s, board_w, a - guard_s, b + guard_s) <= allowed_w for a, b in pairwise(edges)]
    kept = np.array(steady)
    points = np.column_stack([ours[kept], theirs[kept]])
    if len(points) < 4:
        raise MeterError(
            "the logs have no steady stretches: run work that keeps the power constant for a few seconds, and rests"
        )
    # a block is a run of steady stretches, at most BLOCK_S long
    places = np.flatnonzero(kept)
    per_block = max(round(BLOCK_S / point_s), 1)
    runs = np.cumsum(np.concatenate([[0], np.diff(places) > 1]))
    starts = {run: places[runs == run][0] for run in np.unique(runs)}
    blocks = np.array(
        [run * 1_000_000 + (place - starts[run]) // per_block for run, place in zip(runs, places, strict=True)]
    )
    return points, np.unique(blocks, return_inverse=True)[1].astype(float)


def _range(t_s: Floats, power_w: Floats, begin_s: float, end_s: float) -> float:
    first = max(int(np.searchsorted(t_s, begin_s, side="right")) - 1, 0)
    last = int(np.searchsorted(t_s, end_s, side="right"))
    return float(np.ptp(power_w[first : max(last, first + 1)]))


def _require_levels(points: Floats) -> None:
    low_w, high_w = float(points[:, 0].min()), float(points[:, 0].max())
    middle_w = (low_w + high_w) / 2
    if (
        high_w - low_w < LEAST_SPREAD * high_w
        or min((points[:, 0] < middle_w).sum(), (points[:, 0] > middle_w).sum()) < 2
    ):
        raise MeterError(
            f"the steady power is {low_w:.1f} to {high_w:.1f} W: gain and offset are not separable at one level of "
            "power; log a rest and work that draws much more, for at least a few seconds each"
        )


def _fit(
    points: Floats, blocks: Floats, board: PowerLog, response: Response, boundary: Boundary, shift_s: float,
    correlation: float, overlap_s: float, external: PowerLog,
) -> Calibration:  # fmt: skip
    """Least squares over the stretches. Errors within a block are dependent, so variances are those of block sums."""
    from scipy.stats import t as student

    centre_w = float(points[:, 0].mean())
    design = np.column_stack([np.ones(len(points)), points[:, 0] - centre_w])
    inverse = np.linalg.inv(design.T @ design)
    level_w, gain = inverse @ design.T @ points[:, 1]
    residuals = points[:, 1] - design @ np.array([level_w, gain])
    names = np.unique(blocks)
    count = len(names)
    if count < 4:
        raise MeterError(f"the logs have {count} independent blocks of steady power, at least 4 are needed; log longer")
    sums = np.array([design[blocks == name].T @ residuals[blocks == name] for name in names])
    covariance = inverse @ (sums.T @ sums) @ inverse * count / (count - 2)
    # never tighter than independent stretches would be
    least = inverse * residuals.var() * len(points) / max(len(points) - 2, 1)
    # the error at a level of power does not average out over time, so each of the two outer levels counts once;
    # three standard deviations, because few levels show little of their spread
    spread_w = FEW_LEVELS * float(residuals.std()) / sqrt(2)
    low = points[:, 0] < (points[:, 0].min() + points[:, 0].max()) / 2
    between_w = float(points[~low, 0].mean() - points[low, 0].mean())
    floor = np.array([spread_w, 2 * spread_w / between_w])
    variances = np.maximum(np.diag(covariance), np.diag(least))
    quantile = float(student.ppf(0.975, count - 2))
    level_half_w, gain_half = np.maximum(quantile * np.sqrt(variances), floor)
    at_zero = np.array([1.0, -centre_w])
    offset_half_w = quantile * float(np.sqrt(max(at_zero @ covariance @ at_zero, at_zero @ least @ at_zero)))
    offset_half_w = max(offset_half_w, float(np.hypot(floor[0], centre_w * floor[1])))
    offset_w = float(level_w - gain * centre_w)
    return Calibration(
        board=board.board,
        gain=float(gain),
        gain_interval=(float(gain - gain_half), float(gain + gain_half)),
        offset_w=offset_w,
        offset_interval_w=(offset_w - offset_half_w, offset_w + offset_half_w),
        shift_s=float(shift_s),
        correlation=float(correlation),
        overlap_s=float(overlap_s),
        points=len(points),
        blocks=count,
        lowest_w=float(points[:, 0].min()),
        highest_w=float(points[:, 0].max()),
        residual_w=float(residuals.std()),
        boundary=boundary,
        centre_w=centre_w,
        level_uncertainty_w=float(level_half_w),
        response=response.words,
        notes=(*external.notes, *board.notes),
    )


def as_text(one: Calibration) -> str:
    """Return the calibration as text."""
    low_w, high_w = one.offset_interval_w
    lines = [
        f"true power = {one.gain:.4f} x reading {one.offset_w:+.2f} W  [{one.boundary}]",
        f"  gain {one.gain:.4f} [{one.gain_interval[0]:.4f}, {one.gain_interval[1]:.4f}], offset {one.offset_w:+.2f} W "
        f"[{low_w:+.2f}, {high_w:+.2f}], 95 % intervals",
        f"  from {one.points} steady stretches in {one.blocks} blocks, {one.lowest_w:.1f} to {one.highest_w:.1f} W, "
        f"residual {one.residual_w:.2g} W",
        f"  the external clock is {abs(one.shift_s):.3f} s {'ahead' if one.shift_s >= 0 else 'behind'}, correlation "
        f"{one.correlation:.3f} over {one.overlap_s:.1f} s; sensor {one.response}",
    ]
    if one.stored is not None:
        lines.append(f"  stored for {one.board}; apply it with --sensor stored")
    else:
        lines.append(f"  not stored (--store BOARD); apply it with --sensor {one.gain:.4f},{one.offset_w:.2f}")
    return "\n".join([*lines, *(f"  {note}" for note in one.notes)])
