from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import MeterError
from perjoule.meters.base import Fault
from perjoule.meters.rapl import Domain, RaplMeter, find_domains
from perjoule.testing import VirtualClock

RANGE_UJ = 262_143_328_850
REFRESH_S = 0.01  # ten times as long as on real machines: each refresh costs a write to disk here


class FakeSysfs:
    """A powercap tree whose counters move every REFRESH_S of virtual time."""

    def __init__(self, root: Path, clock: VirtualClock, start_uj: int = 1_000_000) -> None:
        self.root, self.clock = root, clock
        self.power_w: dict[str, float] = {}
        self._uj: dict[str, float] = {}
        self._start_uj = start_uj
        clock.every(REFRESH_S, self._refresh)

    def add(self, folder: str, name: str, power_w: float) -> None:
        path = self.root / folder
        path.mkdir(parents=True)
        (path / "name").write_text(name + "\n")
        (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        self.power_w[folder], self._uj[folder] = power_w, float(self._start_uj)
        self._write(folder)

    def _refresh(self) -> None:
        for folder, power_w in self.power_w.items():
            self._uj[folder] = (self._uj[folder] + power_w * 1e6 * REFRESH_S) % RANGE_UJ
            self._write(folder)

    def _write(self, folder: str) -> None:
        (self.root / folder / "energy_uj").write_text(f"{int(self._uj[folder])}\n")

    def reset(self, folder: str) -> None:
        self._uj[folder] = 0.0


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def sysfs(tmp_path: Path, clock: VirtualClock) -> FakeSysfs:
    tree = FakeSysfs(tmp_path, clock)
    tree.add("intel-rapl:0", "package-0", 80.0)
    tree.add("intel-rapl:0:0", "core", 70.0)
    tree.add("intel-rapl:0:1", "dram", 9.0)
    tree.add("intel-rapl:1", "psys", 200.0)
    tree.add("intel-rapl-mmio:0", "package-0", 80.0)
    return tree


def test_packages_and_memory_are_summed_and_nothing_twice(sysfs: FakeSysfs, clock: VirtualClock) -> None:
    with RaplMeter(sysfs.root, clock) as meter:
        assert meter.learn_idle(0.2) == pytest.approx(89.0, rel=0.06)
        with meter.window() as window:
            clock.advance(0.3345)
    reading = window.reading
    assert reading.energy_j is not None
    assert reading.uncertainty_j is not None
    assert abs(reading.energy_j - 89.0 * 0.3345) <= reading.uncertainty_j < 2.5
    assert (reading.boundary, reading.provenance) == ("cpu-package+dram", "measured")
    assert reading.net_energy_j == pytest.approx(0.0, abs=2.5)
    assert reading.method.startswith("rapl package-0+dram")


def test_without_memory_the_boundary_says_so(tmp_path: Path, clock: VirtualClock) -> None:
    tree = FakeSysfs(tmp_path, clock)
    tree.add("intel-rapl:0", "package-0", 80.0)
    tree.add("intel-rapl:1", "package-1", 40.0)
    with RaplMeter(tree.root, clock) as meter, meter.window() as window:
        clock.advance(0.5)
    assert window.reading.boundary == "cpu-package"
    assert window.reading.energy_j == pytest.approx(60.0, rel=0.01)


def test_a_counter_that_wraps_inside_a_window(tmp_path: Path, clock: VirtualClock) -> None:
    tree = FakeSysfs(tmp_path, clock, start_uj=RANGE_UJ - 20_000_000)  # 20 J before its end
    tree.add("intel-rapl:0", "package-0", 100.0)
    with RaplMeter(tree.root, clock) as meter, meter.window() as window:
        clock.advance(0.6)
    assert window.reading.energy_j == pytest.approx(60.0, rel=0.01)
    assert window.reading.warnings == ()


@given(
    first_j=st.floats(0, 262_000),
    power_w=st.floats(1, 400),
    duration_s=st.floats(0.01, 1000),
    wraps_at_j=st.just(262_143.3),
)
def test_any_single_wrap_is_undone_or_refused(
    first_j: float, power_w: float, duration_s: float, wraps_at_j: float
) -> None:
    domain = Domain(name="package-0", file=Path("x"), wraps_at_j=wraps_at_j)
    truth_j = power_w * duration_s
    last_j = (first_j + truth_j) % wraps_at_j
    if truth_j % wraps_at_j + wraps_at_j <= 500 * duration_s:  # a socket of 500 W could have gone round once more
        with pytest.raises(Fault) as caught:
            domain.between_j(first_j, last_j, duration_s)
        assert caught.value.warning.startswith("W221")
    else:
        assert domain.between_j(first_j, last_j, duration_s) == pytest.approx(truth_j, abs=1e-6)


def test_a_reset_counter_is_no_energy(tmp_path: Path, clock: VirtualClock) -> None:
    """It looks like one that went round, but from 50 kJ to the end at 262 kJ in 0.4 s would take half a megawatt."""
    tree = FakeSysfs(tmp_path, clock, start_uj=50_000_000_000)
    tree.add("intel-rapl:0", "package-0", 80.0)
    with RaplMeter(tree.root, clock) as meter, meter.window() as window:
        clock.advance(0.2)
        tree.reset("intel-rapl:0")
        clock.advance(0.2)
    assert window.reading.energy_j is None
    assert window.reading.warnings[0].startswith("W210")


def test_a_file_that_goes_away_is_no_energy_and_no_error(sysfs: FakeSysfs, clock: VirtualClock) -> None:
    with RaplMeter(sysfs.root, clock) as meter:
        with meter.window() as window:
            clock.advance(0.2)
            sysfs.power_w.clear()
            (sysfs.root / "intel-rapl:0:1" / "energy_uj").unlink()
        assert window.reading.energy_j is None
        assert window.reading.warnings[0].startswith("W220")
        assert meter.learn_idle(0.1) is None


def test_dead_counters_of_a_virtual_machine_are_refused(sysfs: FakeSysfs, clock: VirtualClock) -> None:
    sysfs.power_w.clear()
    with pytest.raises(MeterError, match=r"intel-rapl:0/energy_uj does not count"):
        RaplMeter(sysfs.root, clock)


def test_no_powercap_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="bare metal"):
        find_domains(tmp_path / "absent")


def test_root_only_files_are_named_with_the_remedy(sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def refuse(path: Path, *args: Any, **more: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(MeterError) as caught:
        find_domains(sysfs.root)
    text = str(caught.value)
    assert "intel-rapl:0/energy_uj" in text
    assert "chmod a+r" in text
    assert "udev" in text


def test_a_told_limit_sets_what_a_domain_can_draw(sysfs: FakeSysfs) -> None:
    (sysfs.root / "intel-rapl:0" / "constraint_0_max_power_uw").write_text("65000000\n")
    assert [domain.most_w for domain in find_domains(sysfs.root)] == [130.0, 500.0]
