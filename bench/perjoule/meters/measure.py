"""Measures the energy of a command, as `time` measures its seconds.

     meter opened    window                               meter closed
    ─────────────┬──┬─ command starts … command ends ─┬──┬─────────────
                 └──┘ settle                          └──┘ settle

The command keeps its stdin, stdout and stderr, and receives the signals that are sent to perjoule; its exit code is
passed on. Whatever way it ends, the energy until then is reported.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from perjoule.display import bounded, duration, quantity
from perjoule.errors import CommandError, MeterError, UsageError
from perjoule.meters import open_meter
from perjoule.meters.carbon import Carbon, carbon
from perjoule.meters.conditions import totals
from perjoule.text import provenance_words
from perjoule.types import Boundary, Conditions, DeviceEnergy, EnergyReading, Provenance

if TYPE_CHECKING:  # importing it at run time would load numpy
    from perjoule.protocols import EnergyMeter

NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128  # as in shells
ENERGY_UNKNOWN = MeterError.exit_code
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEnergy:
    """A `DeviceEnergy` without its log, which of an hour has a hundred thousand readings: only runs store it."""

    device: str
    energy_j: float | None
    uncertainty_j: float | None
    idle_power_w: float | None
    power_ratio: float | None
    conditions: Conditions | None
    counter: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Energy and time of a command.

    Attributes:
        command: The command and its arguments.
        exit_code: Exit code as in a shell: 128 + N if signal N ended it.
        signal: Name of that signal, None if there was none.
        meter: Name of the meter.
        why: What it reads, and why it was chosen.
        energy_j: Gross energy from the start of the command to its end; None if unknown (`warnings` give the reason).
        uncertainty_j: Bound on the error of `energy_j`.
        net_energy_j: Gross energy minus that of the device at rest.
        idle_power_w: Power at rest.
        partial_energy_j: Energy counted until the source failed, if `energy_j` is None.
        partial_s: Seconds that it covers.
        duration_s: Time from start to end.
        boundary: The part of the system that the energy covers.
        provenance: How the energy was obtained.
        method: Description of the source.
        peak_memory_bytes: Most memory in use on the boards; None if the source does not report it.
        utilisation: Mean share of time with a kernel running, 0 to 1; None if the source does not report it.
        warnings: Coded sentences; `perjoule explain CODE` explains them.
        boards: Each board's part and conditions.
        co2: Emissions, if a country was given.
    """

    command: tuple[str, ...]
    exit_code: int
    signal: str | None
    meter: str
    why: str
    energy_j: float | None
    uncertainty_j: float | None
    net_energy_j: float | None
    idle_power_w: float | None
    partial_energy_j: float | None
    partial_s: float | None
    duration_s: float
    boundary: Boundary
    provenance: Provenance
    method: str
    peak_memory_bytes: int | None
    utilisation: float | None
    warnings: tuple[str, ...]
    boards: tuple[BoardEnergy, ...]
    co2: Carbon | None

    @property
    def status(self) -> int:
        """Exit code of `perjoule measure`: the command's code, or 4 if that is 0 and the energy is unknown."""
        return ENERGY_UNKNOWN if self.exit_code == 0 and self.energy_j is None else self.exit_code


def measure(
    command: Sequence[str],
    meter_name: str = "auto",
    *,
    co2_country: str | None = None,
    stdout: IO[bytes] | int | None = None,
) -> Measurement:
    """Measure a command. Must be called from the main thread, because signals are passed on.

    All arguments are checked before the command is started.

    Args:
        command: Program and arguments.
        meter_name: Name as for `open_meter`.
        co2_country: ISO 3166-1 alpha-3 code; adds grams of CO2.
        stdout: Target of the command's stdout; None keeps the current one.

    Raises:
        CommandError: There is no such command, or it cannot be executed.
        UsageError: There is no command, the country or meter is unknown, or the meter cannot see commands.
        MeterError: The meter cannot be opened.
    """
    program = find_program(command)
    if meter_name.partition(":")[0] == "work":
        raise UsageError("measure: counted work sees networks of this process only, not those of a command")
    if co2_country is not None:
        carbon(0.0, co2_country)
    with open_meter(meter_name) as meter, _signals_passed_on() as passed_on, meter.window(label=program) as window:
        try:
            # close_fds is on by default, so the command does not inherit the meter's files
            process = subprocess.Popen(list(command), executable=program, stdout=stdout, preexec_fn=_ends_with_us())
        except OSError as error:
            raise CommandError(f"measure: {program} cannot be started: {error.strerror}", NOT_EXECUTABLE) from error
        passed_on(process)
        returned = process.wait()
    return _measurement(tuple(command), returned, meter, window.reading, co2_country)


