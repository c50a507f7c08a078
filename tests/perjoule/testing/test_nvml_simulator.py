"""The simulated NVML against references written anew here: what it draws, what it shows, and how it fails."""

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from perjoule.meters.nvml import open_nvml
from perjoule.testing import (
    Bursts,
    ConstantPower,
    LateWave,
    NvmlSimulator,
    SimulatedBoard,
    SquareWave,
    StepLog,
    WorkBetweenRests,
)
from perjoule.testing import nvml_simulator as module

pytestmark = pytest.mark.slow

if module.compiler() is None:
    pytest.skip("no C compiler", allow_module_level=True)

ENERGY, AVERAGE, INSTANT, LEAST, MOST, DEFAULT, CURRENT = 83, 185, 186, 187, 188, 189, 190
Make = Callable[..., NvmlSimulator]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[NvmlSimulator] = []

    def simulator(*boards: SimulatedBoard, virtual: bool = True, **options: Any) -> NvmlSimulator:
        made.append(NvmlSimulator(boards, tmp_path, virtual=virtual, **options))
        return made[-1]

    yield simulator
    for one in reversed(made):
        one.close()


def opened(simulator: NvmlSimulator, board: int = 0) -> tuple[Any, Any]:
    nvml = simulator.load()
    nvml.nvmlInit()
    return nvml, nvml.nvmlDeviceGetHandleByIndex(board)


def go_to(simulator: NvmlSimulator, t_s: float) -> None:
    simulator.advance(t_s - simulator.now())


def field(nvml: Any, handle: Any, number: int, scope: int = 0) -> tuple[int, Any]:
    one = nvml.nvmlDeviceGetFieldValues(handle, [(number, scope)])[0]
    return one.nvmlReturn, one.value.ullVal if number == ENERGY else one.value.uiVal


# -- references --------------------------------------------------------------------------------------------------------

WORD = (1 << 64) - 1


def mixed(x: int) -> int:
    """SplitMix64, from its publication."""
    x = (x + 0x9E3779B97F4A7C15) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def uniform(seed: int, number: int, use: int) -> float:
    return ((mixed(mixed((seed * 31 + use) & WORD) ^ (number & WORD)) >> 11) + 0.5) / 2**53


def reference_w(board: SimulatedBoard, steps: list[tuple[float, float]], t_s: float) -> float:
    """The definition of true power, point by point."""
    wave = board.wave
    if isinstance(wave, ConstantPower):
        power_w = wave.power_w
    elif isinstance(wave, StepLog):
        power_w = [wave.start_w, *(power for at_s, power in steps if at_s <= t_s)][-1]
    elif isinstance(wave, SquareWave):
        inside = (t_s - board.wave_phase_s) / wave.period_s % 1
        power_w = wave.high_w if inside < wave.duty else wave.low_w
    else:
        slot = math.floor((t_s - board.wave_phase_s) / wave.slot_s)
        rise_s = slot * wave.slot_s + uniform(wave.seed, slot, 3) * (wave.slot_s - wave.burst_s) + board.wave_phase_s
        power_w = wave.high_w if rise_s <= t_s < rise_s + wave.burst_s else wave.low_w
    if board.noise_w:
        slot = math.floor(t_s / board.noise_slot_s)
        radius = math.sqrt(-2 * math.log(uniform(board.seed, slot, 1)))
        power_w += board.noise_w * radius * math.cos(2 * math.pi * uniform(board.seed, slot, 2))
    return max(power_w, 0.0)


