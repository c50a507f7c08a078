from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.errors import MeterError
from perjoule.meters.base import Fault
from perjoule.meters.clock import SystemClock
from perjoule.meters.power import DRAIN_S, BufferSampler, PowerMeter, PowerSource
from perjoule.testing import ConstantPower, SquareWave, VirtualClock
from perjoule.types import EnergyReading

PERIOD_S, BOX_S = 0.1, 0.025  # an instant sensor of an A100 or H100 (arXiv 2312.02741)


class Bursts:
    """300 W for 15 ms at a random place in each 300 ms, else 60 W."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._begins: list[float] = []

    def energy_j(self, begin_s: float, end_s: float) -> float:
        return self._until_j(end_s) - self._until_j(begin_s)

    def _until_j(self, t_s: float) -> float:
        slot, inside_s = divmod(t_s, 0.3)
        while len(self._begins) <= slot:
            self._begins.append(self._chance.uniform(0, 0.285))
        return 60 * t_s + 240 * (slot * 0.015 + min(max(inside_s - self._begins[int(slot)], 0.0), 0.015))


class Load:
    """60 W, and 300 W in the stretches that were worked."""

    def __init__(self) -> None:
        self.stretches: list[tuple[float, float]] = []

    def energy_j(self, begin_s: float, end_s: float) -> float:
        busy_s = sum(max(min(end, end_s) - max(begin, begin_s), 0.0) for begin, end in self.stretches)
        return 60 * (end_s - begin_s) + 240 * busy_s


Wave = ConstantPower | SquareWave | Bursts | Load


def make_wave(name: str, seed: int) -> Wave:
    if name == "constant":
        return ConstantPower(200.0)
    if name == "bursts":
        return Bursts(seed)
    if name == "load":
        return Load()
    return SquareWave(low_w=60.0, high_w=300.0, period_s=float(name))


class Bench:
    """A power meter on a sensor with a known truth, all on virtual time."""

    def __init__(
        self,
        wave: Wave,
        seed: int = 0,
        box_s: float = BOX_S,
        averaging_s: float = 0.0,
        missing: float = 0.0,
        limit_w: float | None = 400.0,
    ) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock(50.0 + self.chance.random())
        self.wave, self.box_s, self.missing, self.seed = wave, averaging_s or box_s, missing, seed
        self.offset_s = self.chance.uniform(0, PERIOD_S)
        self.lost_from_s = math.inf
        self.begins: list[float] = []
        source = PowerSource(words="power", read=self.read_w, averaging_s=averaging_s, scope="GPU")
        self.meter = PowerMeter(
            name="bench", why="", source="bench", power=source, clock=self.clock, limit_w=limit_w, chance=self.chance
        )

    def read_w(self) -> float:
        self.clock.advance(self.chance.uniform(0, 0.0005))
        if self.clock.now() > self.lost_from_s:
            raise Fault("W220", "the GPU is lost")
        if self.missing and self.chance.random() < self.missing:
            raise Fault("W220", "no answer")
        number = (self.clock.now() - self.offset_s) // PERIOD_S
        end_s = number * PERIOD_S + self.offset_s
        noise_w = random.Random(number * 7919 + self.seed).gauss(0, 0.3)
        return self.wave.energy_j(end_s - self.box_s, end_s) / self.box_s + noise_w

    def window(self, seconds: float) -> tuple[EnergyReading, float]:
        """A window, and its true energy."""
        with self.meter.window() as window:
            begin_s = self.clock.now()
            self.begins.append(begin_s)
            if isinstance(self.wave, Load):
                self.wave.stretches.append((begin_s, begin_s + seconds))
            self.clock.advance(seconds)
        truth_j = self.wave.energy_j(begin_s, begin_s + seconds)
        self.clock.advance(self.chance.uniform(0.3, 0.8) + self.meter.timing.averaging_s)
        return window.reading, truth_j


def measure(name: str, seconds: float, count: int, **how: float) -> list[tuple[float, float, float]]:
    """(error, bound, truth) in J of `count` windows of about `seconds`, ten per meter."""
    results = []
    for seed in range(math.ceil(count / 10)):
        bench = Bench(make_wave(name, seed), seed, **how)
        for _ in range(10):
            reading, truth_j = bench.window(seconds + bench.chance.uniform(0, PERIOD_S))
            assert reading.energy_j is not None, reading.warnings
            assert reading.uncertainty_j is not None
            results.append((reading.energy_j - truth_j, reading.uncertainty_j, truth_j))
    return results


# -- accuracy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_constant_power_is_right_to_a_fifth_of_a_per_cent(missing: float) -> None:
    for error_j, bound_j, truth_j in measure("constant", 5.0, 20, missing=missing):
        assert abs(error_j) <= 0.002 * truth_j
        assert abs(error_j) <= bound_j <= 0.01 * truth_j


@pytest.mark.parametrize("box_s", [BOX_S, PERIOD_S])
def test_bursts_come_right_over_repeats(box_s: float) -> None:
    """A sensor that looks at a quarter of the time misses some and counts others fourfold; on average it is right."""
    results = measure("bursts", 5.0, 32, box_s=box_s)
    assert len({round(error_j, 3) for error_j, _, _ in results}) > 30
    assert fmean(error_j for error_j, _, _ in results) == pytest.approx(0.0, abs=0.03 * 360)


@pytest.mark.parametrize("box_s", [BOX_S, PERIOD_S])
@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_a_wave_in_step_with_the_sensor_is_within_the_bound(seconds: float, box_s: float) -> None:
    for error_j, bound_j, _ in measure("0.2", seconds, 50, box_s=box_s):
        assert abs(error_j) <= bound_j


@pytest.mark.slow
def test_the_bound_is_honest_and_not_bought_by_being_huge() -> None:
    """All six waves at 1 and 5 s, on a sensor that sees a quarter of the time: in reach of 99.5 % of windows."""
    results = [
        one
        for name in ("constant", "1.0", "0.2", "0.037", "bursts", "load")
        for seconds in (1.0, 5.0)
        for one in measure(name, seconds, 100)
    ]
    errors = sorted(abs(error_j) for error_j, _, _ in results)
    assert fmean(abs(error_j) <= bound_j for error_j, bound_j, _ in results) >= 0.995
    assert median(bound_j for _, bound_j, _ in results) <= 3.0 * errors[int(0.95 * len(errors))]


def test_missing_samples_widen_the_bound_and_leave_no_bias() -> None:
    whole, holed = (measure("1.0", 1.0, 100, missing=missing) for missing in (0.0, 0.3))
    assert fmean(error_j for error_j, _, _ in holed) == pytest.approx(0.0, abs=0.02 * 190)
    assert median(bound_j for _, bound_j, _ in holed) > median(bound_j for _, bound_j, _ in whole)
    assert all(abs(error_j) <= bound_j for error_j, bound_j, _ in holed)


def test_work_between_rests_is_exact_for_any_sensor() -> None:
    for box_s in (BOX_S, PERIOD_S):
        for error_j, _, truth_j in measure("load", 1.0, 30, box_s=box_s):
            assert abs(error_j) < 0.002 * truth_j
    for error_j, bound_j, truth_j in measure("load", 1.0, 30, averaging_s=1.0):
        assert abs(error_j) < min(0.02 * truth_j, bound_j)


@pytest.mark.parametrize("name", ["constant", "1.0", "0.2", "0.037", "bursts"])
def test_an_average_over_a_second_is_honest_about_unquiet_devices(name: str) -> None:
    for error_j, bound_j, _ in measure(name, 1.0, 30, averaging_s=1.0):
        assert abs(error_j) <= bound_j


# -- windows -------------------------------------------------------------------------------------------------------


def test_windows_begin_at_every_phase_and_a_seed_repeats_them() -> None:
    """Windows that follow one another in step with the sensor, but for the meter's own pause."""
    begins = []
    for _ in range(2):
        bench = Bench(ConstantPower(200.0))
        for _ in range(100):
            with bench.meter.window():
                bench.begins.append(bench.clock.now())
                bench.clock.advance(0.3)
            now_s = bench.clock.now()
            bench.clock.advance(math.ceil(now_s / PERIOD_S) * PERIOD_S - now_s)
        begins.append(bench.begins)
    assert begins[0] == begins[1]
    phases = sorted(begin_s % PERIOD_S / PERIOD_S for begin_s in begins[0])
    assert max(abs(phase - (i + 0.5) / 100) for i, phase in enumerate(phases)) < 0.163  # Kolmogorov-Smirnov at 1 %


