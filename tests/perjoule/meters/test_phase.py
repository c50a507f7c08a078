from __future__ import annotations

import math
import random
from bisect import bisect_right
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.base import Fault
from perjoule.meters.counter import EdgeWatcher
from perjoule.meters.edges import idle_power, update_period
from perjoule.meters.phase import PhaseTest, aliasing, part_time_uncertainty_j, phase_test
from perjoule.testing import SquareWave, VirtualClock

IDLE_W, WORK_W = 60.0, 300.0


class HostClock(VirtualClock):
    """Sleeps overshoot by up to 0.3 ms, as on a busy host."""

    def __init__(self, start_s: float, chance: random.Random) -> None:
        super().__init__(start_s)
        self._chance = chance

    def sleep(self, seconds: float) -> None:
        self.advance(max(seconds, 0.0) + self._chance.uniform(0, 0.0003))


class BoxCounter:
    """An energy counter on virtual time: every refresh adds T times the mean power over a share of the last T.

    Rest has 1.5 W of noise, new every T; refreshes jitter by 3 % of T. What it shows is whole mJ.
    """

    def __init__(self, clock: VirtualClock, period_s: float, chance: random.Random, share: float = 1.0) -> None:
        self.clock, self.period_s, self.share, self.chance = clock, period_s, share, chance
        self.lag_s = chance.uniform(0, period_s) if share < 1 else 0.0
        self.failing_from_s = math.inf
        self._noise_j = [0.0]
        self._begins, self._ends, self._done_j = [0.0], [0.0], [0.0]
        self._refreshed_s, self._energy_j = [chance.uniform(0, period_s)], [1000.0]

    def work(self, seconds: float, power_w: float = WORK_W) -> None:
        begin_s = self.clock.now()
        self._begins.append(begin_s)
        self._ends.append(begin_s + seconds)
        self._done_j.append(self._done_j[-1] + (power_w - IDLE_W) * seconds)
        self.clock.advance(seconds)

    def total_j(self, t_s: float) -> float:
        block = int(t_s / self.period_s)
        while len(self._noise_j) < block + 2:
            self._noise_j.append(self._noise_j[-1] + self.chance.gauss(0, 1.5) * self.period_s)
        inside = t_s / self.period_s - block
        noise_j = self._noise_j[block] * (1 - inside) + self._noise_j[block + 1] * inside
        at = bisect_right(self._begins, t_s) - 1
        length_s = self._ends[at] - self._begins[at]
        done_j = self._done_j[at]
        if length_s > 0 and t_s < self._ends[at]:
            done_j = self._done_j[at - 1] + (done_j - self._done_j[at - 1]) * (t_s - self._begins[at]) / length_s
        return IDLE_W * t_s + noise_j + done_j

    def read_j(self) -> float:
        now_s = self.clock.now()
        if now_s > self.failing_from_s:
            raise Fault("W220", "lost")
        while True:
            next_s = self._refreshed_s[-1] + self.period_s * self._jitter(len(self._refreshed_s))
            if next_s > now_s:
                return math.floor(self._energy_j[-1] * 1000) / 1000
            gap_s = next_s - self._refreshed_s[-1]
            if self.share < 1:
                box_s = self.share * self.period_s
                seen_s = next_s - self.lag_s
                more_j = (self.total_j(seen_s) - self.total_j(seen_s - box_s)) / box_s * gap_s
            else:
                more_j = self.total_j(next_s) - self.total_j(next_s - gap_s)
            self._refreshed_s.append(next_s)
            self._energy_j.append(self._energy_j[-1] + more_j)

    def _jitter(self, number: int) -> float:
        return 1 + 0.03 * (random.Random(number).random() * 2 - 1)


def run_test(
    seed: int, period_s: float, share: float, work_w: float = WORK_W, offsets: int = 8, repeats: int = 3
) -> PhaseTest:
    chance = random.Random(seed)
    clock = HostClock(10 * period_s, chance)
    counter = BoxCounter(clock, period_s, chance, share)
    watcher = EdgeWatcher(counter.read_j, clock, poll_s=0.001)
    edges = watcher.watch(12)
    period = watcher.period = update_period(edges)

    def burst(seconds: float) -> None:
        clock.advance(chance.uniform(0, 0.0005))  # a launch takes its time
        counter.work(seconds * chance.uniform(0.95, 1.05), work_w)

    return phase_test(watcher, period, idle_power(edges), burst, clock, offsets=offsets, repeats=repeats, chance=chance)