def reference_j(board: SimulatedBoard, steps: list[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """Between any two moments at which something may change, power is that in the middle."""
    moments = [begin_s, end_s, *(at_s for at_s, _ in steps)]

    def grid(origin_s: float, period_s: float) -> Iterator[tuple[int, float]]:
        for k in range(math.floor((begin_s - origin_s) / period_s), math.ceil((end_s - origin_s) / period_s) + 1):
            yield k, origin_s + k * period_s

    wave = board.wave
    if isinstance(wave, SquareWave):
        moments += [
            t
            for _, rise_s in grid(board.wave_phase_s, wave.period_s)
            for t in (rise_s, rise_s + wave.duty * wave.period_s)
        ]
    if isinstance(wave, Bursts):
        for slot, start_s in grid(board.wave_phase_s, wave.slot_s):
            rise_s = start_s + uniform(wave.seed, slot, 3) * (wave.slot_s - wave.burst_s)
            moments += [rise_s, rise_s + wave.burst_s]
    if board.noise_w:
        moments += [t for _, t in grid(0.0, board.noise_slot_s)]
    moments = sorted(t for t in moments if begin_s <= t <= end_s)
    return math.fsum(
        (after - before) * reference_w(board, steps, (before + after) / 2) for before, after in pairwise(moments)
    )


SQUARE = SquareWave(low_w=60.0, high_w=300.0, period_s=0.2)
BURSTS = Bursts(low_w=60.0, high_w=300.0, burst_s=0.015, slot_s=0.3, seed=7)
WAVES = {
    "constant": SimulatedBoard(wave=ConstantPower(200.0)),
    "square": SimulatedBoard(wave=SQUARE),
    "square, shifted": SimulatedBoard(
        wave=SquareWave(low_w=60.0, high_w=300.0, period_s=0.037, duty=0.3), wave_phase_s=0.011
    ),
    "bursts": SimulatedBoard(wave=BURSTS, wave_phase_s=0.05),
    "steps": SimulatedBoard(wave=StepLog(start_w=60.0)),
}
NOISES = {"quiet": {}, "noisy": {"noise_w": 1.5}, "down to 0 W": {"noise_w": 90.0, "noise_slot_s": 0.031, "seed": 5}}


def varied(board: SimulatedBoard, **changes: Any) -> SimulatedBoard:
    return replace(board, **changes)


# -- the truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("wave", WAVES)
def test_energy_and_power_are_those_of_the_definition(make: Make, wave: str, noise: str) -> None:
    board = varied(WAVES[wave], **NOISES[noise])
    simulator, chance, steps = make(board), random.Random(3), []
    if wave == "steps":
        for power_w in (300.0, 10.0, 0.0, 250.0, 60.0):
            simulator.advance(chance.uniform(0.01, 0.7))
            steps.append((simulator.set_power(0, power_w), power_w))
    for _ in range(25):
        begin_s = 1000.0 + chance.uniform(-1.0, 3.0)
        end_s = begin_s + chance.choice((0.003, 0.05, 0.2, 1.7, 4.0)) * chance.uniform(0.8, 1.2)
        expected_j = reference_j(board, steps, begin_s, end_s)
        assert simulator.energy_j(0, begin_s, end_s) == pytest.approx(expected_j, rel=1e-9, abs=1e-9)
        assert simulator.power_w(0, begin_s) == pytest.approx(reference_w(board, steps, begin_s), rel=1e-9, abs=1e-9)
        simulator.advance(0.1)  # what was the future is the past by now, and is summed another way
        assert simulator.energy_j(0, begin_s, end_s) == pytest.approx(expected_j, rel=1e-9, abs=1e-9)


def test_the_written_examples_are_right(make: Make) -> None:
    """Worked out by hand, lest reference and simulator be wrong alike."""
    simulator = make(SimulatedBoard(wave=SQUARE), SimulatedBoard(wave=BURSTS), SimulatedBoard(wave=StepLog()))
    assert simulator.energy_j(0, 1000.0, 1001.0) == pytest.approx(180.0, rel=1e-9)
    assert simulator.energy_j(0, 1000.0, 1000.15) == pytest.approx(33.0, rel=1e-9)  # 0.1 s high, 0.05 s low
    assert simulator.energy_j(1, 999.0, 1002.0) == pytest.approx(60 * 3 + 240 * 0.15, rel=1e-9)  # ten bursts
    simulator.set_power(2, 300.0)
    simulator.advance(0.05)
    simulator.set_power(2, 60.0)
    assert simulator.energy_j(2, 999.9, 1000.15) == pytest.approx(60 * 0.2 + 300 * 0.05, rel=1e-9)


def test_noise_has_the_spread_that_it_was_given_and_follows_the_seed(make: Make) -> None:
    boards = [
        SimulatedBoard(wave=ConstantPower(200.0), noise_w=3.0, noise_slot_s=0.01, seed=seed) for seed in (1, 1, 2)
    ]
    simulator = make(*boards)
    first, again, other = ([simulator.power_w(k, 1000.005 + 0.01 * i) for i in range(4000)] for k in range(3))
    mean_w = sum(first) / len(first)
    deviation_w = math.sqrt(sum((one - mean_w) ** 2 for one in first) / len(first))
    assert mean_w == pytest.approx(200.0, abs=0.2)
    assert deviation_w == pytest.approx(3.0, rel=0.05)
    assert first == again
    assert first != other


# -- the counter -------------------------------------------------------------------------------------------------------


def edges_seen(simulator: NvmlSimulator, seconds: float, step_s: float) -> tuple[list[float], list[int]]:
    """Times at which the counter was first seen with a new value, and the values."""
    nvml, handle = opened(simulator)
    times, values, begun_s = [], [nvml.nvmlDeviceGetTotalEnergyConsumption(handle)], simulator.now()
    for number in range(1, round(seconds / step_s)):
        go_to(simulator, begun_s + number * step_s)
        value = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        if value != values[-1]:
            times.append(simulator.now())
            values.append(value)
    return times, values


@pytest.mark.parametrize("wave", WAVES)
def test_the_counter_shows_the_integral_up_to_its_last_edge(make: Make, wave: str) -> None:
    board = varied(WAVES[wave], noise_w=2.0, counter_period_s=0.08, counter_phase_s=0.031, counter_start_j=5e5)
    times, values = edges_seen(make(board), 1.5, 0.001)
    first = math.ceil((1000.0 - 0.031) / 0.08)
    edges = [0.031 + 0.08 * (first + k) for k in range(len(times))]
    assert len(times) == 18 or len(times) == 19
    assert times == pytest.approx([math.ceil(edge * 1000 - 1e-6) / 1000 for edge in edges], abs=1e-6)
    assert values[0] == 500_000_000
    for edge, value in zip(edges, values[1:], strict=True):
        assert abs(value - math.floor(1000 * (5e5 + reference_j(board, [], 1000.0, edge)))) <= 1


def test_without_jitter_the_default_period_and_phase_are_those_that_are_documented(make: Make) -> None:
    times, _ = edges_seen(make(SimulatedBoard()), 1.0, 0.001)
    assert times == pytest.approx([1000.013 + 0.1 * k for k in range(10)], abs=1.1e-3)


def test_jitter_displaces_edges_by_up_to_half_of_it_and_keeps_their_order(make: Make) -> None:
    board = SimulatedBoard(counter_jitter=0.4, seed=11, counter_phase_s=0.0)
    times, values = edges_seen(make(board), 4.0, 0.0005)
    first = round(times[0] / 0.1)
    shifts = [t / 0.1 - (first + k) for k, t in enumerate(times)]
    expected = [0.4 * (uniform(11, first + k, 4) - 0.5) for k in range(len(times))]
    assert shifts == pytest.approx(expected, abs=0.0006 / 0.1)
    assert max(shifts) - min(shifts) > 0.2
    assert len(times) in (39, 40, 41)
    assert values == sorted(values)


def test_the_field_shows_what_the_call_shows(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=SQUARE))
    nvml, handle = opened(simulator)
    for _ in range(20):
        simulator.advance(0.077)
        assert field(nvml, handle, ENERGY) == (0, nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


@pytest.mark.parametrize(("begin", "seen"), [(0.0, 0.0), (0.05, 0.0), (0.8, 4.0)])
def test_a_part_time_counter_sees_the_end_of_its_periods_only(make: Make, begin: float, seen: float) -> None:
    """A burst of a tenth of the period, 240 W above rest, within the quarter that is seen or outside of it."""
    simulator = make(SimulatedBoard(wave=StepLog(start_w=60.0), counter_duty=0.25, counter_phase_s=0.0))
    nvml, handle = opened(simulator)
    go_to(simulator, 1001.0 + 0.1 * begin + 1e-6)
    simulator.set_power(0, 300.0)
    simulator.advance(0.01)
    simulator.set_power(0, 60.0)
    go_to(simulator, 1002.0 + 1e-6)
    counted_j = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 - 1e6
    assert counted_j == pytest.approx(60 * 2 + seen * 240 * 0.01, abs=2e-3)
    assert simulator.energy_j(0, 1000.0, 1002.0) == pytest.approx(60 * 2 + 240 * 0.01, rel=1e-9)


def test_a_reset_counter_counts_from_0(make: Make) -> None:
    board = SimulatedBoard(wave=SQUARE, reset_at_s=1002.047)
    simulator = make(board)
    nvml, handle = opened(simulator)
    go_to(simulator, 1002.046)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) > 1_000_000_000
    go_to(simulator, 1002.048)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 0
    go_to(simulator, 1003.0)
    expected_mj = 1000 * reference_j(board, [], 1002.047, 1002.913)
    assert abs(nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - expected_mj) <= 1


def test_a_stuck_counter_keeps_its_value_while_power_is_told(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=ConstantPower(200.0)))
    nvml, handle = opened(simulator)
    simulator.change(0, stuck_at_s=1000.55)
    go_to(simulator, 1000.55)
    value = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    simulator.advance(5.0)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) == value
    assert value == pytest.approx(1_000_000_000 + 1000 * 200 * 0.513, abs=1)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 200_000