@pytest.mark.parametrize("averaging_s", [0.0, 1.0])
def test_a_source_that_is_lost_leaves_what_it_had_told(averaging_s: float) -> None:
    bench = Bench(Load(), averaging_s=averaging_s)
    with bench.meter.window() as window:
        begin_s = bench.clock.now()
        assert isinstance(bench.wave, Load)
        bench.wave.stretches.append((begin_s, begin_s + 6.0))
        bench.lost_from_s = begin_s + 3.0
        bench.clock.advance(6.0)
    reading = window.reading
    assert (reading.energy_j, reading.uncertainty_j, reading.net_energy_j) == (None, None, None)
    assert reading.partial_s == pytest.approx(3.0, abs=bench.meter.timing.poll_s + 0.001)
    assert reading.partial_energy_j == pytest.approx(900.0, abs=300 * PERIOD_S)
    assert [said[:4] for said in reading.warnings] == ["W220"]
    assert "the GPU is lost" in reading.warnings[0]


def test_short_windows_need_the_limit_for_a_bound() -> None:
    for limit_w in (400.0, None):
        bench = Bench(Load(), limit_w=limit_w)
        reading, truth_j = bench.window(0.05)
        assert (reading.uncertainty_j is None) == (limit_w is None)
        if reading.uncertainty_j is not None and reading.energy_j is not None:
            assert abs(reading.energy_j - truth_j) <= reading.uncertainty_j


