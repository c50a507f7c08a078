r"""Checks whether a meter is consistent with itself, on a board whose true energy nobody knows.

Without a reference meter, truth comes from work that is repeated: n equal pieces cost n times one piece.

     linearity    windows over n, 2 n, 4 n, … 64 n pieces lie on a line through 0
     additivity   ├── a ──┤rest├── b ──┤     two inner windows and the rest between them make up the outer window
                  ├────── outer ───────┤
     short        a short window agrees with its share of a long one
     sources      the counter and the power reading agree, at rest and at work
     period       the counter refreshes at work as often as it did when its period was measured
     phase        the counter sees all of the time, see `phase`
     lag          the counter lags and averages as the meter assumes, see `lag`
     rest         power at rest neither drifts nor jumps, and nobody else uses the board

What no such check can find is a gain or an offset that all readings share; `perjoule calibrate` compares with an
external meter. Limits of the checks contain the bounds of the readings, `RISE_S` at the power of the work, because a
board does not change its power at once, and `WORK_SHARE`, because equal pieces do not always cost the same.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Protocol

import numpy as np

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.counter import CounterMeter
from perjoule.meters.lag import LagTest
from perjoule.meters.proof import BareCounter, Check, CheckVerdict, Proof, ProofWindow
from perjoule.meters.rest import gap_power_w
from perjoule.meters.watched import WatchedCounter
from perjoule.meters.watcher import POLL_S, EdgeWatcher
from perjoule.types import Edge, EnergyReading

LENGTHS_S = tuple(0.025 * 2**i for i in range(7))  # of the windows on the line, about
SERIES = 3  # repeats of each length
SPLITS = (12, 200)  # fewest and most pairs of inner windows
SPLIT_S = (0.05, 0.25)  # length of the inner windows
SHORT_S = 0.3  # longest window that counts as short
LONG_S = 3.0
RISEN_S = 0.5  # after the start of work, counter and power reading show it
LEAST_POLLS = 10
WARM_S = 2.0  # of work before the checks, because a cold board draws less
REST_S, REST_WINDOW_S = 20.0, 0.5
BARE_WINDOWS, BARE_S = 10, (0.05, 0.5)  # windows of a bare counter, for comparison only
PERIODS_AT_WORK = 12
RISE_S = 0.010  # longest time in which published boards reach the power of their work, or leave it
WORK_SHARE = 0.01  # by which equal pieces of work may differ in their energy
INSIDE_SHARE = 0.95  # of residuals that must lie inside their limit; the bounds promise more
GAIN_SHARE = 0.04  # by which the ratio of two sensors may change between rest and work
RATIO_RANGE = (0.85, 1.15)  # of two sensors; gains differ by some 10 % (arXiv 2312.02741)
LAG_S, LAG_SHARE = 0.008, 0.1  # by which a known lag may be off, and as a share of a known box
PERIOD_SHARE = 0.1  # by which the update period may change at work
REST_STEP_W, REST_STEP_SHARE = 5.0, 0.1  # by which power at rest may change between two windows
TOO_WIDE = "such a limit exceeds the energy itself, so that it shows nothing"
INVALID_SHARE = 0.1  # of windows without energy


class Load(Protocol):
    """Work in equal pieces for the device of a meter."""

    @property
    def name(self) -> str:
        """What it does, e.g. `matrix products of 4096 x 4096 on cuda:0`."""
        ...

    @property
    def piece_s(self) -> float:
        """About how long a piece takes; at most 5 ms, a quarter of the shortest published period, if possible."""
        ...

    def run(self, pieces: int) -> None:
        """Do that many pieces and return when the device has finished them."""
        ...


class _Failed(Exception):  # noqa: N818 - ends a check, and becomes its words
    """The meter gave no energy in too many windows."""


def prove(
    open_meter: Callable[[], BaseMeter[Any]],
    load: Load,
    *,
    say: Callable[[str], None] = lambda text: None,
    chance: random.Random | None = None,
    seconds: float = 160.0,
) -> Proof:
    """Check a meter with work of known proportions. The device should do nothing else; takes 2 to 3 minutes.

    Args:
        open_meter: Opens the meter; called twice, because windows of one meter do not nest.
        load: Work for the meter's device.
        say: Called with a line of text before each check.
        chance: Random numbers for the order of windows and for phases.
        seconds: Time after which no further pair of inner windows is started.

    Raises:
        MeterError: The meter cannot be opened, or reads several boards.
    """
    chance = chance or random.Random()
    with ExitStack() as stack:
        meter, second = stack.enter_context(open_meter()), stack.enter_context(open_meter())
        if len(meter.facts) > 1:
            raise MeterError(f"{meter.name}: a proof is for one board; name it, as in --meter nvml:UUID")
        return _Bench(meter, second, load, say, chance, seconds).prove()


class _Bench:
    """The state of a proof while it is made."""

    def __init__(
        self,
        meter: BaseMeter[Any],
        second: BaseMeter[Any],
        load: Load,
        say: Callable[[str], None],
        chance: random.Random,
        seconds: float,
    ) -> None:
        self._meter, self._second, self._load, self._say = meter, second, load, say
        self._chance, self._clock = chance, meter.clock
        self._until_s = self._clock.now() + seconds
        self._tried = self._invalid = 0
        self._invalid_words = ""
        self._rest_w = self._work_w = 0.0
        self._measured_lag = LagTest(lag_s=None, box_s=None, misfit=1.0, words="not measured")
        self._windows: list[ProofWindow] = []

    def prove(self) -> Proof:
        """Make all checks."""
        begun_s, meter = self._clock.now(), self._meter
        checks = [self._check(self._rest, "rest", f"watching the board at rest for {REST_S:.0f} s")]
        self._burst(WARM_S)
        for make, name, words in (
            (self._sources, "sources", "comparing the sensors of the board"),
            (self._period, "period", "comparing the update period at rest and at work"),
            (self._lag, "lag", "switching work on and off"),
            (
                self._linearity,
                "linearity",
                f"measuring {SERIES} x {len(LENGTHS_S)} windows of {LENGTHS_S[0]:g} to {LENGTHS_S[-1]:g} s",
            ),
            (self._short_windows, "short", "comparing short windows with a long one"),
            (self._phase, "phase", "counting bursts over the update period"),
            (self._additivity, "additivity", f"measuring up to {SPLITS[1]} pairs of windows inside a third one"),
        ):
            checks.append(self._check(make, name, words))
        checks.append(self._validity())
        proof = Proof(
            verdict=_overall(checks),
            digest="",
            meter=meter.name,
            method=meter.method,
            provenance=meter.provenance,
            device=None if meter.device is None else meter.device.name,
            board=meter.facts[0].digest if meter.facts else None,
            load=self._load.name,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            duration_s=self._clock.now() - begun_s,
            lag_s=self._measured_lag.lag_s,
            box_s=self._measured_lag.box_s,
            lags_s=self._measured_lag.lags_s,
            boxes_s=self._measured_lag.boxes_s,
            rest_w=self._rest_w,
            work_w=self._work_w,
            checks=tuple(checks),
            windows=tuple(self._windows),
            bare=self._bare(),
        )
        return replace(
            proof, digest=hashlib.sha256(json.dumps(asdict(proof), sort_keys=True).encode()).hexdigest()[:16]
        )

    def _check(self, make: Callable[[], tuple[CheckVerdict, str]], name: str, words: str) -> Check:
        self._say(f"{name}: {words}")
        try:
            verdict, seen = make()
        except (Fault, _Failed) as fault:
            verdict, seen = "fail", str(fault)
        return Check(name=name, verdict=verdict, words=seen)

    # -- windows --------------------------------------------------------------------------------------------------

    def _measured(self, work: Callable[[], None], meter: BaseMeter[Any] | None = None) -> EnergyReading:
        with (meter or self._meter).window(label="proof") as window:
            work()
        return self._counted(window.reading)

    def _counted(self, reading: EnergyReading) -> EnergyReading:
        self._tried += 1
        if reading.energy_j is None:
            self._invalid += 1
            self._invalid_words = "; ".join(reading.warnings)
        return reading

    def _needed(self, work: Callable[[], None]) -> EnergyReading:
        """Return a reading with energy; one repeat is allowed."""
        for _ in range(2):
            reading = self._measured(work)
            if reading.energy_j is not None:
                return reading
        raise _Failed(f"no energy: {self._invalid_words}")

    def _burst(self, seconds: float) -> None:
        self._load.run(self._pieces(seconds))

    def _pieces(self, seconds: float) -> int:
        return max(round(seconds / self._load.piece_s), 1)

    def _validity(self) -> Check:
        share = self._invalid / max(self._tried, 1)
        words = f"{self._tried - self._invalid} of {self._tried} windows have an energy"
        if self._invalid:
            words += f"; the last one without: {self._invalid_words}"
        return Check(name="validity", verdict="fail" if share > INVALID_SHARE else "pass", words=words)

    def _inapplicable(self, reason: str) -> str:
        """Return why a check does not apply to the meter; the fault that it finds is then not excluded."""
        estimated = self._meter.provenance == "estimated"
        return f"does not apply to {self._meter.name}: {'it models energy and has no sensor' if estimated else reason}"

    def _doubt_j(self, energy_j: float) -> float:
        """Return what the work itself may contribute to a difference."""
        return self._rise_j() + WORK_SHARE * energy_j

    def _rise_j(self) -> float:
        return abs(self._work_w - self._rest_w) * RISE_S

    # -- checks ---------------------------------------------------------------------------------------------------

    def _rest(self) -> tuple[CheckVerdict, str]:
        readings = [
            self._measured(partial(self._clock.sleep, REST_WINDOW_S)) for _ in range(round(REST_S / REST_WINDOW_S))
        ]
        valid = [reading for reading in readings if reading.energy_j is not None]
        if len(valid) < len(readings) / 2:
            raise _Failed(f"no energy at rest: {self._invalid_words}")
        powers = [(reading.energy_j or 0.0) / reading.duration_s for reading in valid]
        self._rest_w = median(powers)
        limits = [
            (reading.uncertainty_j or 0.0) / reading.duration_s + max(REST_STEP_W, REST_STEP_SHARE * self._rest_w)
            for reading in valid
        ]
        slope = float(np.polyfit(range(len(powers)), powers, 1)[0]) if len(powers) > 2 else 0.0
        drift_w = slope * len(powers)
        away = [abs(power - self._rest_w) for power in powers]
        words = (
            f"{self._rest_w:.4g} W, {min(powers):.4g} to {max(powers):.4g} W, drift {drift_w:+.2g} W in {REST_S:.0f} s"
        )
        foreign = max((board.conditions.foreign_processes or 0 for board in self._meter.facts), default=0)
        if foreign:
            return "fail", f"{foreign} other processes compute on the board (foreign load); {words}"
        if sum(apart > limit for apart, limit in zip(away, limits, strict=True)) > 1:
            return "fail", f"power at rest jumps (foreign load, or a board that is not at rest): {words}"
        return "pass", words

    def _sources(self) -> tuple[CheckVerdict, str]:
        at_work = self._needed(partial(self._burst, LONG_S))
        self._work_w = (at_work.energy_j or 0.0) / at_work.duration_s
        self._clock.sleep(1.0)
        at_rest = self._needed(partial(self._clock.sleep, LONG_S))
        ratios = [_ratio(at_rest), _ratio(at_work)]
        if ratios[0] is None or ratios[1] is None:
            return "unsure", self._inapplicable(
                "it has one sensor only; compare it with another meter (perjoule calibrate)"
            )
        change = ratios[1] / ratios[0] - 1
        words = (
            f"counter / power reading: {ratios[0]:.3f} at {self._rest_w:.0f} W, {ratios[1]:.3f} at {self._work_w:.0f} W"
        )
        if abs(change) > GAIN_SHARE:
            return "fail", f"the gain depends on power: {words}"
        if not all(RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1] for ratio in ratios if ratio is not None):
            return "fail", f"the sensors disagree: {words}"
        return "pass", words

    def _period(self) -> tuple[CheckVerdict, str]:
        board = self._counter()
        if board is None:
            return "unsure", self._inapplicable("it does not read an energy counter of a board")
        seconds = max(PERIODS_AT_WORK * board.period.longest_s, 0.5)
        edges = _edges_during(board, self._clock, lambda: self._burst(seconds))
        gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(edges)]
        if len(gaps) < PERIODS_AT_WORK / 2:
            return "fail", f"the counter changed {len(edges)} times in {seconds:.2f} s of work"
        words = f"{1e3 * board.period.median_s:.1f} ms as measured at the start, {1e3 * median(gaps):.1f} ms at work"
        if abs(median(gaps) / board.period.median_s - 1) > PERIOD_SHARE:
            return "fail", f"the update period is wrong: {words}"
        return "pass", words

    def _linearity(self) -> tuple[CheckVerdict, str]:
        for _ in range(SERIES):
            for seconds in self._chance.sample(LENGTHS_S, len(LENGTHS_S)):
                pieces = self._pieces(seconds)
                reading = self._measured(partial(self._load.run, pieces))
                self._windows.append(
                    ProofWindow(
                        pieces=pieces,
                        duration_s=reading.duration_s,
                        energy_j=reading.energy_j,
                        uncertainty_j=reading.uncertainty_j,
                    )
                )
        return _on_a_line(self._windows, self._work_w, self._rest_w, bounded=self._bounded())

    def _short_windows(self) -> tuple[CheckVerdict, str]:
        short = [window for window in self._windows if window.duration_s <= SHORT_S and window.energy_j is not None]
        if not short:
            return "unsure", f"no window is shorter than {SHORT_S:g} s"
        errors = [(window.energy_j or 0.0) - self._work_w * window.duration_s for window in short]
        limits = [(window.uncertainty_j or 0.0) + self._doubt_j(window.energy_j or 0.0) for window in short]
        energy_j = fmean(window.energy_j or 0.0 for window in short)
        mean_j, limit_j = fmean(errors), fmean(limits)
        words = (
            f"{len(errors)} windows of up to {SHORT_S:g} s differ from a long one by {mean_j:+.2g} J of "
            f"{energy_j:.3g} J on average; limit {limit_j:.2g} J"
        )
        if limit_j > energy_j:
            return "unsure", f"{words}; {TOO_WIDE}"
        if abs(mean_j) <= limit_j:
            return "pass", words
        return ("fail" if self._bounded() else "unsure"), words

    def _lag(self) -> tuple[CheckVerdict, str]:
        board = self._counter()
        if not isinstance(self._meter, CounterMeter) or board is None:
            return "unsure", self._inapplicable("it does not read an energy counter of a board")
        known_lag_s, known_box_s = board.following.measured or (0.0, 0.0)
        found = self._measured_lag = self._meter.try_lag(self._burst)
        if found.lag_s is None or found.box_s is None:
            return "unsure", found.words
        if isinstance(self._second, CounterMeter):
            self._second.boards[0].following.set(board.following.measured)
        late_s = abs(found.lag_s + found.box_s / 2 - known_lag_s - known_box_s / 2)
        if late_s > LAG_S + LAG_SHARE * known_box_s:
            return "fail", f"the counter lags or averages, which the meter did not know: {found.words}"
        return "pass", found.words

    def _phase(self) -> tuple[CheckVerdict, str]:
        if not isinstance(self._meter, CounterMeter):
            return "unsure", self._inapplicable("it does not read an energy counter of a board")
        result = self._meter.try_phase(self._burst)
        if result.part_time is None:
            return "unsure", result.words
        return ("fail", f"the counter is part-time: {result.words}") if result.part_time else ("pass", result.words)

    def _additivity(self) -> tuple[CheckVerdict, str]:
        differences, limits, energies = [], [], []
        for number in range(SPLITS[1]):
            if number >= SPLITS[0] and self._clock.now() > self._until_s:
                break
            parts: list[EnergyReading] = []
            with self._meter.window(label="outer") as window:
                for _ in range(2):
                    pieces = self._pieces(self._chance.uniform(*SPLIT_S))
                    parts.append(self._measured(partial(self._load.run, pieces), self._second))
            outer = self._counted(window.reading)
            if outer.energy_j is None or any(part.energy_j is None for part in parts):
                continue
            rest_s = outer.duration_s - sum(part.duration_s for part in parts)
            after_w = [_rest_after_w(part) or self._rest_w for part in parts]
            rest_w = fmean(after_w)
            doubt_w = max(abs(power - self._rest_w) for power in after_w)
            inner_j = sum(part.energy_j or 0.0 for part in parts)
            differences.append(outer.energy_j - inner_j - rest_w * rest_s)
            bounds_j = sum(reading.uncertainty_j or 0.0 for reading in (outer, *parts))
            limits.append(bounds_j + doubt_w * rest_s + 2 * self._rise_j())
            energies.append(outer.energy_j)
        if len(differences) < SPLITS[0] / 2:
            return "unsure", f"{len(differences)} pairs of windows are too few"
        inside = [abs(apart) <= limit for apart, limit in zip(differences, limits, strict=True)]
        share = sum(inside) / len(inside)
        words = (
            f"{sum(inside)} of {len(inside)} sums agree with the outer window; mean difference "
            f"{fmean(differences):+.2g} J, mean limit {fmean(limits):.2g} J"
        )
        if fmean(limits) > fmean(energies):
            return "unsure", f"{words}; {TOO_WIDE}"
        if share >= INSIDE_SHARE:
            return "pass", words
        return ("fail" if self._bounded() else "unsure"), words

    # -- the counter ----------------------------------------------------------------------------------------------

    def _bounded(self) -> bool:
        """Return whether the meter states bounds; without them, a difference may be noise."""
        return all(window.uncertainty_j is not None for window in self._windows if window.energy_j is not None)

    def _counter(self) -> WatchedCounter | None:
        return self._meter.boards[0] if isinstance(self._meter, CounterMeter) else None

    def _bare(self) -> tuple[BareCounter, ...]:
        """Measure short work by two plain readings of the counter, at random phases."""
        board = self._counter()
        if board is None or not self._work_w:
            return ()
        rows = []
        for seconds in BARE_S:
            pieces = self._pieces(seconds)
            errors, lengths = [], []
            for _ in range(BARE_WINDOWS):
                self._clock.sleep(self._chance.uniform(1, 2) * board.period.longest_s)
                try:
                    begun_s, begun_j = self._clock.now(), board.source.read_j()
                    self._load.run(pieces)
                    ended_s, ended_j = self._clock.now(), board.source.read_j()
                except Fault:
                    continue
                lengths.append(ended_s - begun_s)
                errors.append((ended_j - begun_j) / (self._work_w * lengths[-1]) - 1)
            if errors:
                rows.append(
                    BareCounter(
                        duration_s=fmean(lengths),
                        windows=len(errors),
                        mean_error=fmean(errors),
                        largest_error=max(errors, key=abs),
                    )
                )
        return tuple(rows)


def _overall(checks: Sequence[Check]) -> CheckVerdict:
    verdicts = {check.verdict for check in checks}
    return "fail" if "fail" in verdicts else "unsure" if "unsure" in verdicts else "pass"


def _on_a_line(
    windows: Sequence[ProofWindow], work_w: float, rest_w: float, *, bounded: bool
) -> tuple[CheckVerdict, str]:
    """Decide whether energy is proportional to the duration of equal work.

    The line is fitted with weights 1 / limit. Its intercept is a sum of all energies times known factors, so the sum of
    their limits times the same factors bounds it.
    """
    valid = [window for window in windows if window.energy_j is not None]
    if len(valid) < 2 * len(LENGTHS_S):
        return "fail", f"only {len(valid)} of {len(windows)} windows have an energy"
    x = np.array([window.duration_s for window in valid])
    y = np.array([window.energy_j for window in valid])
    rise_j = abs(work_w - rest_w) * RISE_S
    limits = np.array([window.uncertainty_j or 0.0 for window in valid]) + rise_j + WORK_SHARE * y
    matrix = np.stack([np.ones_like(x), x], axis=1) / limits[:, None]
    factors = np.linalg.pinv(matrix) / limits  # (2, windows): the fit as a linear function of the energies
    intercept_j, slope_w = factors @ y
    intercept_limit_j = float(np.abs(factors[0]) @ limits)
    residuals = np.abs(y - intercept_j - slope_w * x)
    share = float(np.mean(residuals <= limits))
    words = (
        f"{slope_w:.4g} W, intercept {intercept_j:+.2g} J (limit {intercept_limit_j:.2g} J), {share:.0%} of "
        f"{len(valid)} windows inside their limit"
    )
    if intercept_limit_j > float(y.mean()):
        return "unsure", f"{words}; {TOO_WIDE}"
    if abs(intercept_j) <= intercept_limit_j and share >= INSIDE_SHARE:
        return "pass", words
    return ("fail" if bounded else "unsure"), words


def _edges_during(board: WatchedCounter, clock: Clock, work: Callable[[], None]) -> list[Edge]:
    """Return the refreshes of a counter while the work runs."""
    watcher, edges = EdgeWatcher(board.source.read_j, clock), []
    watcher.arm()

    def look() -> None:
        edge = watcher.poll()
        if edge is not None:
            edges.append(edge)

    cancel = clock.every(POLL_S, look)
    try:
        work()
    finally:
        cancel()
    return edges


def _ratio(reading: EnergyReading) -> float | None:
    """Return power by the counter over power by the power reading while power is constant; None without both.

    The counter's power is the slope of a line through its readings: a value is up to an update period old, which a
    difference of two values would carry into the ratio.
    """
    log = reading.devices[0].counter if reading.devices else None
    polls = [poll for poll in log.polls if poll.t_s >= RISEN_S] if log is not None else []
    energies = [(poll.t_s, poll.energy_j) for poll in polls if poll.energy_j is not None]
    powers = [poll.power_w for poll in polls if poll.power_w is not None]
    if min(len(energies), len(powers)) < LEAST_POLLS or not fmean(powers):
        return None
    t_s, energy_j = np.array(energies).T
    return float(np.polyfit(t_s, energy_j, 1)[0]) / fmean(powers)


def _rest_after_w(reading: EnergyReading) -> float | None:
    """Return power right after a window, from the two refreshes after it."""
    log = reading.devices[0].counter if reading.devices else None
    if log is None or log.after is None or log.rest is None:
        return None
    return gap_power_w(log.after, log.rest)