def test_gain_is_of_all_sensors_and_not_of_the_truth(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=ConstantPower(200.0), gain=0.95))
    nvml, handle = opened(simulator)
    go_to(simulator, 1010.0)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - 1_000_000_000 == pytest.approx(190_000 * 9.913, abs=1)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 190_000
    assert field(nvml, handle, INSTANT) == (0, 190_000)
    assert {one.sampleValue.uiVal for one in nvml.nvmlDeviceGetSamples(handle, 0, 0)[1]} == {190_000}
    assert simulator.energy_j(0, 1000.0, 1010.0) == pytest.approx(2000.0)


# -- power readings ----------------------------------------------------------------------------------------------------


def test_power_readings_are_boxcars_that_are_refreshed_ten_times_a_second(make: Make) -> None:
    board = SimulatedBoard(wave=StepLog(start_w=60.0))
    simulator = make(board, varied(board, usage_is_instant=True))
    nvml, handle = opened(simulator)
    other = nvml.nvmlDeviceGetHandleByIndex(1)
    go_to(simulator, 1000.52)
    steps = [(simulator.set_power(0, 300.0), 300.0)]
    simulator.set_power(1, 300.0)
    changes: dict[int, set[float]] = {INSTANT: set(), AVERAGE: set()}
    before: dict[int, int] = {}
    for number in range(1, 1500):
        now_s = 1000.5204 + number * 0.001  # never at the very moment of a refresh
        go_to(simulator, now_s)
        refreshed_s = math.floor((now_s - 0.037) / 0.1 + 1e-9) * 0.1 + 0.037
        for which, window_s in ((INSTANT, 0.025), (AVERAGE, 1.0)):
            code, value = field(nvml, handle, which)
            expected_w = reference_j(board, steps, refreshed_s - window_s, refreshed_s) / window_s
            assert (code, value) == (0, pytest.approx(1000 * expected_w, abs=1))
            if before.get(which, value) != value:
                changes[which].add(round(now_s % 0.1, 4))
            before[which] = value
    assert changes[INSTANT] == {0.0374}
    assert changes[AVERAGE] == {0.0374}
    assert nvml.nvmlDeviceGetPowerUsage(handle) == field(nvml, handle, AVERAGE)[1]
    assert nvml.nvmlDeviceGetPowerUsage(other) == 300_000


def test_instant_and_average_usage_differ_after_a_step(make: Make) -> None:
    boards = [SimulatedBoard(wave=StepLog(start_w=60.0), usage_is_instant=instant) for instant in (False, True)]
    simulator = make(*boards)
    nvml, average = opened(simulator)
    instant = nvml.nvmlDeviceGetHandleByIndex(1)
    for board in (0, 1):
        simulator.set_power(board, 300.0)
    go_to(simulator, 1000.24)
    assert nvml.nvmlDeviceGetPowerUsage(instant) == 300_000
    assert nvml.nvmlDeviceGetPowerUsage(average) == pytest.approx(1000 * (60 + 240 * 0.237), abs=1)


def test_polled_too_fast_power_answers_0_but_the_counter_does_not(make: Make) -> None:
    simulator = make(SimulatedBoard(too_fast_s=0.01))
    nvml, handle = opened(simulator)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 60_000
    simulator.advance(0.005)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 0
    simulator.advance(0.005)
    assert field(nvml, handle, INSTANT) == (0, 0)  # one sensor behind all of them
    simulator.advance(0.011)
    both = nvml.nvmlDeviceGetFieldValues(handle, [(INSTANT, 0), (AVERAGE, 0)])
    assert [one.value.uiVal for one in both] == [60_000, 60_000]  # one call is one poll
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) > 0


def test_the_sample_buffer_holds_120_means_with_wall_clock_times(make: Make) -> None:
    board = SimulatedBoard(wave=StepLog(start_w=60.0))
    simulator = make(board)
    nvml, handle = opened(simulator)
    go_to(simulator, 1010.013)
    steps = [(simulator.set_power(0, 300.0), 300.0)]
    go_to(simulator, 1011.029)
    kind, samples = nvml.nvmlDeviceGetSamples(handle, 0, 0)
    assert (kind, len(samples)) == (1, 120)
    ends_s = [one.timeStamp / 1e6 - 1.7e9 for one in samples]
    assert ends_s == pytest.approx([1011.02 - 0.02 * (119 - k) for k in range(120)], abs=2e-6)
    for end_s, one in zip(ends_s, samples, strict=True):
        expected_w = reference_j(board, steps, end_s - 0.02, end_s) / 0.02
        assert one.sampleValue.uiVal == pytest.approx(1000 * expected_w, abs=20)  # times are whole microseconds
    assert samples[-1].timeStamp <= simulator.wall_us() < samples[-1].timeStamp + 20_000
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetSamples(handle, 0, samples[-1].timeStamp)
    simulator.advance(0.05)
    _, fresh = nvml.nvmlDeviceGetSamples(handle, 0, samples[-1].timeStamp)
    assert [one.timeStamp - samples[-1].timeStamp for one in fresh] == [20_000, 40_000]
    with pytest.raises(nvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetSamples(handle, 1, 0)


def test_fields_have_return_codes_types_and_times_of_their_own(make: Make) -> None:
    simulator = make(SimulatedBoard(limit_w=350.0, unsupported=("average",)))
    nvml, handle = opened(simulator)
    numbers = [
        (ENERGY, 0),
        (AVERAGE, 0),
        (INSTANT, 0),
        (INSTANT, 1),
        (LEAST, 0),
        (MOST, 0),
        (DEFAULT, 0),
        (CURRENT, 0),
        (9999, 0),
    ]
    values = nvml.nvmlDeviceGetFieldValues(handle, numbers)
    assert [one.nvmlReturn for one in values] == [0, 3, 0, 3, 0, 0, 0, 0, 3]
    assert [one.valueType for one in values[:3:2]] == [
        nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
        nvml.NVML_VALUE_TYPE_UNSIGNED_INT,
    ]
    assert [one.value.uiVal for one in values[4:8]] == [100_000, 350_000, 350_000, 350_000]
    assert {one.timestamp for one in values} == {round(1e6 * (1.7e9 + 1000.0))}


def test_a_module_tells_power_for_scope_module_only(make: Make) -> None:
    simulator = make(SimulatedBoard(module_only=True))
    nvml, handle = opened(simulator)
    assert [field(nvml, handle, number, 0)[0] for number in (AVERAGE, INSTANT, CURRENT)] == [3, 3, 3]
    assert field(nvml, handle, AVERAGE, 1) == field(nvml, handle, INSTANT, 1) == (0, 60_000)
    assert field(nvml, handle, ENERGY)[0] == 0
    assert nvml.nvmlDeviceGetC2cModeInfoV(handle).isC2cEnabled == 1


# -- faults ------------------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "energy": lambda nvml, handle: nvml.nvmlDeviceGetTotalEnergyConsumption(handle),
    "usage": lambda nvml, handle: nvml.nvmlDeviceGetPowerUsage(handle),
    "samples": lambda nvml, handle: nvml.nvmlDeviceGetSamples(handle, 0, 0),
    "limit": lambda nvml, handle: nvml.nvmlDeviceGetEnforcedPowerLimit(handle),
    "utilisation": lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle),
    "processes": lambda nvml, handle: nvml.nvmlDeviceGetComputeRunningProcesses(handle),
    "clocks": lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, 1),
    "mig": lambda nvml, handle: nvml.nvmlDeviceGetMigMode(handle),
    "temperature": lambda nvml, handle: nvml.nvmlDeviceGetTemperature(handle, 0),
    "memory": lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle),
}
FIELDS = {"energy_field": ENERGY, "average": AVERAGE, "instant": INSTANT}