def test_what_windows_have_shown_widens_the_bound_of_later_ones() -> None:
    """Peaks that come and go: a window that happens to show none of them is no proof that there were none."""
    bench = Bench(Load())
    quiet_j = bench.window(1.0)[0].uncertainty_j
    with bench.meter.window():
        begin_s = bench.clock.now()
        assert isinstance(bench.wave, Load)
        bench.wave.stretches.append((begin_s + 0.4, begin_s + 0.8))
        bench.clock.advance(1.2)
    bench.clock.advance(0.5)
    after_j = bench.window(1.0)[0].uncertainty_j
    assert quiet_j is not None
    assert after_j is not None
    assert after_j > quiet_j + 0.1 * 240


def test_work_is_repeated_until_the_bound_is_in_reach() -> None:
    bench = Bench(ConstantPower(200.0))
    with bench.meter.window(max_uncertainty=0.02) as window:
        for _ in window.repeat():
            bench.clock.advance(0.07)
    reading = window.reading
    assert reading.energy_j is not None
    assert reading.uncertainty_j is not None
    assert 0.012 < reading.uncertainty_j / reading.energy_j <= 0.02
    assert reading.iterations is not None
    assert reading.iterations > 15


def test_a_source_without_answers_opens_no_meter() -> None:
    source = PowerSource(words="power", read=lambda: 0.0, averaging_s=0.0, scope="GPU")
    with pytest.raises(MeterError, match="power gave no answer for 1 s"):
        PowerMeter(name="x", why="", source="x", power=source, clock=VirtualClock())


# -- the driver's buffer -------------------------------------------------------------------------------------------


class Driver:
    """A ring buffer of 120 power samples, stamped by a wall clock that may be set."""

    def __init__(self, clock: VirtualClock, wave: Wave, every_s: float = 0.02) -> None:
        self.clock, self.wave, self.every_s = clock, wave, every_s
        self.steps: list[tuple[float, float]] = []  # (from when, s more)
        self.entries: list[tuple[int, float]] = []
        self.written = 0
        self.lost_from_s = math.inf
        self.drains = 0

    def wall_us(self) -> float:
        return self._stamp_us(self.clock.now())

    def _stamp_us(self, t_s: float) -> float:
        return 1e6 * (1.7e9 + t_s + sum(more_s for from_s, more_s in self.steps if t_s >= from_s))

    def drain(self, since_us: int) -> list[tuple[int, float]]:
        self.drains += 1
        if self.clock.now() > self.lost_from_s:
            raise Fault("W220", "the GPU is lost")
        while (self.written + 1) * self.every_s <= self.clock.now():
            self.written += 1
            t_s = self.written * self.every_s
            power_w = self.wave.energy_j(t_s - self.every_s, t_s) / self.every_s
            self.entries = [*self.entries, (round(self._stamp_us(t_s)), power_w)][-120:]
        return [entry for entry in self.entries if entry[0] > since_us]


@pytest.mark.slow
@settings(max_examples=60)
@given(
    step_s=st.sampled_from([0.0, 3600.0, -3600.0, 7200.0, -1.7e9 / 2, 30.0, -30.0]),
    at_s=st.floats(0.05, 2.9),
    every_s=st.sampled_from([0.005, 0.0167, 0.02, 0.1]),
)
def test_a_wall_clock_that_is_set_changes_nothing(step_s: float, at_s: float, every_s: float) -> None:
    clock = VirtualClock(100.0)
    driver = Driver(clock, SquareWave(low_w=60, high_w=300, period_s=1.0), every_s)
    driver.steps.append((100.0 + at_s, step_s))
    sampler = BufferSampler(driver.drain, clock, driver.wall_us)
    sampler.start()
    clock.advance(3.0)
    samples = [one for one in sampler.stop() if one.t_s > 100.0]
    expected = [i * every_s for i in range(1, 10**5) if 100.0 < i * every_s <= 103.0]
    assert [one.t_s for one in samples] == pytest.approx(expected, abs=2e-6)
    assert [one.power_w for one in samples] == pytest.approx(
        [driver.wave.energy_j(t_s - every_s, t_s) / every_s for t_s in expected]
    )
    assert sampler.stop() == sampler.samples()


