"""NVIDIA boards through NVML: probes which sources a board supports and uses the best.

    energy counter ──► CounterMeter            nvmlDeviceGetTotalEnergyConsumption
         │ not supported, or it does not move
    instant power ───► PowerMeter, 0.1 s       field 186, scope GPU, then MODULE
         │ not supported
    average power ───► PowerMeter, 1 s         field 185, then nvmlDeviceGetPowerUsage
         │ not supported
    sample buffer ───► PowerMeter, 1 s         nvmlDeviceGetSamples

The choice does not depend on the architecture, because drivers of one architecture support different sources.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock, SystemClock
from perjoule.meters.conditions import ConditionsRecorder
from perjoule.meters.context import create_context
from perjoule.meters.counter import CounterMeter
from perjoule.meters.known import recall
from perjoule.meters.lag import Lag
from perjoule.meters.nvml_device import ALL, Board, NvmlDevice, choose_boards, list_boards, retried
from perjoule.meters.nvml_probe import ProbedBoard, probe
from perjoule.meters.power import PowerMeter
from perjoule.meters.watched import CounterSource
from perjoule.types import Boundary
from perjoule.warnings import warning

NO_PERMISSION = 4  # NVML_ERROR_NO_PERMISSION


def open_nvml(
    selector: str = "",
    *,
    nvml: Any = None,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    chance: random.Random | None = None,
) -> BaseMeter[Any]:
    """Open the best meter of one or several boards.

    Args:
        selector: UUIDs, labels (`board-…`) or prefixes, separated by commas; `all` selects the boards visible to CUDA,
            an empty selector the first of them.
        nvml: A binding with pynvml's functions; imported if None.
        clock: The clock; the system's monotonic clock if None.
        environ: Environment with CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER.
        chance: Random numbers of an energy counter's windows and tests, for repeatable ones.

    Raises:
        MeterError: There is no binding, no driver or no such board, or the board reports neither energy nor power.
    """
    clock = clock or SystemClock()
    environ = os.environ if environ is None else environ
    if nvml is None:
        create_context()  # before idle power is measured
    nvml = start_nvml(nvml, clock)
    try:
        boards = _list(nvml, clock)
        choice = choose_boards(boards, selector, environ.get("CUDA_VISIBLE_DEVICES"), environ.get("CUDA_DEVICE_ORDER"))
        try:
            probed = [probe(NvmlDevice(nvml, board, clock)) for board in choice.boards]
            return _open_boards(probed, choice.note, clock, chance, on_close=lambda: _shutdown(nvml))
        except Fault as fault:
            raise MeterError(f"nvml: {fault}") from fault
    except BaseException:
        _shutdown(nvml)
        raise


def describe_nvml(nvml: Any = None) -> list[Board]:
    """Return all boards, without opening a meter. Raises MeterError."""
    clock = SystemClock()
    nvml = start_nvml(nvml, clock)
    try:
        return _list(nvml, clock)
    finally:
        _shutdown(nvml)


def describe_gpus(nvml: Any = None) -> list[dict[str, Any]]:
    """Return name, digest, driver, memory, power limit and modes of each NVIDIA GPU of the host.

    Empty without a driver. Values that a board does not report are None.
    """
    clock = SystemClock()
    try:
        nvml = start_nvml(nvml, clock)
    except MeterError:
        return []
    try:
        return [_described(nvml, board, clock) for board in _list(nvml, clock)]
    except MeterError:
        return []
    finally:
        _shutdown(nvml)


def _described(nvml: Any, board: Board, clock: Clock) -> dict[str, Any]:
    found: dict[str, Any] = {"name": board.model or None, "digest": board.label}
    try:
        device = NvmlDevice(nvml, board, clock)
    except Fault:
        return found | dict.fromkeys(_DESCRIPTIONS)
    driver = device.driver()
    values = (
        None if driver == "unknown" else driver,
        device.memory_total_bytes(),
        device.limit_w(),
        device.ecc(),
        device.persistence_mode(),
        device.max_sm_clock_mhz(),
    )
    return found | dict(zip(_DESCRIPTIONS, values, strict=True))


_DESCRIPTIONS = ("driver", "memory_bytes", "power_limit_w", "ecc", "persistence_mode", "max_sm_clock_mhz")


def visible_gpus(environ: Mapping[str, str] | None = None, nvml: Any = None) -> tuple[str, ...]:
    """Return the models of the NVIDIA GPUs that CUDA shows to this process; empty without a driver."""
    try:
        boards = describe_nvml(nvml)
    except MeterError:
        return ()
    visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    try:
        chosen = choose_boards(boards, ALL, visible).boards
    except MeterError:  # no GPU is visible, or a MIG slice, for which NVML does not report its board here
        chosen = tuple(boards) if visible and visible.strip().upper().startswith("MIG") else ()
    return tuple(board.model or "unknown" for board in chosen)


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
    # Three packages install a module named pynvml; only NVIDIA's has the field calls.
    if not hasattr(nvml, "nvmlDeviceGetFieldValues"):
        where = getattr(nvml, "__file__", "?")
        raise MeterError(f"nvml: {where} is not NVIDIA's binding; uninstall pynvml and install nvidia-ml-py")
    try:
        retried(nvml, clock, "nvmlInit", nvml.nvmlInit)
    except Fault as fault:
        remedy = "install the NVIDIA driver, or pass the GPU into the container"
        if fault.code == NO_PERMISSION:
            remedy = "this user may not open the device files: check the permissions of /dev/nvidia*"
        raise MeterError(f"nvml: NVML does not start: {fault}; {remedy}") from fault
    return nvml


def _open_boards(
    boards: Sequence[ProbedBoard],
    note: str,
    clock: Clock,
    chance: random.Random | None,
    on_close: Callable[[], None],
) -> BaseMeter[Any]:
    """Return the best meter that the boards support, with the reasons against better ones."""
    problem = "; ".join(board.no_counter for board in boards if board.no_counter)
    if not problem:
        try:
            return _counter_meter(boards, note, clock, chance, on_close)
        except MeterError as error:
            problem = str(error)
    if len(boards) > 1:
        raise MeterError(
            f"{_name(boards)}: several boards are measured together by their energy counters only ({problem}); "
            "measure the boards one by one"
        )
    return _power_meter(boards[0], note, clock, on_close, problem)


def _counter_meter(
    boards: Sequence[ProbedBoard],
    note: str,
    clock: Clock,
    chance: random.Random | None,
    on_close: Callable[[], None],
) -> CounterMeter:
    """Return the meter over the boards' energy counters. Raises MeterError if a counter does not change."""
    labels = ", ".join(f"{board.label} ({board.model})" for board in boards)
    words = " and ".join(sorted({board.counter_words for board in boards}))
    meter = CounterMeter(
        name=_name(boards),
        why=f"reads the energy counter of {labels}; {note}",
        source=f"nvml {words}, {', '.join(board.label for board in boards)}, driver {boards[0].driver}",
        counters=[
            CounterSource(
                device=board.label,
                read_j=board.read_j,
                read_w=board.power.read if board.power is not None and not board.power.averaging_s else None,
                read_both=board.read_both,
                limit_w=board.limit_w,
                recorder=ConditionsRecorder(board.label, board.device, clock),
            )
            for board in boards
            if board.read_j is not None
        ],
        clock=clock,
        boundary=_boundary(boards),
        notes=[said for board in boards for said in board.notes],
        on_close=on_close,
        chance=chance,
    )
    for watched in meter.boards:
        lag = recall(watched.source.device, "lag", Lag)
        if lag is not None:
            watched.following.set((lag.lag_s, lag.box_s))
    meter.facts = tuple(
        board.facts(clock, watched.period, watched.idle, watched.call_s)
        for board, watched in zip(boards, meter.boards, strict=True)
    )
    return meter