@pytest.mark.parametrize("feature", module.FEATURES)
def test_what_is_unsupported_is_that_and_nothing_else(make: Make, feature: str) -> None:
    simulator = make(SimulatedBoard(unsupported=(feature,), unsupported_from_s=1001.0), SimulatedBoard())
    nvml, handle = opened(simulator)

    def failing(which: Any) -> set[str]:
        found = {name for name, number in FIELDS.items() if field(nvml, which, number)[0] == 3}
        for name, call in CALLS.items():
            try:
                call(nvml, which)
            except nvml.NVMLError_NotSupported:
                found.add(name)
        return found

    assert set(CALLS) | set(FIELDS) == set(module.FEATURES)
    assert failing(handle) == set()
    go_to(simulator, 1001.0)
    assert failing(handle) == {feature}
    assert failing(nvml.nvmlDeviceGetHandleByIndex(1)) == set()


def test_a_lost_board_answers_so_to_every_call_and_the_others_live_on(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard())
    nvml, handle = opened(simulator)
    simulator.change(0, lost_at_s=simulator.now() + 0.5)
    simulator.advance(0.4)
    assert nvml.nvmlDeviceGetName(handle) == "Simulated GPU"
    simulator.advance(0.2)
    calls = [*CALLS.values(), lambda nvml, handle: nvml.nvmlDeviceGetFieldValues(handle, [(INSTANT, 0)])]
    for call in [*calls, lambda nvml, handle: nvml.nvmlDeviceGetHandleByIndex(0)]:
        with pytest.raises(nvml.NVMLError_GpuIsLost):
            call(nvml, handle)
    assert nvml.nvmlDeviceGetPowerUsage(nvml.nvmlDeviceGetHandleByIndex(1)) == 60_000
    simulator.change(0, lost_at_s=module.NEVER)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 60_000


def test_unknown_errors_come_as_often_as_asked_and_from_the_seed(make: Make) -> None:
    def outcomes(seed: int) -> list[bool]:
        nvml, handle = opened(make(SimulatedBoard(unknown_rate=0.3, seed=seed)))
        found = []
        for _ in range(2000):
            try:
                nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                found.append(True)
            except nvml.NVMLError_Unknown:
                found.append(False)
        return found

    first = outcomes(1)
    assert first.count(False) / len(first) == pytest.approx(0.3, abs=0.03)
    assert outcomes(1) == first
    assert outcomes(2) != first


@pytest.mark.parametrize("code", [4, 9, 18])
def test_nvml_that_does_not_start_says_why(make: Make, code: int) -> None:
    nvml = make(SimulatedBoard(), init_error=code).load()
    with pytest.raises(nvml.NVMLError) as caught:
        nvml.nvmlInit()
    assert caught.value.value == code
    with pytest.raises(nvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetCount()


def test_calls_need_init_and_shutdown_ends_it(make: Make) -> None:
    nvml, handle = opened(make(SimulatedBoard()))
    nvml.nvmlInit()
    nvml.nvmlShutdown()
    assert nvml.nvmlDeviceGetCount() == 1  # two inits, one shutdown
    nvml.nvmlShutdown()
    with pytest.raises(nvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetPowerUsage(handle)


def test_what_describes_the_board_changes_when_it_is_told_to(make: Make) -> None:
    board = SimulatedBoard(
        throttle=4, throttle_from_s=1001.0, throttle_until_s=1002.0,
        sm_clock_mhz=1980, sm_clock_after_mhz=1200, sm_clock_change_s=1001.0,
        limit_w=400.0, limit_after_w=250.0, limit_change_s=1001.0,
        memory_bytes=1 << 30, memory_after_bytes=3 << 30, memory_change_s=1001.0,
        pids=(4242, 4243), pids_from_s=1001.0, pids_until_s=1002.0,
        temperature_c=40.0, warming_c_per_s=2.5,
    )  # fmt: skip
    simulator = make(board)
    nvml, handle = opened(simulator)

    def facts() -> tuple[Any, ...]:
        return (
            nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            nvml.nvmlDeviceGetClockInfo(handle, 1),
            nvml.nvmlDeviceGetEnforcedPowerLimit(handle),
            field(nvml, handle, CURRENT)[1],
            nvml.nvmlDeviceGetMemoryInfo(handle).used >> 30,
            nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used >> 30,
            [one.pid for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)],
            nvml.nvmlDeviceGetTemperature(handle, 0),
            nvml.nvmlDeviceGetTemperatureV(handle, 0),
        )

    assert facts() == (0, 0, 1980, 400_000, 400_000, 1, 1, [], 40, 40)
    go_to(simulator, 1001.0)
    assert facts() == (4, 4, 1200, 250_000, 250_000, 3, 3, [4242, 4243], 42, 42)
    go_to(simulator, 1002.0)
    assert facts() == (0, 0, 1200, 250_000, 250_000, 3, 3, [], 45, 45)
    assert nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [100_000, 400_000]


def test_utilisation_follows_power(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=StepLog(start_w=60.0), limit_w=360.0))
    nvml, handle = opened(simulator)
    assert nvml.nvmlDeviceGetUtilizationRates(handle).gpu == 0
    simulator.set_power(0, 360.0)
    simulator.advance(0.05)
    assert nvml.nvmlDeviceGetUtilizationRates(handle).gpu == 50
    simulator.advance(0.05)
    assert nvml.nvmlDeviceGetUtilizationRates(handle).gpu == 100


