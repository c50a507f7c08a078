"""Any call that only describes a board may fail, in any way: what it would have told is absent, with NVML's reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perjoule.cli import main
from perjoule.meters.nvml import describe_gpus, describe_nvml, open_nvml, visible_gpus
from perjoule.meters.nvml_device import NvmlDevice, ask
from perjoule.runs.environment import system_of
from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard, VirtualClock
from perjoule.testing import nvml_simulator as module
from perjoule.text import board_digest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(module.compiler() is None, reason="no C compiler")]

CODES = {"NOT_SUPPORTED": 3, "NO_PERMISSION": 4, "GPU_IS_LOST": 15, "UNKNOWN": 999}
DESCRIPTIONS = (
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetMigMode",
)
BOARD = SimulatedBoard(model="NVIDIA Big", wave=ConstantPower(200.0), counter_period_s=0.02, memory_total_bytes=8 << 30)
UNREADABLE = "Tarjeta gr\udce1fica"  # Latin-1 bytes, as some drivers under WSL2 answer


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[NvmlSimulator, Any]]:
    with NvmlSimulator([BOARD], tmp_path, virtual=True) as simulator:
        yield simulator, simulator.load()


@pytest.fixture
def real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The binding on a board that lives in real time, for the commands."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with NvmlSimulator([BOARD], tmp_path) as simulator:
        yield simulator.load()


def failing(nvml: Any, code: int) -> Callable[..., Any]:
    def fail(*args: Any) -> Any:
        raise nvml.NVMLError(code)

    return fail


def use(simulator: NvmlSimulator, nvml: Any) -> Any:
    """Everything that asks a board for anything; returns the facts."""
    with open_nvml(nvml=nvml, clock=simulator, environ={}) as meter:
        with meter.window() as window:
            simulator.advance(1.0)
        reading = window.reading
        assert reading.energy_j == pytest.approx(200.0, rel=0.01)
        assert reading.device == meter.facts[0].model
        assert system_of(meter)["device"] == [reading.device]
        assert json.dumps(system_of(meter), allow_nan=False)
        return meter.facts[0]


def test_every_description_that_is_asked_for_is_in_the_list(board: tuple[NvmlSimulator, Any]) -> None:
    simulator, nvml = board
    facts = use(simulator, nvml)
    assert facts.absent == ()
    assert (facts.model, facts.driver, facts.limit_w) == ("NVIDIA Big", "580.65.06", 400.0)
    needed = {"nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"}
    needed |= {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"}
    asked = {name.removesuffix("_v2").removesuffix("_v3") for name in simulator.call_counts()}
    assert asked - needed == set(DESCRIPTIONS)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_each_description_in_turn_fails_in_each_way(
    board: tuple[NvmlSimulator, Any], name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, nvml = board
    monkeypatch.setattr(nvml, name, failing(nvml, code))
    facts = use(simulator, nvml)
    if name == "nvmlDeviceGetUUID":
        assert facts.digest == "index-0"
    elif name == "nvmlDeviceGetName":
        assert facts.model == "unknown"
    else:
        assert [reason.split(":")[0] for reason in facts.absent] == [name]
        assert f"NVML code {code}" in facts.absent[0]
    monkeypatch.setattr("perjoule.meters.nvml.SystemClock", lambda: simulator)
    (row,) = describe_gpus(nvml)
    absent = {"name": "nvmlDeviceGetName", "driver": "nvmlSystemGetDriverVersion"}
    absent |= {"memory_bytes": "nvmlDeviceGetMemoryInfo", "power_limit_w": "nvmlDeviceGetEnforcedPowerLimit"}
    assert {key for key, value in row.items() if value is None} == {k for k, call in absent.items() if call == name}
    assert describe_nvml(nvml)
    assert visible_gpus({}, nvml) == (("unknown",) if name == "nvmlDeviceGetName" else ("NVIDIA Big",))


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xe1", 0, 1, "no"), OSError(5, "no"), ValueError("no")]
)
def test_whatever_a_binding_raises(
    board: tuple[NvmlSimulator, Any], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, nvml = board

    def fail(*args: Any) -> Any:
        raise error

    for name in DESCRIPTIONS[2:]:
        monkeypatch.setattr(nvml, name, fail)
    facts = use(simulator, nvml)
    assert len(facts.absent) == len(DESCRIPTIONS) - 3  # the name is asked for when boards are listed
    assert facts.conditions.temperature_c == (None, None)


def test_answers_that_make_no_sense(board: tuple[NvmlSimulator, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, nvml = board
    for name in DESCRIPTIONS[3:]:
        monkeypatch.setattr(nvml, name, lambda *args: object())
    assert len(use(simulator, nvml).absent) == len(DESCRIPTIONS) - 3


def test_a_binding_that_lacks_a_call() -> None:
    answer = ask(object(), VirtualClock(), "nvmlDeviceGetMemoryInfo", take=int)
    assert (answer.value, answer.reason) == (None, "nvmlDeviceGetMemoryInfo: this binding does not have it")


def test_a_name_that_is_not_utf_8_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    with NvmlSimulator([SimulatedBoard(model=UNREADABLE, wave=ConstantPower(200.0))], tmp_path, virtual=True) as one:
        facts = use(one, one.load())
    assert facts.model == "Tarjeta gr�fica"


def test_a_board_that_gives_no_handle_leaves_the_others_alone(tmp_path: Path) -> None:
    boards = [SimulatedBoard(lost_at_s=0.0), SimulatedBoard(model="NVIDIA Well", wave=ConstantPower(200.0))]
    with NvmlSimulator(boards, tmp_path, virtual=True) as simulator:
        nvml = simulator.load()
        found = describe_nvml(nvml)
        assert [(one.uuid != "", one.model) for one in found] == [(False, ""), (True, "NVIDIA Well")]
        with open_nvml(simulator.boards[1].uuid, nvml=nvml, clock=simulator, environ={}) as meter:
            assert meter.device is not None
            assert meter.device.name == "NVIDIA Well"


def test_what_answers_again_is_absent_no_more(board: tuple[NvmlSimulator, Any]) -> None:
    simulator, nvml = board
    nvml.nvmlInit()
    device = NvmlDevice(nvml, describe_nvml(nvml)[0], simulator)
    simulator.change(0, unsupported=("temperature",))
    assert device.temperature_c() is None
    assert "Not Supported" in device.absent["nvmlDeviceGetTemperature"]
    simulator.change(0, unsupported=())
    assert device.temperature_c() == 50
    assert device.absent == {}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
@pytest.mark.parametrize("command", [("doctor",), ("measure", "--", "true"), ("list", "meters")])
def test_the_commands_do_without_all_of_them(
    real_time: Any, code: int, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in DESCRIPTIONS:
        monkeypatch.setattr(real_time, name, failing(real_time, code))
    monkeypatch.setattr("sys.argv", ["perjoule", *command])
    monkeypatch.setattr("perjoule.meters.doctor.TRIAL_LENGTHS_S", (0.1,))
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), err
    assert "Traceback" not in out + err
    assert "index-0" in out + err
    if command[0] == "doctor":
        assert out.count("not reported by the board: nvmlDeviceGetMemoryInfo") == 1


@pytest.mark.parametrize("selector", ["uuid", "prefix", "digest", "half a digest"])
def test_a_board_is_chosen_by_its_uuid_or_by_the_digest_that_records_hold(
    board: tuple[NvmlSimulator, Any], selector: str
) -> None:
    simulator, nvml = board
    uuid = simulator.boards[0].uuid
    digest = board_digest(uuid)
    names = {"uuid": uuid, "prefix": uuid[4:12], "digest": digest, "half a digest": digest[:10]}
    with open_nvml(names[selector], nvml=nvml, clock=simulator, environ={}) as meter:
        assert meter.name == f"nvml:{digest}"
        assert uuid not in meter.why + meter.method
