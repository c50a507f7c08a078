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
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock, SystemClock
from perjoule.meters.counter import CounterMeter
from perjoule.meters.nvml_device import (
    FIELD_POWER_AVERAGE,
    FIELD_POWER_INSTANT,
    SCOPES,
    Board,
    NvmlDevice,
    choose_board,
    list_boards,
)
from perjoule.meters.power import PowerMeter, PowerSource, SamplerFactory, ThreadSampler
from perjoule.warnings_table import warning

# NVML: "Ampere (except GA100) or newer: average over 1 s"; arXiv 2312.02741 measured the same.
AVERAGE_S = 1.0


def open_nvml(
    selector: str = "",
    *,
    nvml: Any = None,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    sampler: SamplerFactory = ThreadSampler,
) -> BaseMeter[Any]:
    """Open the best meter of one board.

    Args:
        selector: UUID or prefix; empty takes the first board that CUDA would see.
        nvml: A binding with pynvml's functions; imported if None.
        clock: Time; the system's monotonic clock if None.
        environ: Where CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are looked up.
        sampler: How power is sampled in a window, where there is no counter.

    Raises:
        MeterError: No binding, no driver, no such board, or a board that tells neither energy nor power.
    """
    clock = clock or SystemClock()
    environ = os.environ if environ is None else environ
    nvml = start_nvml(nvml)
    try:
        try:
            boards = list_boards(nvml)
        except nvml.NVMLError as error:
            raise MeterError(f"nvml: the boards cannot be listed: {error}; see `nvidia-smi -L`") from error
        choice = choose_board(boards, selector, environ.get("CUDA_VISIBLE_DEVICES"), environ.get("CUDA_DEVICE_ORDER"))
        try:
            device = NvmlDevice(nvml, choice.board, clock)
        except Fault as fault:
            raise MeterError(f"nvml: {fault}") from fault
        return _probe(device, choice.note, clock, sampler, on_close=lambda: _shutdown(nvml))
    except BaseException:
        _shutdown(nvml)
        raise


def describe_nvml(nvml: Any = None) -> list[Board]:
    """The boards that are there, without opening a meter. Raises MeterError."""
    nvml = start_nvml(nvml)
    try:
        return list_boards(nvml)
    except nvml.NVMLError as error:
        raise MeterError(f"nvml: the boards cannot be listed: {error}; see `nvidia-smi -L`") from error
    finally:
        _shutdown(nvml)


def start_nvml(nvml: Any = None) -> Any:
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
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise MeterError(
            f"nvml: NVML does not start: {error}; install the NVIDIA driver, or pass the GPU into the container"
        ) from error
    return nvml


def _probe(
    device: NvmlDevice, note: str, clock: Clock, sampler: SamplerFactory, on_close: Callable[[], None]
) -> BaseMeter[Any]:
    """The best meter that the board supports, with what was wrong with the better ones."""
    uuid = device.board.uuid
    name, limit_w, driver = f"nvml:{uuid}", device.limit_w(), device.driver()
    notes: list[str] = []
    if device.mig_enabled():
        notes.append(warning("W206", f"{uuid} is in MIG mode, other slices are counted too"))
    power, problems = _power_source(device)
    if power is not None and power.scope == "MODULE":
        notes.append(warning("W205", "power is told for the whole module only, so the CPU is in it"))

    try:
        device.energy_j()
        return CounterMeter(
            name=name,
            why=f"reads the energy counter of {uuid} ({device.board.model}; {note})",
            source=f"nvml energy counter, {uuid}, driver {driver}",
            read=device.energy_j,
            clock=clock,
            limit_w=limit_w,
            notes=notes,
            on_close=on_close,
        )
    except (Fault, MeterError) as error:
        no_counter = str(error)

    if power is None:
        raise MeterError(
            f"{name}: the board tells neither energy nor power ({'; '.join([no_counter, *problems])}); "
            "update the driver, or use --meter rapl or estimate"
        )
    notes.append(warning("W203", f"no usable energy counter, {power.words} integrated instead"))
    if power.averaging_s >= AVERAGE_S:
        notes.append(warning("W204", "the power reading is an average over 1 s"))
    return PowerMeter(
        name=name,
        why=f"integrates {power.words} of {uuid} ({note}), because {no_counter}",
        source=f"nvml {power.words}, {uuid}, driver {driver}",
        power=power,
        clock=clock,
        limit_w=limit_w,
        notes=notes,
        on_close=on_close,
        sampler=sampler,
    )


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