def test_nothing_is_lost_or_doubled_over_many_buffers() -> None:
    clock = VirtualClock(100.0)
    driver = Driver(clock, ConstantPower(200.0), 0.003)  # 120 entries last for 0.36 s
    sampler = BufferSampler(driver.drain, clock, driver.wall_us)
    sampler.start()
    clock.advance(20.0)
    times = [one.t_s for one in sampler.stop() if one.t_s > 100.0]
    assert len(times) == len(set(times)) == pytest.approx(20.0 / 0.003, abs=1)
    assert driver.drains == pytest.approx(20.0 / DRAIN_S, abs=3)


def test_no_news_is_no_fault_and_a_fault_is_a_missing_sample() -> None:
    clock = VirtualClock(100.0)
    driver = Driver(clock, ConstantPower(200.0), 10.0)
    sampler = BufferSampler(driver.drain, clock, driver.wall_us)
    sampler.start()
    clock.advance(1.0)
    driver.lost_from_s = 101.0
    clock.advance(0.3)
    assert [(one.power_w, one.problem) for one in sampler.stop() if one.t_s > 100.0] == [
        (None, "the GPU is lost"),
        (None, "the GPU is lost"),
    ]


@pytest.fixture
def buffered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wave], tuple[PowerMeter, Driver, VirtualClock]]:
    def build(wave: Wave) -> tuple[PowerMeter, Driver, VirtualClock]:
        clock = VirtualClock(100.0)
        driver = Driver(clock, wave)
        monkeypatch.setattr("perjoule.meters.power.wall_clock_us", driver.wall_us)

        def refuse() -> float:
            raise AssertionError("the plain reading was asked for")

        source = PowerSource(words="samples", read=refuse, averaging_s=0.0, scope="GPU", drain=driver.drain)
        meter = PowerMeter(
            name="x", why="", source="x", power=source, clock=clock, limit_w=400.0, chance=random.Random(1)
        )
        return meter, driver, clock

    return build


def test_a_meter_over_the_buffer(buffered: Callable[[Wave], tuple[PowerMeter, Driver, VirtualClock]]) -> None:
    wave = Load()
    meter, driver, clock = buffered(wave)
    assert meter.timing.period_s == pytest.approx(0.02)
    assert meter.learn_idle(1.0) == pytest.approx(60.0)
    for seconds, step_s in ((0.03, 0.0), (0.31, 3600.0), (2.07, -3600.0), (1.01, 0.0)):
        with meter.window() as window:
            begin_s = clock.now()
            wave.stretches.append((begin_s, begin_s + seconds))
            driver.steps.append((begin_s + seconds / 2, step_s))
            clock.advance(seconds)
        reading = window.reading
        assert reading.warnings == ()
        assert reading.energy_j == pytest.approx(300 * seconds, rel=1e-3)
        assert reading.uncertainty_j is not None
        assert "logged by the driver" in reading.method
    driver.lost_from_s = clock.now() + 1.5
    with meter.window() as window:
        begin_s = clock.now()
        wave.stretches.append((begin_s, begin_s + 3))
        clock.advance(3.0)
    assert window.reading.energy_j is None
    assert window.reading.partial_s == pytest.approx(1.5, abs=DRAIN_S + 0.03)
    assert window.reading.partial_energy_j == pytest.approx(300 * window.reading.partial_s, abs=0.02 * 300)
    with pytest.raises(MeterError, match="gave no answer"):
        PowerMeter(
            name="x",
            why="",
            source="x",
            power=PowerSource(
                words="samples", read=lambda: 0.0, averaging_s=0.0, scope="GPU", drain=lambda since_us: []
            ),
            clock=clock,
        )


# -- on the real clock ---------------------------------------------------------------------------------------------


def real_meter() -> PowerMeter:
    """On the real clock and in a real thread; the reading flickers, so that its period can be seen."""
    source = PowerSource(
        words="made-up power", read=lambda: 50.0 + time.perf_counter() // 0.1 % 2, averaging_s=0.0, scope="GPU"
    )
    return PowerMeter(name="made-up", why="", source="made-up", power=source, clock=SystemClock())


def test_a_real_thread_ends_with_the_window_whatever_happens_and_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perjoule.meters.power.LEARN_S", 0.45)
    before = threading.active_count()
    with real_meter() as meter:
        with meter.window() as window:
            assert threading.active_count() == before + 1
            begun_s = time.process_time()
            time.sleep(1.0)
            cost_s = time.process_time() - begun_s
        assert threading.active_count() == before
        reading = window.reading
        assert reading.energy_j == pytest.approx(50.5 * reading.duration_s, rel=0.01)
        assert cost_s < 0.2  # of CPU time in a second: it sleeps between its looks

        def fail_at_the_end() -> None:
            if threading.active_count() > before:
                raise RuntimeError("device-side assert")

        with pytest.raises(RuntimeError, match="device-side"), meter.window(sync=fail_at_the_end):
            pass
        assert threading.active_count() == before
