"""NVIDIA boards through NVML: probe what the board can do, take the best, say which.

    energy counter ──► CounterMeter            nvmlDeviceGetTotalEnergyConsumption
         │ not supported, or it does not move
    instant power ───► PowerMeter, 0.1 s       field 186, scope GPU, then MODULE
         │ not supported
    average power ───► PowerMeter, 1 s         field 185, then nvmlDeviceGetPowerUsage

Nothing is concluded from the architecture: what a board supports differs between drivers of one architecture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, BoardFacts, Fault
from perjoule.meters.clock import Clock, SystemClock
from perjoule.meters.conditions import ConditionsRecorder
from perjoule.meters.counter import CounterMeter, CounterSource
from perjoule.meters.nvml_device import (
    FIELD_POWER_AVERAGE,
    FIELD_POWER_INSTANT,
    FIELD_TOTAL_ENERGY,
    SCOPES,
    Board,
    NvmlDevice,
    choose_boards,
    list_boards,
    retried,
)
from perjoule.meters.power import PowerMeter, PowerSource
from perjoule.types import Boundary, IdlePower, UpdatePeriod
from perjoule.warnings_table import warning

NO_PERMISSION = 4  # NVML_ERROR_NO_PERMISSION
# NVML: "Ampere (except GA100) or newer: average over 1 s"; arXiv 2312.02741 measured the same.
AVERAGE_S = 1.0


def open_nvml(
    selector: str = "",
    *,
    nvml: Any = None,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
) -> BaseMeter[Any]:
    """Open the best meter of one or several boards.

    Args:
        selector: UUIDs or prefixes, separated by commas; `all` takes the boards that CUDA would see, empty the first of
            them.
        nvml: A binding with pynvml's functions; imported if None.
        clock: Time; the system's monotonic clock if None.
        environ: Where CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are looked up.

    Raises:
        MeterError: No binding, no driver, no such board, or a board that tells neither energy nor power.
    """
    clock = clock or SystemClock()
    environ = os.environ if environ is None else environ
    nvml = start_nvml(nvml, clock)
    try:
        boards = _list(nvml, clock)
        choice = choose_boards(boards, selector, environ.get("CUDA_VISIBLE_DEVICES"), environ.get("CUDA_DEVICE_ORDER"))
        try:
            devices = [NvmlDevice(nvml, board, clock) for board in choice.boards]
            return _open_devices(devices, choice.note, clock, on_close=lambda: _shutdown(nvml))
        except Fault as fault:
            raise MeterError(f"nvml: {fault}") from fault
    except BaseException:
        _shutdown(nvml)
        raise


def describe_nvml(nvml: Any = None) -> list[Board]:
    """The boards that are there, without opening a meter. Raises MeterError."""
    clock = SystemClock()
    nvml = start_nvml(nvml, clock)
    try:
        return _list(nvml, clock)
    finally:
        _shutdown(nvml)


def _list(nvml: Any, clock: Clock) -> list[Board]:
    try:
        return list_boards(nvml, clock)
    except Fault as fault:
        raise MeterError(f"nvml: the boards cannot be listed: {fault}; see `nvidia-smi -L`") from fault


def start_nvml(nvml: Any, clock: Clock) -> Any:
    """Import the binding if it is None, and nvmlInit. Raises MeterError with the remedy."""
    if nvml is None:
        try:
            nvml = import_module("pynvml")
        except ImportError as error:
            raise MeterError("nvml: the pynvml module is missing; install nvidia-ml-py") from error
    # Three packages install a module called pynvml; only NVIDIA's has the field calls.
    if not hasattr(nvml, "nvmlDeviceGetFieldValues"):
        where = getattr(nvml, "__file__", "?")
        raise MeterError(f"nvml: {where} is not NVIDIA's binding; uninstall pynvml and install nvidia-ml-py")
    try:
        retried(nvml, clock, "nvmlInit", nvml.nvmlInit)
    except Fault as fault:
        remedy = "install the NVIDIA driver, or pass the GPU into the container"
        if fault.code == NO_PERMISSION:
            remedy = "this user may not open the device files: see the rights of /dev/nvidia*"
        raise MeterError(f"nvml: NVML does not start: {fault}; {remedy}") from fault
    return nvml


def _open_devices(
    devices: Sequence[NvmlDevice], note: str, clock: Clock, on_close: Callable[[], None]
) -> BaseMeter[Any]:
    """The best meter that the boards support, with what was wrong with the better ones."""
    name = f"nvml:{','.join(device.board.uuid for device in devices)}"
    found = [_look_at(device) for device in devices]
    notes = [said for one in found for said in one.notes]
    driver = devices[0].driver()
    boundary: Boundary = "gpu-module" if any(_of_module(one.power) for one in found) else "gpu-board"
    # the PCI order in which NVML counts is not needed any more: from here on, boards are known by UUID
    labels = ", ".join(f"{device.board.uuid} ({device.board.model})" for device in devices)
    without = [device.board.uuid for device, one in zip(devices, found, strict=True) if one.counter is None]
    problem = "; ".join(one.no_counter for one in found if one.no_counter)
    if not without:
        counters = [
            CounterSource(
                device=device.board.uuid,
                read_j=one.counter.read,
                read_w=one.power.read if one.power is not None and not one.power.averaging_s else None,
                limit_w=one.limit_w,
                recorder=ConditionsRecorder(device.board.uuid, device, clock),
            )
            for device, one in zip(devices, found, strict=True)
            if one.counter is not None
        ]
        words = " and ".join(sorted({one.counter.words for one in found if one.counter is not None}))
        try:
            meter = CounterMeter(
                name=name,
                why=f"reads the energy counter of {labels}; {note}",
                source=f"nvml {words}, {', '.join(d.board.uuid for d in devices)}, driver {driver}",
                counters=counters,
                clock=clock,
                boundary=boundary,
                notes=notes,
                on_close=on_close,
            )
            meter.facts = tuple(
                _facts(device, one, driver, board.period, board.idle)
                for device, one, board in zip(devices, found, meter.boards, strict=True)
            )
            return meter
        except MeterError as error:
            problem = str(error)
    if len(devices) > 1:
        raise MeterError(
            f"{name}: several boards are measured together by their energy counters only ({problem}); "
            "measure the boards one by one"
        )
    return _open_power(devices[0], found[0], problem, note, driver, clock, on_close, name, boundary)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counter:
    """A readable energy counter."""

    words: str
    read: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What probing a board has found."""

    counter: _Counter | None
    no_counter: str
    power: PowerSource | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    limit_w: float | None
    mig: bool