def find_program(command: Sequence[str]) -> str:
    """Return the file of the command, from PATH if it has no slash. Raises UsageError and CommandError."""
    if not command or not command[0]:
        raise UsageError("measure: no command was given; write perjoule measure -- COMMAND")
    name = command[0]
    found = shutil.which(name)
    if found is not None:
        return found
    if os.sep not in name:
        raise CommandError(f"measure: {name!r} was not found on PATH; give the path of the program", NOT_FOUND)
    if not Path(name).exists():
        raise CommandError(f"measure: {name!r} does not exist", NOT_FOUND)
    what = "is a folder" if Path(name).is_dir() else "is not executable: allow it with chmod +x"
    raise CommandError(f"measure: {name!r} {what}", NOT_EXECUTABLE)


@contextmanager
def _signals_passed_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Pass signals on to the process that is given to the yielded function, including earlier signals.

    A terminal sends Ctrl-C to its whole foreground group: the command gets it directly, and perjoule only waits.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def handle(number: int, _: Any) -> None:
        if number == signal.SIGINT and _in_foreground():
            return
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    def pass_on(started: subprocess.Popen[bytes]) -> None:
        nonlocal process
        process = started
        for number in early:
            process.send_signal(number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield pass_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _ends_with_us() -> Callable[[], None] | None:
    """Return a function for the child: if perjoule is killed, the command gets SIGTERM and does not keep running."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # looked up before the fork: few calls are safe between fork and exec

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


def _measurement(
    command: tuple[str, ...], returned: int, meter: EnergyMeter, reading: EnergyReading, co2_country: str | None
) -> Measurement:
    known = co2_country is not None and reading.energy_j is not None
    whole = totals(reading)
    memory = whole["peak_memory_bytes"]
    return Measurement(
        command=command,
        exit_code=returned if returned >= 0 else BY_SIGNAL - returned,
        signal=signal.Signals(-returned).name if returned < 0 else None,
        meter=meter.name,
        why=meter.why,
        energy_j=reading.energy_j,
        uncertainty_j=reading.uncertainty_j,
        net_energy_j=reading.net_energy_j,
        idle_power_w=reading.idle_power_w,
        partial_energy_j=reading.partial_energy_j,
        partial_s=reading.partial_s,
        duration_s=reading.duration_s,
        boundary=reading.boundary,
        provenance=reading.provenance,
        method=reading.method,
        peak_memory_bytes=None if memory is None else int(memory),
        utilisation=whole["utilisation"],
        warnings=reading.warnings,
        boards=tuple(map(_without_log, reading.devices)),
        co2=carbon(reading.energy_j or 0.0, co2_country or "") if known else None,
    )


def _without_log(board: DeviceEnergy) -> BoardEnergy:
    names = [field.name for field in fields(BoardEnergy) if field.name != "counter"]
    return BoardEnergy(**{name: getattr(board, name) for name in names})


def as_text(measurement: Measurement) -> str:
    """Return the measurement as text, energy first."""
    one = measurement
    lines = [_ending(one)] if one.exit_code else []
    lines.append(f"{_joules(one)} in {duration(one.duration_s)}  [{one.boundary}, {provenance_words(one.provenance)}]")
    if one.net_energy_j is not None and one.idle_power_w is not None:
        lines.append(f"  net of rest at {quantity(one.idle_power_w, 'W')}: {quantity(one.net_energy_j, 'J', 4)}")
    if one.partial_energy_j is not None:
        counted = quantity(one.partial_energy_j, "J", 4)
        lines.append(f"  counted until the source failed after {duration(one.partial_s or 0.0)}: {counted}")
    lines.append(f"  by {one.method}")
    lines += [f"  {_conditions(board)}" for board in one.boards if board.conditions is not None]
    lines += [f"  {said}" for said in one.warnings]
    if one.co2 is not None:
        lines.append(f"  {one.co2.line()}")
    return "\n".join(lines)


def _ending(one: Measurement) -> str:
    if one.signal is not None:
        return f"{one.command[0]} was ended by {one.signal}; energy until then:"
    return f"{one.command[0]} exited with {one.exit_code}"


def _joules(one: Measurement) -> str:
    if one.energy_j is None:
        return "no energy (see the warnings)"
    return bounded(one.energy_j, one.uncertainty_j, "J")


def _conditions(board: BoardEnergy) -> str:
    """Return the conditions of a board as text."""
    found = board.conditions
    parts = []
    if found is not None and found.peak_memory_bytes is not None:
        parts.append(f"peak memory {found.peak_memory_bytes / 2**30:.2f} GiB")
    if found is not None and found.utilisation is not None:
        parts.append(f"utilisation {found.utilisation:.0%}")
    if found is not None and None not in found.temperature_c:
        parts.append(f"{found.temperature_c[0]} to {found.temperature_c[1]} °C")
    return f"{board.device}: {', '.join(parts) or 'no conditions reported'}"