def _power_meter(
    board: ProbedBoard, note: str, clock: Clock, on_close: Callable[[], None], no_counter: str
) -> PowerMeter:
    """Return the meter of a board without a usable counter. Raises MeterError if it does not report power either."""
    power = board.power
    if power is None:
        raise MeterError(
            f"{_name([board])}: the board reports neither energy nor power ("
            f"{'; '.join([no_counter, *board.no_power])}); update the driver, or use --meter rapl or estimate"
        )
    notes = [*board.notes, warning("W203", f"no usable energy counter, {power.words} integrated instead")]
    if power.averaging_s:
        notes.append(warning("W204", f"{power.words} is, or may be, an average over 1 s"))
    meter = PowerMeter(
        name=_name([board]),
        why=f"integrates {power.words} of {board.label} ({board.model}; {note}), because {no_counter}",
        source=f"nvml {power.words}, {board.label}, driver {board.driver}",
        power=power,
        clock=clock,
        boundary=_boundary([board]),
        limit_w=board.limit_w,
        notes=notes,
        on_close=on_close,
    )
    meter.recorders = (ConditionsRecorder(board.label, board.device, clock),)
    meter.facts = (board.facts(clock, None, meter.idle),)
    return meter


def _name(boards: Sequence[ProbedBoard]) -> str:
    """Return the name that opens these boards; it uses digests instead of UUIDs, so it can be shared."""
    return f"nvml:{','.join(board.label for board in boards)}"


def _boundary(boards: Sequence[ProbedBoard]) -> Boundary:
    return "gpu-module" if any(board.is_module for board in boards) else "gpu-board"


def _shutdown(nvml: Any) -> None:
    """Call nvmlShutdown; errors of a driver that has disappeared are ignored."""
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return
