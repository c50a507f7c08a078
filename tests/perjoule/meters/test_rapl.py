from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.powercap import RANGE_UJ, FakeSysfs

from perjoule.errors import MeterError
from perjoule.meters.base import Fault
from perjoule.meters.rapl import Domain, RaplMeter, find_domains
from perjoule.testing import VirtualClock


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
        tree.set("intel-rapl:0", 0.0)
        clock.advance(0.2)
    assert window.reading.energy_j is None
    assert window.reading.warnings[0].startswith("W210")


def test_a_counter_that_is_reset_soon_after_it_started_from_zero_is_no_energy(
    tmp_path: Path, clock: VirtualClock
) -> None:
    """From 41 J to 0 and on to 45 J: a plain difference of 4 J, and 80 W of rest."""
    tree = FakeSysfs(tmp_path, clock, start_uj=1_000_000)
    tree.add("intel-rapl:0", "package-0", 80.0)
    with RaplMeter(tree.root, clock) as meter:
        assert meter.learn_idle(0.4) == pytest.approx(80.0, rel=0.03)
        with meter.window() as window:
            clock.advance(0.05)
            tree.set("intel-rapl:0", 0.0)
            clock.advance(0.56)
    assert window.reading.energy_j is None
    assert window.reading.warnings[0].startswith("W213")


def test_a_reset_that_looks_like_a_wrap_stays_within_what_the_domain_can_draw(
    tmp_path: Path, clock: VirtualClock
) -> None:
    """Some 12 J before its end, nobody can tell one from the other; the energy is wrong by these few J at most."""
    tree = FakeSysfs(tmp_path, clock, start_uj=RANGE_UJ - 26_000_000)
    tree.add("intel-rapl:0", "package-0", 80.0)
    with RaplMeter(tree.root, clock) as meter, meter.window() as window:
        clock.advance(0.05)
        tree.set("intel-rapl:0", 0.0)
        clock.advance(0.5)
    assert window.reading.energy_j == pytest.approx(44.0, abs=14.0)


def test_windows_may_be_longer_than_a_counter_lasts(tmp_path: Path, clock: VirtualClock) -> None:
    """A counter of 100 J at 80 W goes round every 1.25 s; over 6 s of unwatched time that would be anyone's guess."""
    tree = FakeSysfs(tmp_path, clock, refresh_s=0.05)
    tree.add("intel-rapl:0", "package-0", 80.0)
    (tree.root / "intel-rapl:0" / "constraint_0_max_power_uw").write_text("45000000\n")
    (tree.root / "intel-rapl:0" / "max_energy_range_uj").write_text("100000000\n")
    tree.range_uj = 100_000_000
    with RaplMeter(tree.root, clock) as meter, meter.window() as window:
        clock.advance(6.3)
    assert window.reading.energy_j == pytest.approx(6.3 * 80, abs=80 * 0.05 * 1.01)
    assert window.reading.warnings == ()


def test_a_domain_that_goes_away_takes_no_more_than_a_second_along(tmp_path: Path, clock: VirtualClock) -> None:
    tree = FakeSysfs(tmp_path, clock, refresh_s=0.05)
    tree.add("intel-rapl:0", "package-0", 80.0)
    tree.add("intel-rapl:0:1", "dram", 9.0)
    with RaplMeter(tree.root, clock) as meter, meter.window() as window:
        clock.advance(2.5)
        tree.power_w.pop("intel-rapl:0:1")
        (tree.root / "intel-rapl:0:1" / "energy_uj").unlink()
        clock.advance(2.5)
    reading = window.reading
    assert (reading.energy_j, reading.uncertainty_j) == (None, None)
    assert reading.warnings[0].startswith("W220")
    assert "intel-rapl:0:1/energy_uj" in reading.warnings[0]
    assert reading.partial_s == pytest.approx(2.0, abs=0.01)
    assert reading.partial_energy_j == pytest.approx(2.0 * 89.0, abs=89.0 * 0.06)


def test_memory_that_stands_still_is_left_out_and_a_package_is_not(sysfs: FakeSysfs, clock: VirtualClock) -> None:
    sysfs.power_w["intel-rapl:0:1"] = 0.0
    with RaplMeter(sysfs.root, clock) as meter, meter.window() as window:
        clock.advance(0.5)
    assert window.reading.boundary == "cpu-package"
    assert window.reading.energy_j == pytest.approx(40.0, abs=1.0)
    assert "intel-rapl:0:1/energy_uj does not change, so memory is left out" in meter.why
    sysfs.add("intel-rapl:2", "package-1", 0.0)
    with pytest.raises(MeterError, match=r"intel-rapl:2/energy_uj does not count \(it stayed at 1\.000 J\)"):
        RaplMeter(sysfs.root, clock)


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
