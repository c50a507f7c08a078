"""The machine's load around a window: what is recorded, and which load is worth a warning."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.estimate import EstimateMeter, PowerModel
from perjoule.meters.machine import OTHERS_CORES, STEAL_SHARE, Look, Machine, between
from perjoule.runs.writer import trial_row
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.types import MachineLoad, Trial

MODEL = PowerModel(cpu_model="x", tdp_w=100.0, generic_tdp=False, cpu_count=1, ram_w=5.0, version="1")


class World:
    """Files as Linux writes them, for a machine of two CPUs on which time is turned by hand."""

    def __init__(self, root: Path, cores: int = 2) -> None:
        self.root, self.cores = root, cores
        self.now_s = self.own_s = self.others_s = self.steal_s = self.load = 0.0
        self.mhz: float | None = 2400.0
        (root / "proc").mkdir()
        for number in range(cores):
            (root / f"sys/devices/system/cpu/cpufreq/policy{number}").mkdir(parents=True)
        self.write()

    def write(self) -> None:
        ticks = [round(100 * seconds) for seconds in (self.own_s, self.others_s, self.steal_s)]
        # user nice system idle iowait irq softirq steal guest guest_nice
        text = f"cpu  {ticks[0]} 0 {ticks[1]} 12345 678 0 0 {ticks[2]} 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
        (self.root / "proc/stat").write_text(text)
        (self.root / "proc/loadavg").write_text(f"{self.load:.2f} 1.00 0.50 3/456 789\n")
        for file in self.root.glob("sys/devices/system/cpu/cpufreq/policy*"):
            (file / "scaling_cur_freq").write_text(f"{round(1000 * (self.mhz or 0))}\n")

    def machine(self) -> Machine:
        return Machine(self.root, now=lambda: self.now_s, own_s=lambda: self.own_s, cores=self.cores)

    def spend(self, seconds: float, *, own: float = 0.0, others: float = 0.0, steal: float = 0.0) -> None:
        """Let time pass, with so many CPUs busy by each."""
        self.now_s += seconds
        self.own_s += own * seconds
        self.others_s += others * seconds
        self.steal_s += steal * seconds
        self.write()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def window(world: World, load: float, **shares: float) -> tuple[MachineLoad, tuple[str, ...]]:
    machine = world.machine()
    world.load = load
    world.write()
    before = machine.look()
    world.spend(10.0, **shares)
    return between(before, machine.look(), machine.cores)


def test_what_is_recorded(world: World) -> None:
    found, said = window(world, 1.25, own=1.0, others=0.2, steal=0.04)
    assert found.load == (1.25, 1.25)
    assert found.cores == 2
    assert found.others_cores == pytest.approx(0.2)
    assert found.steal_share == pytest.approx(0.02)
    assert found.cpu_mhz == (2400.0, 2400.0)
    assert said == ()


@pytest.mark.parametrize(
    ("load", "shares", "warned"),
    [
        (1.9, {"own": 1.0, "others": 0.9}, False),  # there is room for both
        (4.2, {"own": 1.0, "others": 1.0}, True),
        (8.0, {"own": 2.0, "others": 0.02}, False),  # our own threads are more than the CPUs, in every window
        (8.0, {"own": 1.1, "others": 0.9}, True),
        (4.2, {"own": 1.0, "others": 0.0}, False),  # the load of a minute ago has gone
        (0.5, {"own": 0.3, "steal": 0.5}, True),  # a neighbour on the same host
    ],
)
def test_a_load_above_the_cores_counts_if_it_is_not_all_ours(
    world: World, load: float, shares: dict[str, float], warned: bool
) -> None:
    _, said = window(world, load, **shares)
    assert [one[:4] for one in said] == ["W264"] * warned


def test_the_sentence_names_the_load_the_cores_and_the_others(world: World) -> None:
    _, said = window(world, 5.9, own=0.8, others=1.2, steal=0.4)
    assert said == (
        "W264: the load average was 5.9 on 2 CPUs, and other processes used 1.2 of them; the hypervisor took 20% of "
        "the CPU time away",
    )


def test_what_the_system_does_not_tell_is_absent(tmp_path: Path) -> None:
    machine = Machine(tmp_path, cores=4)
    found, said = between(machine.look(), machine.look(), machine.cores)
    assert asdict(found) == {
        "load": (None, None), "cores": 4, "others_cores": None, "steal_share": None, "cpu_mhz": (None, None)
    }  # fmt: skip
    assert said == ()


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu 1 2 3\n", "cpu a b c d e f g h\n", "\xff\n"])
def test_files_that_make_no_sense_are_absent(world: World, text: str) -> None:
    (world.root / "proc/stat").write_bytes(text.encode("latin-1"))
    (world.root / "proc/loadavg").write_bytes(text.encode("latin-1"))
    (world.root / "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq").write_text("<unknown>\n")
    look = world.machine().look()
    assert (look.load, look.busy_s, look.steal_s, look.mhz) == (None, None, None, 2400.0)


@given(
    load=st.floats(0, 1000), cores=st.integers(1, 512), own=st.floats(0, 512), others=st.floats(0, 512),
    steal=st.floats(0, 1), seconds=st.floats(0.2, 1e5),
)  # fmt: skip
def test_the_criterion(load: float, cores: int, own: float, others: float, steal: float, seconds: float) -> None:
    busy_s, steal_s = (own + others) * seconds, steal * cores * seconds
    before = Look(t_s=0.0, load=load, busy_s=0.0, steal_s=0.0, own_s=0.0, mhz=None)
    after = Look(t_s=seconds, load=None, busy_s=busy_s, steal_s=steal_s, own_s=own * seconds, mhz=None)
    found, said = between(before, after, cores)
    assert found.others_cores == pytest.approx(others, abs=1e-6)
    crowded = load > cores and (found.others_cores or 0.0) >= OTHERS_CORES
    assert bool(said) == (crowded or (found.steal_share or 0.0) > STEAL_SHARE)


def test_this_machine_tells_its_load_and_a_window_carries_it() -> None:
    with EstimateMeter(MODEL) as meter, meter.window() as window:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)
    found = window.reading.machine
    assert found is not None
    assert found.load[0] is not None
    assert found.others_cores is not None
    assert 0 <= found.others_cores <= found.cores + 0.5


def test_the_machine_is_looked_at_outside_of_the_metered_interval(world: World) -> None:
    """A look takes a virtual second here, and no window may hold it."""
    clock = VirtualClock()
    meter = SyntheticMeter(60.0, clock)
    machine = world.machine()
    looks: list[float] = []

    def look() -> Look:
        clock.advance(1.0)
        looks.append(clock.now())
        return Machine.look(machine)

    machine.look = look  # type: ignore[method-assign]
    meter.machine = machine
    with meter, meter.window() as window:
        clock.advance(3.0)
    assert looks == [1.0, 5.0]
    assert (window.reading.duration_s, window.reading.energy_j) == (3.0, 180.0)


def test_the_trials_row_has_both_looks(world: World) -> None:
    clock = VirtualClock()
    meter = SyntheticMeter(60.0, clock)
    meter.machine = world.machine()
    with meter, meter.window() as window:
        clock.advance(2.0)
        world.load, world.mhz = 3.0, 1200.0
        world.spend(2.0, own=1.0, others=0.5)
    row = trial_row(
        Trial(
            trial_id="t", cell_id="c", variant="v", role="fixed", policy="fixed", block=0, prompts=("p",),
            prompt_ids=("1",), seeds=(1,), steps=(1,), nfe_per_image=1.0, image_count=1, iterations=1,
            reading=window.reading,
        )
    )  # fmt: skip
    names = ("load_before", "load_after", "cores", "others_cores", "steal_share", "cpu_mhz_before", "cpu_mhz_after")
    assert [row[name] for name in names] == [0.0, 3.0, 2, pytest.approx(0.5), 0.0, 2400.0, 1200.0]
    assert [said[:4] for said in row["warnings"]] == ["W264"]