def test_slices_have_handles_and_names_but_no_power(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard(mig=True, mig_devices=3))
    nvml, handle = opened(simulator, 1)
    assert nvml.nvmlDeviceGetMigMode(handle) == [1, 1]
    assert nvml.nvmlDeviceGetMigMode(nvml.nvmlDeviceGetHandleByIndex(0)) == [0, 0]
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 7
    slices = [nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number) for number in range(3)]
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 3)
    uuids = [nvml.nvmlDeviceGetUUID(one) for one in slices]
    assert len(set(uuids)) == 3
    assert all(uuid.startswith("MIG-") and len(uuid) == 40 for uuid in uuids)
    again = nvml.nvmlDeviceGetHandleByUUID(uuids[2])
    assert nvml.nvmlDeviceIsMigDeviceHandle(again).value == 1
    assert nvml.nvmlDeviceIsMigDeviceHandle(handle).value == 0
    parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(again)
    assert nvml.nvmlDeviceGetUUID(parent) == simulator.boards[1].uuid
    for call in ("energy", "usage", "samples", "limit", "utilisation"):
        with pytest.raises(nvml.NVMLError_NotSupported):
            CALLS[call](nvml, again)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(parent) > 0


def test_a_board_is_found_by_all_of_its_names(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard(uuid="GPU-of-my-own", model="Big One", architecture=9))
    nvml, handle = opened(simulator, 1)
    bus = nvml.nvmlDeviceGetPciInfo(handle).busId
    for found in (
        nvml.nvmlDeviceGetHandleByUUID("GPU-of-my-own"),
        nvml.nvmlDeviceGetHandleByPciBusId(bus),
        nvml.nvmlDeviceGetHandleBySerial(nvml.nvmlDeviceGetSerial(handle)),
    ):
        assert nvml.nvmlDeviceGetIndex(found) == 1
        assert nvml.nvmlDeviceGetName(found) == "Big One"
    assert nvml.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
    assert nvml.nvmlDeviceGetArchitecture(handle) == nvml.NVML_DEVICE_ARCH_HOPPER
    assert nvml.nvmlSystemGetDriverVersion() == "580.65.06"
    assert nvml.nvmlDeviceGetCount() == 2
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetHandleByIndex(2)
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetHandleByUUID("GPU-of-another")


# -- time --------------------------------------------------------------------------------------------------------------


def test_virtual_time_moves_by_the_test_and_by_the_cost_of_calls(make: Make) -> None:
    simulator = make(SimulatedBoard(), call_cost_s=0.002)
    assert simulator.now() == 1000.0
    nvml, handle = opened(simulator)  # two calls
    for _ in range(8):
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    assert simulator.now() == pytest.approx(1000.02, abs=1e-9)
    begun = time.perf_counter()
    simulator.sleep(500.0)
    assert simulator.now() == pytest.approx(1500.02, abs=1e-9)
    assert time.perf_counter() - begun < 1.0


def test_what_is_to_happen_every_so_often_happens_at_its_time(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=ConstantPower(100.0)))
    nvml, handle = opened(simulator)
    seen: list[tuple[float, int]] = []
    cancel = simulator.every(
        0.25, lambda: seen.append((simulator.now(), nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
    )
    simulator.advance(1.1)
    cancel()
    simulator.advance(1.0)
    assert [t for t, _ in seen] == pytest.approx([1000.25, 1000.5, 1000.75, 1001.0])
    assert [round(mj / 1000 - 1e6, 3) for _, mj in seen] == pytest.approx([21.3, 41.3, 71.3, 91.3], abs=2e-3)


def test_real_time_is_the_time_of_perf_counter(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=StepLog(start_w=60.0)), virtual=False)
    nvml, handle = opened(simulator)
    before = time.perf_counter()
    stepped_s = simulator.set_power(0, 300.0)
    assert before <= stepped_s <= time.perf_counter()
    first_s, first = simulator.now(), nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    simulator.sleep(0.25)
    assert simulator.now() - first_s >= 0.25
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - first >= 2 * 0.1 * 1000 * 60
    assert simulator.wall_us() / 1e6 == pytest.approx(time.time(), abs=1.0)


def test_windows_of_our_own_meter_fit_the_truth(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=StepLog(start_w=60.0), noise_w=1.5), call_cost_s=2e-5)
    chance = random.Random(1)
    with open_nvml(nvml=simulator.load(), clock=simulator, environ={}) as meter:
        for _ in range(20):
            simulator.sleep(chance.uniform(0.3, 0.5))
            with meter.window() as window:
                begun_s = simulator.set_power(0, 300.0)
                simulator.sleep(chance.uniform(0.2, 2.0))
                ended_s = simulator.set_power(0, 60.0)
            truth_j, reading = simulator.energy_j(0, begun_s, ended_s), window.reading
            assert abs(reading.energy_j - truth_j) <= reading.uncertainty_j < 0.05 * truth_j


# -- processes, logs, several simulators -------------------------------------------------------------------------------

CHILD = """
import pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(1)
print(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
for field, scope in ((186, 0), (186, 1)):
    value = pynvml.nvmlDeviceGetFieldValues(handle, [(field, scope)])[0]
    print(value.nvmlReturn, value.value.uiVal)
"""
STEPPING_CHILD = """
from perjoule.testing import NvmlSimulator, StepLog
simulator = NvmlSimulator.attach()
assert simulator.boards[1].wave == StepLog(start_w=70.0), simulator.boards
assert simulator.boards[1].unsupported == ("limit", "mig") and simulator.boards[1].pids == (7,), simulator.boards
print(simulator.set_power(1, 300.0))
"""
DYING_CHILD = """
import os
from perjoule.testing import NvmlSimulator
simulator = NvmlSimulator.attach()
simulator._library.nvmlsim_lock(simulator._view)
os._exit(7)
"""