def _look_at(device: NvmlDevice) -> _Found:
    counter, no_counter = _energy_counter(device)
    power, problems = _power_source(device)
    notes, mig = [], device.mig_enabled()
    if mig:
        notes.append(warning("W206", f"{device.board.uuid} is in MIG mode, other slices are counted too"))
    if _of_module(power):
        notes.append(warning("W205", "power is told for the whole module only, so the CPU is in it"))
    return _Found(
        counter=counter,
        no_counter=no_counter,
        power=power,
        problems=tuple(problems),
        notes=tuple(notes),
        limit_w=device.limit_w(),
        mig=mig,
    )


def _energy_counter(device: NvmlDevice) -> tuple[_Counter | None, str]:
    """The counter by the plain call or as a field value, and what was wrong where there is none."""
    problems = []
    for words, read in (
        ("energy counter", device.energy_j),
        (f"energy counter (field {FIELD_TOTAL_ENERGY}, scope GPU)", device.field_energy_j),
    ):
        try:
            read()
            return _Counter(words=words, read=read), ""
        except Fault as fault:
            problems.append(str(fault))
    return None, "; ".join(problems)


def _of_module(power: PowerSource | None) -> bool:
    return power is not None and power.scope == "MODULE"


def _facts(
    device: NvmlDevice, found: _Found, driver: str, period: UpdatePeriod | None, idle: IdlePower | None
) -> BoardFacts:
    recorder = ConditionsRecorder(device.board.uuid, device, SystemClock())
    recorder.begin()
    recorder.look()
    return BoardFacts(
        uuid=device.board.uuid,
        model=device.board.model,
        driver=driver,
        counter=found.counter.words if found.counter is not None and period is not None else None,
        period=period,
        idle=idle,
        limit_w=found.limit_w,
        power=found.power.words if found.power is not None else None,
        mig=found.mig,
        conditions=recorder.end()[0],
    )


def _open_power(
    device: NvmlDevice,
    found: _Found,
    no_counter: str,
    note: str,
    driver: str,
    clock: Clock,
    on_close: Callable[[], None],
    name: str,
    boundary: Boundary,
) -> PowerMeter:
    """The meter of a board without a usable counter. Raises MeterError if it tells no power either."""
    uuid, power = device.board.uuid, found.power
    if power is None:
        raise MeterError(
            f"{name}: the board tells neither energy nor power ({'; '.join([no_counter, *found.problems])}); "
            "update the driver, or use --meter rapl or estimate"
        )
    notes = [*found.notes, warning("W203", f"no usable energy counter, {power.words} integrated instead")]
    if power.averaging_s >= AVERAGE_S:
        notes.append(warning("W204", "the power reading is an average over 1 s"))
    meter = PowerMeter(
        name=name,
        why=f"integrates {power.words} of {uuid} ({device.board.model}; {note}), because {no_counter}",
        source=f"nvml {power.words}, {uuid}, driver {driver}",
        power=power,
        clock=clock,
        boundary=boundary,
        limit_w=found.limit_w,
        notes=notes,
        on_close=on_close,
    )
    meter.recorders = (ConditionsRecorder(uuid, device, clock),)
    meter.facts = (_facts(device, found, driver, None, meter.idle),)
    return meter


def _power_source(device: NvmlDevice) -> tuple[PowerSource | None, list[str]]:
    """The best power reading and what was wrong with those before it.

    PowerUsage counts as an average: whether it is one depends on board and driver, and taking an instant
    reading for an average costs a second of waiting, while the reverse loses up to 30 % of a one-second
    window.
    """

    def field(number: int, scope: int) -> Callable[[], float]:
        return lambda: device.field_power_w(number, scope)

    candidates = [
        PowerSource(
            words=f"{kind} power (field {number}, scope {SCOPES[scope]})",
            read=field(number, scope),
            averaging_s=averaging_s,
            scope=SCOPES[scope],
        )
        for number, kind, averaging_s in (
            (FIELD_POWER_INSTANT, "instant", 0.0),
            (FIELD_POWER_AVERAGE, "average", AVERAGE_S),
        )
        for scope in SCOPES
    ]
    candidates.insert(3, PowerSource(words="PowerUsage power", read=device.power_w, averaging_s=AVERAGE_S, scope="GPU"))
    problems: list[str] = []
    for candidate in candidates:
        try:
            if candidate.read() > 0:
                return candidate, problems
            problems.append(f"{candidate.words} answers 0 W")
        except Fault as fault:
            problems.append(str(fault))
    return None, problems


def _shutdown(nvml: Any) -> None:
    """nvmlShutdown; a driver that is gone has nothing left to shut down."""
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return
