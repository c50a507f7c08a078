"""The rest around windows: what it is before them, how it changes, and polls that come late while it is learnt."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest
from tests.benchmarks.meters.virtual import CALL_S, WORK_W, Tried

from perjoule.meters.nvml import open_nvml
from perjoule.meters.rest import idle_power, idle_uncertainty_w, narrow_gaps, update_period, usual_rest
from perjoule.testing import NvmlSimulator, SimulatedBoard, StepLog
from perjoule.testing import nvml_simulator as module
from perjoule.types import Edge

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(module.compiler() is None, reason="no C compiler")
REST_W = 122.0


def edges(width_s: float = 0.0005, late: int | None = None, by_s: float = 0.0) -> list[Edge]:
    """Thirteen edges of a counter at 60 W, every 0.1 s; one was polled late."""
    found = []
    for number in range(13):
        at_s = 0.1 * number
        late_s = at_s + width_s / 2 + (by_s if number == late else 0.0)
        found.append(Edge(early_s=at_s - width_s / 2, late_s=late_s, energy_j=60 * at_s))
    return found


def test_a_late_poll_is_dropped_from_period_and_idle_power() -> None:
    usual, disturbed = edges(), edges(late=5, by_s=0.04)
    assert len(narrow_gaps(disturbed)) == len(narrow_gaps(usual)) - 2 == 10
    assert update_period(disturbed).longest_s == pytest.approx(0.1)
    assert idle_power(disturbed).power_w == pytest.approx(60.0)
    assert idle_uncertainty_w(idle_power(disturbed)) == pytest.approx(idle_uncertainty_w(idle_power(usual)), rel=0.01)


def test_edges_that_are_all_wide_are_all_used() -> None:
    """A driver whose calls take 20 ms is slow and not late."""
    assert len(narrow_gaps(edges(width_s=0.02))) == 12


def test_the_usual_rest_forgives_one_odd_window() -> None:
    usual = usual_rest([134.0, 135.0, 133.0, 190.0, 134.5])
    assert usual.power_w == 134.5
    assert usual.spread_w < 2.0
    assert usual.gap_count == 5


class LateClock:
    """The simulator's clock, on which one wait takes longer: the process was held up."""

    def __init__(self, simulator: NvmlSimulator, at_s: float, by_s: float, every: bool = False) -> None:
        self._simulator, self._at_s, self._by_s, self._every = simulator, at_s, by_s, every

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulator, name)

    def sleep(self, seconds: float) -> None:
        if self._by_s and self._simulator.now() >= self._at_s:
            seconds += self._by_s
            self._by_s = self._by_s if self._every else 0.0
        self._simulator.sleep(seconds)


def run(
    folder: Path,
    *,
    learnt_w: float = REST_W,
    late_s: float = 0.0,
    count: int = 40,
    period_s: float = 0.1,
    seed: int = 1,
    **board: Any,
) -> tuple[list[Tried], list[float]]:
    """Windows on a board that rests at 122 W, and their true net energies; idle power is learnt at `learnt_w`."""
    chance = random.Random(seed)
    simulated = SimulatedBoard(
        wave=StepLog(start_w=learnt_w),
        noise_w=1.5,
        seed=seed,
        counter_period_s=period_s,
        counter_phase_s=chance.uniform(0, period_s),
        **board,
    )
    found, nets = [], []
    with NvmlSimulator([simulated], folder, virtual=True, call_cost_s=CALL_S) as simulator:
        clock = LateClock(simulator, simulator.now() + 0.3, late_s)
        with open_nvml(nvml=simulator.load(), clock=clock, environ={}) as meter:
            simulator.set_power(0, REST_W)
            for _ in range(count):
                simulator.sleep(chance.uniform(0.3, 0.5))
                with meter.window() as window:
                    begun_s = simulator.set_power(0, WORK_W)
                    simulator.sleep(0.05 * 100 ** chance.random())
                    ended_s = simulator.set_power(0, REST_W)
                truth_j = simulator.energy_j(0, begun_s, ended_s)
                found.append(Tried(truth_j=truth_j, reading=window.reading))
                nets.append(truth_j - REST_W * (ended_s - begun_s))
    return found, nets


def codes(found: list[Tried]) -> list[str]:
    return [said[:4] for one in found for said in one.reading.warnings]


@needs_compiler
@pytest.mark.parametrize(
    "case",
    [
        {"learnt_w": 72.0},  # without a CUDA context, and then with one
        {"settle_w": 20.0, "settle_s": 1 / 3},  # a rest that comes down within a second
        {"learnt_w": 72.0, "settle_w": 20.0, "settle_s": 1 / 3},
        {"late_s": 0.03},
        {"late_s": 0.1},
        {"late_s": 0.3},
    ],
    ids=lambda case: " ".join(f"{name}={value:.3g}" for name, value in case.items()),
)
def test_a_rest_that_moves_costs_neither_bound_nor_bias(case: dict[str, Any], tmp_path: Path) -> None:
    known, _ = run(tmp_path)
    found, nets = run(tmp_path, **case)
    assert all(one.covered for one in found)
    bounds = [median(one.reading.uncertainty_j or 0.0 for one in some) for some in (found, known)]
    assert 0 < bounds[0] <= 2 * bounds[1]
    assert codes(found).count("W208") <= 0.05 * len(found)
    errors = [(one.reading.net_energy_j or 0.0) - net_j for one, net_j in zip(found, nets, strict=True)]
    assert abs(fmean(errors)) <= 0.01 * fmean(nets)


@needs_compiler
def test_a_process_that_is_held_up_again_and_again_is_told(tmp_path: Path) -> None:
    """Every third wait takes 45 ms longer, so that most edges are wide and the others are not."""

    class Busy(LateClock):
        waits = 0

        def sleep(self, seconds: float) -> None:
            self.waits += 1
            self._simulator.sleep(seconds + (0.045 if self.waits % 3 == 0 and seconds < 0.001 else 0.0))

    simulated = SimulatedBoard(wave=StepLog(start_w=REST_W), noise_w=1.5, counter_period_s=0.1)
    with NvmlSimulator([simulated], tmp_path, virtual=True, call_cost_s=CALL_S) as simulator:
        clock = Busy(simulator, 0.0, 0.0)
        with open_nvml(nvml=simulator.load(), clock=clock, environ={}) as meter:
            simulator.sleep(0.3)
            with meter.window() as window:
                begun_s = simulator.set_power(0, WORK_W)
                simulator.sleep(0.5)
                ended_s = simulator.set_power(0, REST_W)
            truth_j = simulator.energy_j(0, begun_s, ended_s)
    reading = window.reading
    assert reading.energy_j is not None
    assert reading.uncertainty_j is not None
    late = any(said.startswith("W217") for said in reading.warnings)
    assert late or reading.uncertainty_j > 2.0
    assert abs(reading.energy_j - truth_j) <= reading.uncertainty_j