def run(simulator: NvmlSimulator, code: str, status: int = 0) -> str:
    path = os.pathsep.join(sys.path)
    environment = os.environ | simulator.environment() | {"PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_a_plain_binding_in_another_process_sees_the_boards_and_is_counted(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard(wave=ConstantPower(123.0)))
    simulator.advance(10.0)
    first, *others = run(simulator, CHILD).splitlines()
    uuid, energy_mj = first.split()
    assert uuid == simulator.boards[1].uuid
    assert int(energy_mj) == pytest.approx(1_000_000_000 + 123_000 * 9.913, abs=1)
    assert others == ["0 123000", "3 0"]
    assert simulator.call_counts() == {
        "nvmlInit_v2": 1,
        "nvmlDeviceGetHandleByIndex_v2": 1,
        "nvmlDeviceGetUUID": 1,
        "nvmlDeviceGetTotalEnergyConsumption": 1,
        "nvmlDeviceGetFieldValues": 2,
    }


def test_another_process_steps_power_and_this_one_sees_it(make: Make) -> None:
    board = SimulatedBoard(wave=StepLog(start_w=70.0), unsupported=("limit", "mig"), pids=(7,))
    simulator = make(SimulatedBoard(), board, virtual=False)
    stepped_s = float(run(simulator, STEPPING_CHILD))
    assert simulator.power_w(1, stepped_s - 1e-3) == 70.0
    assert simulator.power_w(1, stepped_s) == 300.0
    assert simulator.energy_j(1, stepped_s - 0.1, stepped_s + 0.1) == pytest.approx(37.0, rel=1e-9)


def test_a_process_that_dies_in_the_middle_blocks_nobody(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard())
    run(simulator, DYING_CHILD, status=7)
    assert run(simulator, CHILD).splitlines()[1:] == ["0 60000", "3 0"]


def status_of(child: int, within_s: float = 20.0) -> int | None:
    """Exit status of a forked child; None if it had to be killed."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def test_a_fork_while_threads_call_blocks_nobody(make: Make) -> None:
    simulator = make(SimulatedBoard(), virtual=False)
    nvml, handle = opened(simulator)
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            nvml.nvmlDeviceGetPowerUsage(handle)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(0 if nvml.nvmlDeviceGetPowerUsage(handle) == 60_000 else 1)
            assert status_of(child) == 0
    finally:
        done.set()
        thread.join()


def test_calls_of_many_threads_are_all_counted(make: Make) -> None:
    simulator = make(SimulatedBoard(noise_w=2.0), virtual=False)
    nvml, handle = opened(simulator)

    def call() -> None:
        for _ in range(500):
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert simulator.call_counts()["nvmlDeviceGetTotalEnergyConsumption"] == 2000


def test_the_log_tells_time_function_and_board(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard())
    nvml, handle = opened(simulator, 1)
    simulator.advance(0.5)
    nvml.nvmlDeviceGetPowerUsage(handle)
    assert [(call.t_s, call.function, call.board) for call in simulator.call_log()] == [
        (1000.0, "nvmlInit_v2", None),
        (1000.0, "nvmlDeviceGetHandleByIndex_v2", None),
        (1000.5, "nvmlDeviceGetPowerUsage", 1),
    ]


def test_every_function_has_a_name_of_its_own_in_the_log(make: Make) -> None:
    """A function that is missing from the library's table would be logged as `?`."""
    simulator = make(SimulatedBoard())
    nvml, handle = opened(simulator)
    for name in dir(nvml):
        if name.startswith(("nvmlDeviceGet", "nvmlDeviceSet", "nvmlDeviceReset", "nvmlSystemGet")):
            for arguments in ((handle,), (handle, 0), (handle, 0, 0), ()):
                try:
                    getattr(nvml, name)(*arguments)
                except Exception:  # many of the binding's functions are not there, or are called wrongly here
                    continue
    counts = simulator.call_counts()
    assert len(counts) > 55
    assert "?" not in counts


def test_two_simulators_take_turns_in_one_process(make: Make) -> None:
    first = make(SimulatedBoard(wave=ConstantPower(100.0)))
    second = make(SimulatedBoard(wave=ConstantPower(250.0)), SimulatedBoard())
    nvml, handle = opened(first)
    assert (nvml.nvmlDeviceGetCount(), nvml.nvmlDeviceGetPowerUsage(handle)) == (1, 100_000)
    assert nvml.nvmlDeviceGetCount() == 1  # that there is another one changes nothing yet
    opened(second)
    assert (nvml.nvmlDeviceGetCount(), nvml.nvmlDeviceGetPowerUsage(handle)) == (2, 250_000)
    other = nvml.nvmlDeviceGetHandleByIndex(1)
    assert first.energy_j(0, 1000.0, 1001.0) == pytest.approx(100.0)
    assert second.energy_j(0, 1000.0, 1001.0) == pytest.approx(250.0)
    assert "nvmlDeviceGetPowerUsage" in first.call_counts()
    second.close()
    with pytest.raises(nvml.NVMLError):
        nvml.nvmlDeviceGetPowerUsage(handle)
    with pytest.raises(RuntimeError, match="closed"):
        second.energy_j(0, 1000.0, 1001.0)
    first.load()
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 100_000
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetPowerUsage(other)  # of the second one's second board


def test_close_takes_the_simulator_out_of_the_binding(tmp_path: Path) -> None:
    with NvmlSimulator([SimulatedBoard()], tmp_path, virtual=True) as simulator:
        nvml = simulator.load()
        assert nvml.nvmlLib is simulator._library
    assert nvml.nvmlLib is not simulator._library
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("state-")] == []
    with pytest.raises(nvml.NVMLError):
        nvml.nvmlInit()


# -- peers -------------------------------------------------------------------------------------------------------------

