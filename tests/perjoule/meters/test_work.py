from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.work import PROFILE
from torch import nn

from perjoule.errors import MeterError
from perjoule.meters import list_meters, machine_profile, open_meter
from perjoule.meters.estimate import PowerModel
from perjoule.meters.work import WorkMeter, choose_profile
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.types import EnergyReading
from perjoule.work.profile import WorkProfile, write_profile


def reading_of(layer: nn.Module, *inputs: torch.Tensor, profile: WorkProfile = PROFILE) -> EnergyReading:
    with WorkMeter(profile) as meter, meter.window() as window:
        for x in inputs:
            layer(x)
    return window.reading


def test_a_window_has_the_joules_of_its_calls() -> None:
    layer = nn.Linear(4, 4)
    one, three = reading_of(layer, torch.zeros(2, 4)), reading_of(layer, *[torch.zeros(2, 4)] * 3)
    assert one.work is not None
    assert one.energy_j == PROFILE.energy_j(one.work) > 0
    assert three.energy_j == pytest.approx(3 * one.energy_j)
    assert (one.provenance, one.boundary, one.idle_power_w, one.net_energy_j) == ("estimated", "estimate", None, None)
    assert one.method.startswith("counted work, profile 'one' (Fake, float32; as stated; ")
    assert one.device == "Fake (profile)"
    assert not one.warnings


def test_joules_do_not_depend_on_time() -> None:
    layer, x = nn.Linear(4, 4), torch.zeros(2, 4)
    energies = []
    for pause_s in (0.0, 100.0):
        clock = VirtualClock()
        with WorkMeter(PROFILE, clock) as meter, meter.window() as window:
            layer(x)
            clock.advance(pause_s)
        energies.append(window.reading.energy_j)
    assert energies[0] == energies[1]


def test_a_window_without_networks_has_no_joules() -> None:
    with WorkMeter(PROFILE) as meter, meter.window() as window:
        torch.zeros(2, 2) @ torch.zeros(2, 2)
    assert window.reading.energy_j is None
    assert window.reading.warnings == ("W233: no network of torch was called in this process",)


def test_work_on_another_device_has_no_joules() -> None:
    class Elsewhere(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x.T

    reading = reading_of(Elsewhere(), torch.zeros(2, 4), profile=replace(PROFILE, device="cuda"))
    assert reading.energy_j is None
    assert reading.warnings[0].startswith("W234: the profile 'one' is for cuda, the work was done on cpu")


def test_another_dtype_is_said() -> None:
    reading = reading_of(nn.Linear(4, 4).double(), torch.zeros(2, 4).double())
    assert reading.energy_j is not None
    assert reading.uncertainty_j == pytest.approx(reading.energy_j * (4 * 1.5 - 1))
    assert reading.warnings == ("W236: the work was done in float64, the profile is for float32",)


def test_an_error_in_the_window_leaves_torch_as_it_was() -> None:
    original = nn.Module.__call__
    with WorkMeter(PROFILE) as meter, pytest.raises(RuntimeError), meter.window():
        nn.Linear(2, 2)(torch.zeros(1, 3))
    assert nn.Module.__call__ is original


def test_other_meters_count_new_work_after_their_windows() -> None:
    clock = VirtualClock()

    class Timed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            clock.advance(1.0)
            return x @ x.T

    network, x = Timed().eval(), torch.zeros(2, 4)
    readings = []
    for _ in range(2):
        with SyntheticMeter(1.0, clock) as meter, meter.window() as window:
            network(x)
        readings.append(window.reading)
    assert [one.work for one in readings] == [reading_of(network, x).work] * 2
    assert [one.duration_s for one in readings] == [pytest.approx(1.0)] * 2


def test_profiles_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    write_profile(PROFILE, file)
    with open_meter(f"work:{file}") as meter:
        assert meter.name == f"work:{file}"
    with open_meter("work:cpu") as meter:
        assert meter.name == "work:cpu"
    with pytest.raises(MeterError, match=r"no profile 'absent': .*cpu.*machine, or a file"):
        choose_profile("absent")


def test_without_torch_the_reason_and_the_remedy_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perjoule.meters.work.find_spec", lambda name: None)
    for name in ("work", "work:cpu"):
        with pytest.raises(MeterError, match=r"torch is missing.*pip install"):
            open_meter(name)
    (listed,) = (info for info in list_meters() if info.name == "work")
    assert (listed.available, "torch is missing" in listed.why) == (False, True)


def test_a_gpu_without_a_profile_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Unheard-of")
    with pytest.raises(MeterError, match=r"no profile for NVIDIA Unheard-of; .*perjoule calibrate --work RUN"):
        choose_profile()


@pytest.mark.parametrize(
    ("board", "profile"), [("NVIDIA A100-SXM4-40GB", "a100-40gb"), ("NVIDIA H100 80GB HBM3", "h100")]
)
def test_a_board_with_published_joules_has_a_profile(monkeypatch: pytest.MonkeyPatch, board: str, profile: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: board)
    chosen = choose_profile()
    assert (chosen.name, chosen.device_model, chosen.boundary) == (profile, board, "gpu-board")


@pytest.mark.slow
def test_the_profile_of_this_machine_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PowerModel(cpu_model="Fake", tdp_w=100.0, generic_tdp=False, cpu_count=4, ram_w=10.0, version="0")
    monkeypatch.setattr(machine_profile, "codecarbon_model", lambda: model)
    monkeypatch.setattr(machine_profile, "REPEATS", 2)
    monkeypatch.setattr(machine_profile, "WIDTHS", ((16, 32), (32, 32, 16)))
    first = choose_profile("machine")
    monkeypatch.setattr(machine_profile, "fit_machine", lambda: pytest.fail("fitted again"))
    assert choose_profile("machine") == first
    reading = reading_of(nn.Linear(256, 256), torch.zeros(64, 256), profile=first)
    assert reading.energy_j is not None
    assert reading.energy_j > 0


def test_a_busy_machine_does_not_disturb_counted_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    from perjoule.meters import base
    from perjoule.types import MachineLoad

    busy = MachineLoad(load=(99.0, 99.0), cores=2)
    monkeypatch.setattr(base, "between", lambda *_: (busy, ("W264: the load average was 99",)))
    reading = reading_of(nn.Linear(4, 4), torch.zeros(2, 4))
    assert (reading.machine, reading.warnings) == (busy, ())
