from __future__ import annotations

import math
import random
from bisect import bisect_right
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.base import Fault
from perjoule.meters.part_time import aliasing, part_time_uncertainty_j
from perjoule.meters.phase import PhaseTest, phase_test
from perjoule.meters.rest import idle_power, update_period
from perjoule.meters.watcher import EdgeWatcher
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


# 50 trials at each period are 200 for full and 200 for part-time counters; on 4 x 200 each, none was told wrongly.
@pytest.mark.slow
@pytest.mark.parametrize("period_s", [0.02, 0.05, 0.1, 0.2])
def test_full_counters_raise_no_alarm(period_s: float) -> None:
    """Although bursts vary by 5 % in length, rest is noisy, polls are late and the period jitters."""
    found = [run_test(seed, period_s, 1.0) for seed in range(50)]
    assert [one.part_time for one in found] == [False] * 50
    assert [one.seen_share for one in found] == [1.0] * 50
    assert all(one.warning is None for one in found)
    # 240 W above rest for a quarter of a period
    assert all(one.energies_j == pytest.approx([60 * period_s] * 8, rel=0.2) for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("period_s", [0.02, 0.05, 0.1, 0.2])
def test_part_time_counters_are_detected(period_s: float) -> None:
    found = [run_test(seed, period_s, 0.25) for seed in range(50)]
    assert [one.part_time for one in found] == [True] * 50
    assert all(one.warning is not None and one.warning.startswith("W214") for one in found)
    assert all(one.p_value < 1e-3 and one.swing > 2 for one in found)
    assert all(one.seen_share is not None and 0.2 <= one.seen_share <= 0.35 for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_seen_share_is_told(share: float) -> None:
    found = [run_test(seed, 0.1, share) for seed in range(20)]
    assert all(one.part_time for one in found)
    assert all(one.seen_share == pytest.approx(share, abs=0.1) for one in found)


def test_a_device_that_is_slow_to_come_to_rest_is_no_part_time_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 W more for a third of a second after each burst, which is more than the bursts themselves."""
    total_j = BoxCounter.total_j

    def with_afterglow(self: BoxCounter, t_s: float) -> float:
        since_s = [t_s - end_s for end_s in self._ends[1:] if t_s > end_s]
        return total_j(self, t_s) + 40 * 0.3 * sum(1 - math.exp(-one / 0.3) for one in since_s)

    monkeypatch.setattr(BoxCounter, "total_j", with_afterglow)
    assert [run_test(seed, 0.1, 1.0).part_time for seed in range(10)] == [False] * 10
    assert [run_test(seed, 0.1, 0.25).part_time for seed in range(10)] == [True] * 10


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_bursts_that_do_not_stand_out_decide_nothing(share: float) -> None:
    for seed in range(10):
        found = run_test(seed, 0.1, share, work_w=IDLE_W + 0.5)
        assert (found.part_time, found.seen_share) == (None, None)
        assert found.warning is not None
        assert found.warning.startswith("W216")


def test_work_that_differs_from_burst_to_burst_decides_nothing() -> None:
    chance, clock = random.Random(3), VirtualClock(1.0)
    counter = BoxCounter(clock, 0.1, chance)
    watcher = EdgeWatcher(counter.read_j, clock, poll_s=0.001)
    edges = watcher.watch(12)
    watcher.period = update_period(edges)

    def burst(seconds: float) -> None:
        counter.work(seconds, chance.choice([100.0, 500.0]))

    found = phase_test(watcher, watcher.period, idle_power(edges), burst, clock, chance=chance)
    assert found.part_time is None
    assert "differ by" in found.words


def test_a_counter_that_fails_is_a_fault_and_too_few_bursts_an_error() -> None:
    with pytest.raises(ValueError, match="at least 4 offsets and 2 repeats, not 8 and 1"):
        run_test(0, 0.1, 1.0, repeats=1)
    chance, clock = random.Random(1), VirtualClock(1.0)
    counter = BoxCounter(clock, 0.1, chance)
    watcher = EdgeWatcher(counter.read_j, clock, poll_s=0.001)
    edges = watcher.watch(12)
    counter.failing_from_s = clock.now() + 1.0
    with pytest.raises(Fault, match="lost"):
        phase_test(watcher, update_period(edges), idle_power(edges), counter.work, clock, chance=chance)


# -- what a part-time counter leaves open --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@given(
    window_s=st.floats(0.03, 6.0),
    begin_s=st.floats(10.0, 10.1),
    lag=st.floats(0, 1),
    load_period_s=st.sampled_from([0.037, 0.21, 0.53, 1.01]),
    duty=st.floats(0.1, 0.9),
    phase=st.floats(0, 1),
)
def test_the_part_time_bound_holds_out_of_step(
    share: float, window_s: float, begin_s: float, lag: float, load_period_s: float, duty: float, phase: float
) -> None:
    wave = SquareWave(low_w=60.0, high_w=300.0, period_s=load_period_s, duty=duty)

    def total_j(t_s: float) -> float:
        inside_s = min(max(t_s - begin_s, 0.0), window_s)
        return 60.0 * (t_s - inside_s) + wave.energy_j(phase, phase + inside_s)

    first, last = math.floor(begin_s / 0.1), math.ceil((begin_s + window_s) / 0.1)
    ends = [(k - lag) * 0.1 for k in range(first + 1, last + 2)]
    counted_j = sum((total_j(end_s) - total_j(end_s - share * 0.1)) / share for end_s in ends)
    counted_j -= 60.0 * (0.1 * len(ends) - window_s)
    bound_j = part_time_uncertainty_j(duration_s=window_s, period_s=0.1, seen_share=share, range_w=240.0)
    assert abs(counted_j - wave.energy_j(phase, phase + window_s)) <= bound_j


def test_the_part_time_bound_by_hand() -> None:
    def bound_j(**how: float) -> float:
        return part_time_uncertainty_j(
            **{"duration_s": 4.0, "period_s": 0.1, "seen_share": 0.25, "range_w": 200.0, **how}
        )

    assert bound_j() == pytest.approx(200 * (1.5 * math.sqrt(0.1 * 4.0 * 0.75) + 0.1))
    assert bound_j(duration_s=0.01) == pytest.approx(200 * (0.01 * 0.75 + 0.1))
    assert bound_j(seen_share=1.0) == 0.0
    assert bound_j(range_w=0.0) == 0.0


# -- work in step with the sensor ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat_s", "refresh_s", "looks", "said"),
    [
        (0.1, 0.1, 50, "ratio 1:1,"),
        (0.05, 0.1, 50, "ratio 2:1,"),
        (0.2, 0.1, 50, "ratio 1:2,"),
        (0.3, 0.1, 50, "ratio 1:3,"),
        (0.0667, 0.1, 50, "ratio 3:2,"),
        (0.1004, 0.1, 50, "ratio 1:1,"),  # wanders by a fifth of a repeat in 5 s
        (0.1004, 0.1, 100, None),  # and by two fifths in 10 s
        (0.4, 0.1, 50, None),  # four places are looked at
        (0.037, 0.1, 50, None),
        (0.3, 0.02, 50, None),
        (0.01, 0.1, 50, None),  # ten repeats in a refresh: no work is so regular
        (0.2, 0.1, 3, None),  # too few looks
        (3.0, 1.0, 5, None),  # not even two repeats
        (0.0, 0.1, 50, None),
    ],
)
def test_work_in_step_is_told_from_work_that_wanders(
    repeat_s: float, refresh_s: float, looks: int, said: str | None
) -> None:
    found = aliasing(repeat_s, refresh_s, looks)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith("W215")
        assert said in found


@given(repeat_s=st.floats(0.02, 0.5), looks=st.integers(8, 200), phase=st.floats(0, 1), harmonic=st.integers(1, 3))
def test_what_passes_averages_out_and_what_does_not_stays(
    repeat_s: float, looks: int, phase: float, harmonic: int
) -> None:
    """The share of a harmonic that is left in the mean over all looks, against the rule's own quarter."""
    ratio = 0.1 / repeat_s
    left = abs(sum(complex(math.cos(x), math.sin(x)) for x in _angles(ratio * harmonic, looks, phase))) / looks
    wander = looks * abs(harmonic * ratio - round(harmonic * ratio))
    if wander < 0.25:
        assert left > 0.9
    if aliasing(repeat_s, 0.1, looks) is None and 1 <= round(harmonic * ratio) <= 8 and repeat_s <= looks * 0.05:
        assert left < 0.91


def _angles(ratio: float, looks: int, phase: float) -> list[float]:
    return [2 * math.pi * (ratio * k + phase) for k in range(looks)]


def test_what_counts_as_in_step_is_indeed_seen_wrongly() -> None:
    """A sensor of 25 ms in 0.1 s on a load of a fifth duty: in step, every window is off by the same share."""
    for repeat_s, in_step in ((0.2, True), (0.2171, False)):
        wave = SquareWave(low_w=60.0, high_w=300.0, period_s=repeat_s, duty=0.2)
        seen_w = fmean(wave.energy_j(0.1 * k, 0.1 * k + 0.025) / 0.025 for k in range(1, 51))
        mean_w = wave.energy_j(0.1, 5.1) / 5.0
        assert (aliasing(repeat_s, 0.1, 50) is not None) == in_step
        assert (abs(seen_w - mean_w) > 0.2 * mean_w) == in_step