ZEUS = """
import time
from zeus.monitor import ZeusMonitor
from perjoule.testing import NvmlSimulator
simulator = NvmlSimulator.attach()
monitor = ZeusMonitor(gpu_indices=[1], cpu_indices=[], approx_instant_energy=True)
monitor.begin_window("window", sync_execution=False)
begun_s = simulator.now()
time.sleep(0.5)
ended_s = simulator.now()
result = monitor.end_window("window", sync_execution=False)
print("measured", result.gpu_energy[1], simulator.energy_j(1, begun_s, ended_s))
"""
CODECARBON = """
import time
from codecarbon.core.gpu import AllGPUDevices, is_nvidia_system
from codecarbon.core.units import Time
from perjoule.testing import NvmlSimulator
assert is_nvidia_system()
simulator = NvmlSimulator.attach()
devices = AllGPUDevices()
assert [one["uuid"] for one in devices.get_gpu_static_info()] == [board.uuid for board in simulator.boards]
devices.start()
begun_s = simulator.now()
time.sleep(0.5)
ended_s = simulator.now()
details = devices.get_delta(Time.from_seconds(ended_s - begun_s))
measured_j = details[1]["delta_energy_consumption"].kWh * 3.6e6
print("measured", measured_j, simulator.energy_j(1, begun_s, ended_s))
"""


@pytest.mark.parametrize(("name", "code"), [("zeus", ZEUS), ("codecarbon", CODECARBON)])
def test_other_meters_run_on_it(make: Make, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    pytest.importorskip(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    simulator = make(SimulatedBoard(), SimulatedBoard(wave=ConstantPower(200.0)), virtual=False)
    line = next(line for line in run(simulator, code).splitlines() if line.startswith("measured"))
    measured_j, truth_j = (float(word) for word in line.split()[1:])
    assert abs(measured_j - truth_j) <= 200.0 * 0.11  # one update period of the counter, and what the tool itself takes
    assert measured_j > 0


# -- building and refusing ---------------------------------------------------------------------------------------------


def test_the_library_is_built_once_even_by_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = module.build(tmp_path / "first").read_bytes()
    (tmp_path / "built").write_bytes(built)
    monkeypatch.setattr(module, "_builds", {})
    slow = tmp_path / "slow-cc"  # writes half of it, and the rest later
    slow.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n'
        f'head -c 1000 {tmp_path}/built > "$2"\nsleep 0.1\ntail -c +1001 {tmp_path}/built >> "$2"\n'
    )
    slow.chmod(0o755)
    monkeypatch.setenv("CC", str(slow))
    found: list[tuple[Path, bytes]] = []

    def build() -> None:
        library = module.build(tmp_path / "shared")
        found.append((library, library.read_bytes()))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert {content for _, content in found} == {built}
    assert len({path for path, _ in found}) == 1
    assert sorted(one.name for one in found[0][0].parent.iterdir()) == ["libnvidia-ml.so.1", "nvidia-smi"]
    monkeypatch.setattr(module, "compiler", lambda: pytest.fail("it was there already"))
    assert module.build(tmp_path / "shared") == found[0][0]


def test_no_compiler_and_a_failing_one_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_builds", {})
    failing = tmp_path / "my-cc"
    failing.write_text("#!/bin/sh\necho no such machine >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CC", f"{failing} -m128")
    with pytest.raises(RuntimeError, match=r"my-cc -m128 cannot build nvml_simulator\.c: no such machine"):
        module.build(tmp_path)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert module.compiler() is None
    with pytest.raises(RuntimeError, match="needs a C compiler"):
        module.build(tmp_path)
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [failing]


def test_the_source_compiles_without_warnings(tmp_path: Path) -> None:
    command = module.compiler()
    assert command is not None
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(module.SOURCE)]
    done = subprocess.run([*command.split(), *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unsupported": ("enrgy",)}, "enrgy; must be of energy"),
        ({"counter_duty": 0.0}, "counter_duty: is 0.0; must be above 0"),
        ({"counter_jitter": 1.5}, "counter_jitter: is 1.5"),
        ({"pids": tuple(range(17))}, "pids: 17 of them; must be at most 16"),
        ({"mig_devices": 8}, "mig_devices: is 8"),
        ({"uuid": "GPU-" + "0" * 96}, "uuid: is 100 bytes"),
        ({"wave": ConstantPower(-1.0)}, "must not be below 0"),
        ({"wave": Bursts(low_w=1, high_w=2, burst_s=0.4, slot_s=0.3)}, "do not fit"),
        ({"wave": SquareWave(low_w=1, high_w=2, period_s=1, duty=1.5)}, "duty from 0 to 1"),
    ],
)
def test_a_board_that_means_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SimulatedBoard(**fields)


def test_changes_that_mean_nothing_are_refused(make: Make) -> None:
    simulator = make(SimulatedBoard(), SimulatedBoard(wave=StepLog()))
    for name in ("wave", "noise_w", "seed", "lost_at"):
        with pytest.raises(ValueError, match=f"{name} cannot be changed"):
            simulator.change(0, **{name: 1})
    with pytest.raises(ValueError, match="counter_period_s: is 0"):
        simulator.change(0, counter_period_s=0)
    with pytest.raises(ValueError, match="needs a StepLog"):
        simulator.set_power(0, 100.0)
    with pytest.raises(ValueError, match="must not be below 0"):
        simulator.set_power(1, -1.0)
    with pytest.raises(IndexError, match="no board 2"):
        simulator.change(2, mig=True)


def test_a_changed_counter_forgets_what_it_had_summed(make: Make) -> None:
    """A part-time counter in step with a square wave sees its low half, and with a longer look some of the high one."""
    wave = SquareWave(low_w=60.0, high_w=300.0, period_s=0.1)
    simulator = make(SimulatedBoard(wave=wave, counter_duty=0.25, counter_phase_s=0.0, counter_start_j=0.0))
    nvml, handle = opened(simulator)
    go_to(simulator, 1005.0 + 1e-6)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) == pytest.approx(1000 * 60 * 5, abs=1)
    simulator.change(0, counter_duty=0.75)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) == pytest.approx(1000 * 140 * 5, abs=1)
    simulator.change(0, counter_duty=1.0)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) == pytest.approx(1000 * 180 * 5, abs=1)


def test_boards_have_drawn_power_for_longer_than_the_simulator_remembers(make: Make) -> None:
    board = SimulatedBoard(wave=BURSTS, noise_w=1.5)
    expected_j = reference_j(board, [], 930.0, 945.0)
    assert make(board).energy_j(0, 930.0, 945.0) == pytest.approx(expected_j, rel=1e-9)


def test_a_look_into_the_future_is_not_remembered(make: Make) -> None:
    board = SimulatedBoard(wave=StepLog(start_w=60.0), noise_w=1.5)
    simulator = make(board)
    assert simulator.energy_j(0, 1000.0, 1010.0) == pytest.approx(reference_j(board, [], 1000.0, 1010.0), rel=1e-9)
    simulator.advance(0.55)
    steps = [(simulator.set_power(0, 300.0), 300.0)]
    assert simulator.energy_j(0, 1000.0, 1010.0) == pytest.approx(reference_j(board, steps, 1000.0, 1010.0), rel=1e-9)


def test_65536_steps_are_taken_and_no_more(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=StepLog(start_w=0.0)))
    begun_s, expected_j = simulator.now(), []
    for number in range(65_535):
        simulator.advance(0.001)
        simulator.set_power(0, number % 301)
        expected_j.append(0.001 * (number % 301))
    ended_s = simulator.now()
    assert simulator.energy_j(0, begun_s, ended_s) == pytest.approx(math.fsum(expected_j[:-1]), rel=1e-9)
    with pytest.raises(IndexError, match="all of its 65536 steps"):
        simulator.set_power(0, 1.0)


# -- shapes of real boards, late counters, recorded power --------------------------------------------------------------

SHAPE: dict[str, Any] = {"rise_s": 0.004, "fall_s": 0.01, "settle_w": 20.0, "settle_s": 0.3}


def worked(simulator: NvmlSimulator) -> WorkBetweenRests:
    """Half a second of work at 300 W, and what it should draw according to the simulator in Python."""
    simulator.sleep(1.0)
    begun_s = simulator.set_power(0, 300.0)
    simulator.sleep(0.5)
    ended_s = simulator.set_power(0, 60.0)
    simulator.sleep(3.0)
    return WorkBetweenRests(rest_w=60.0, work_w=300.0, begin_s=begun_s, end_s=ended_s, **SHAPE)


def test_a_board_rises_falls_and_settles_as_the_other_simulator_says(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=StepLog(start_w=60.0), **SHAPE))
    shape = worked(simulator)
    for after_s in (-0.1, 0.001, 0.003, 0.1, 0.501, 0.505, 0.509, 0.52, 0.9, 2.0):
        t_s = shape.begin_s + after_s
        assert simulator.power_w(0, t_s) == pytest.approx(shape(t_s), abs=1e-6)
        energy_j = simulator.energy_j(0, shape.begin_s - 0.2, t_s)
        assert energy_j == pytest.approx(shape.energy_j(shape.begin_s - 0.2, t_s), abs=1e-6)


def test_shapes_and_noise_add_up(make: Make) -> None:
    plain, noisy = (make(SimulatedBoard(wave=StepLog(), noise_w=noise_w, **SHAPE)) for noise_w in (0.0, 1.5))
    shape = worked(noisy)
    quiet = worked(plain)
    noise_j = noisy.energy_j(0, shape.end_s - 0.3, shape.end_s + 0.1) - plain.energy_j(
        0, quiet.end_s - 0.3, quiet.end_s + 0.1
    )
    assert 0 < abs(noise_j) < 0.4 * 5 * 1.5


@pytest.mark.parametrize(("lag_s", "box_s"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.3), (0.02, 1.0)])
def test_a_counter_lags_and_averages(make: Make, lag_s: float, box_s: float) -> None:
    board = SimulatedBoard(
        wave=StepLog(start_w=60.0), counter_lag_s=lag_s, counter_box_s=box_s, counter_period_s=0.05, **SHAPE
    )
    simulator = make(board)
    nvml, handle = opened(simulator)
    simulator.sleep(1.5)
    begun_s = simulator.set_power(0, 300.0)
    simulator.sleep(0.5)
    ended_s = simulator.set_power(0, 60.0)
    shape = WorkBetweenRests(rest_w=60.0, work_w=300.0, begin_s=begun_s, end_s=ended_s, **SHAPE)
    late = LateWave(wave=shape, lag_s=lag_s, box_s=box_s)
    shown = []
    for _ in range(40):
        simulator.sleep(0.05)
        edge_s = math.floor((simulator.now() - board.counter_phase_s) / 0.05 + 1e-9) * 0.05 + board.counter_phase_s
        shown.append((edge_s, nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000))
    (first_s, first_j), *others = shown
    for edge_s, energy_j in others:
        assert energy_j - first_j == pytest.approx(late.energy_j(first_s, edge_s), abs=0.01)
    # the truth is not late
    assert simulator.energy_j(0, begun_s, ended_s) == pytest.approx(shape.energy_j(begun_s, ended_s), abs=1e-6)


def test_a_recorded_power_is_played_and_replaced(make: Make) -> None:
    simulator = make(SimulatedBoard(wave=StepLog(start_w=60.0), **SHAPE))
    simulator.sleep(1.0)
    begun_s = simulator.play(0, [0.0, 0.1, 0.3, 5.0], [200.0, 320.0, 90.0, 500.0])
    simulator.sleep(0.6)
    assert simulator.power_w(0, begun_s + 0.2) == 320.0  # as it is, without ramps
    assert simulator.energy_j(0, begun_s, begun_s + 0.5) == pytest.approx(200 * 0.1 + 320 * 0.2 + 90 * 0.2)
    simulator.set_power(0, 150.0)  # what was to come at 5 s does not come
    simulator.sleep(9.0)
    assert simulator.power_w(0, begun_s + 9.0) == 150.0


@pytest.mark.parametrize(
    ("times", "powers", "words"),
    [
        ([0.0], [1.0, 2.0], "as many"),
        ([], [], "as many"),
        ([0.1, 0.0], [1.0, 2.0], "ascend"),
        ([-0.1], [1.0], "ascend"),
        ([0.0], [-1.0], "below 0"),
    ],
)
def test_an_impossible_trace_is_refused(make: Make, times: list[float], powers: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(SimulatedBoard(wave=StepLog())).play(0, times, powers)


def test_only_steps_are_played(make: Make) -> None:
    with pytest.raises(ValueError, match="another wave"):
        make(SimulatedBoard()).play(0, [0.0], [1.0])


@pytest.mark.parametrize(
    ("board", "words"),
    [
        ({"rise_s": -0.1}, "rise_s"),
        ({"counter_lag_s": -0.1}, "counter_lag_s"),
        ({"settle_s": 0.0}, "settle_s"),
        ({"wave": ConstantPower(60.0), "fall_s": 0.01}, "fall_s"),
        ({"counter_duty": 0.25, "counter_box_s": 0.1}, "counter_duty"),
    ],
)
def test_an_impossible_shape_is_refused(board: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SimulatedBoard(**({"wave": StepLog()} | board))
