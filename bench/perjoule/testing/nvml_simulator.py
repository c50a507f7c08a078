"""Simulated NVML library: real binding, real structs, real or virtual time, and true energy in closed form.

simulator = NvmlSimulator([SimulatedBoard(wave=StepLog(start_w=60))], folder)
nvml = simulator.load()                         # this process's pynvml now sees the simulated board
begun_s = simulator.set_power(0, 300.0)
...
simulator.energy_j(0, begun_s, simulator.now())  # the truth, in J

The library is C (`nvml_simulator.c` in a checkout, not in the wheel), compiled by the C compiler when first needed.
Other processes see the same boards through `environment()`, by way of the dynamic linker. Tools that ask for the
`nvidia-smi` program before they look at NVML, as codecarbon does, find one there too. Linux only.

With `virtual=True` time advances only by the test's calls (`advance`, `sleep`), so that thousands of windows take
seconds. Virtual time is for one thread of one process: use `every` instead of other threads. Other processes see
virtual time, but sleep in real time.

A process that has loaded the simulator cannot load the machine's own NVML by name, because both have the same name for
the dynamic linker.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from perjoule.files import replacing
from perjoule.meters.clock import Cancel, SystemClock
from perjoule.testing.meter import ConstantPower, SquareWave, VirtualClock

SOURCE = Path(__file__).with_suffix(".c")
SONAME = "libnvidia-ml.so.1"
VARIABLE = "PERJOULE_NVML_SIMULATOR"
NEVER = float("inf")
# Some tools run this program before they use NVML (codecarbon: `nvidia-smi --help`).
SMI = """#!/bin/sh
if [ "$1" = --help ] || [ "$1" = -h ]; then
    echo "NVIDIA System Management Interface, simulated: supports only --help"
else
    echo "nvidia-smi: simulated, only --help is supported" >&2
    exit 1
fi
"""
VIRTUAL_START_S = 1000.0
VIRTUAL_WALL_S = 1.7e9  # wall-clock time of virtual second 0
HISTORY_S = 60.0  # time that the boards have run when a simulator starts, for sensors that average
FEATURES: Mapping[str, int] = MappingProxyType(
    {
        "energy": 1,
        "energy_field": 2,
        "instant": 4,
        "average": 8,
        "usage": 16,
        "samples": 32,
        "limit": 64,
        "utilisation": 128,
        "processes": 256,
        "clocks": 512,
        "mig": 1024,
        "temperature": 2048,
        "memory": 4096,
    }
)
_MAX_BOARDS, _MAX_STEPS, _MAX_PIDS, _MAX_SLICES = 16, 65_536, 16, 7
_FUNCTIONS, _LOG_LENGTH, _LOCK_BYTES, _NAME_BYTES = 128, 65_536, 128, 96
_WAVES = ("constant", "square", "bursts", "steps")
_FIXED = frozenset(
    {"uuid", "wave", "wave_phase_s", "seed", "noise_w", "noise_slot_s", "rise_s", "fall_s", "settle_w", "settle_s"}
)  # the true power


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """`high_w` for `burst_s` at a random place in every slot of `slot_s`, `low_w` otherwise."""

    low_w: float
    high_w: float
    burst_s: float
    slot_s: float
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLog:
    """The power last set with `NvmlSimulator.set_power`; `start_w` until then."""

    start_w: float = 60.0


Wave = ConstantPower | SquareWave | Bursts | StepLog
_RESTING = ConstantPower(60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBoard:
    """A simulated board. Times are absolute, on the simulator's clock, and `inf` means never.

    Attributes:
        uuid: UUID; generated from the board's index if empty.
        model: Name; lone surrogates represent bytes that are not UTF-8, as in `os.fsdecode`.
        wave: True power, never below 0.
        wave_phase_s: Time at which a square wave rises, or at which a slot of bursts begins.
        rise_s: Time in which power rises to a higher `set_power`, evenly.
        fall_s: Time in which it falls to a lower one, evenly.
        settle_w: Power above the lower one right after a fall; it decays exponentially.
        settle_s: Time constant of that decay.
        noise_w: Standard deviation of true power around the wave, constant over slots of `noise_slot_s`.
        gain: Gain of all sensors: reading divided by true value.
        seed: Seed of noise, jitter and errors.
        counter_period_s: Update period of the energy counter.
        counter_phase_s: Time of one of its updates.
        counter_jitter: Share of the period by which updates are displaced, from -half to +half of it.
        counter_duty: Share of each period that the counter sees and uses for all of it; 1 for a full integral.
        counter_lag_s: Age of the energy that the counter shows at an update.
        counter_box_s: Time over which power is averaged before the counter counts it; 0 for a counter that counts
            power as it is. The counter's energy is the same in the end.
        counter_start_j: Energy since the driver was loaded, when the simulator starts.
        power_period_s: Update period of the power readings.
        power_phase_s: Time of one of their updates.
        instant_window_s: Averaging time of an instant reading.
        average_window_s: Averaging time of an average reading.
        usage_is_instant: Whether nvmlDeviceGetPowerUsage is instant or average.
        sample_s: Interval of the driver's sample buffer of 120 entries; each is the mean since the previous one.
        limit_w: Enforced power limit, `limit_after_w` from `limit_change_s` on.
        unsupported: Unsupported ones of `FEATURES`, from `unsupported_from_s` on.
        lost_at_s: Time from which every call returns GPU_IS_LOST.
        reset_at_s: Time at which the counter starts again from 0.
        stuck_at_s: Time from which the counter does not change.
        unknown_rate: Share of calls that return UNKNOWN; `seed` determines which.
        too_fast_s: Power readings that are polled again within this time, by any process, return 0.
        throttle: nvmlClocksEventReason bits, from `throttle_from_s` until `throttle_until_s`.
        sm_clock_mhz: SM clock, `sm_clock_after_mhz` from `sm_clock_change_s` on.
        memory_bytes: Memory in use, `memory_after_bytes` from `memory_change_s` on.
        memory_total_bytes: Total memory.
        temperature_c: GPU temperature when the simulator starts.
        warming_c_per_s: Rate at which it rises.
        architecture: NVML_DEVICE_ARCH_*, 7 for Ampere; the compute capability follows.
        mig: Whether it is in MIG mode, with `mig_devices` slices, which have their own handles and UUIDs, but no power.
        module_only: Whether power is reported only for scope MODULE, as on Grace Hopper.
        pids: Compute processes on the board, from `pids_from_s` until `pids_until_s`.
    """

    uuid: str = ""
    model: str = "Simulated GPU"
    wave: Wave = _RESTING
    wave_phase_s: float = 0.0
    rise_s: float = 0.0
    fall_s: float = 0.0
    settle_w: float = 0.0
    settle_s: float = 1.0
    noise_w: float = 0.0
    noise_slot_s: float = 0.1
    gain: float = 1.0
    seed: int = 1
    counter_period_s: float = 0.1
    counter_phase_s: float = 0.013
    counter_jitter: float = 0.0
    counter_duty: float = 1.0
    counter_lag_s: float = 0.0
    counter_box_s: float = 0.0
    counter_start_j: float = 1e6
    power_period_s: float = 0.1
    power_phase_s: float = 0.037
    instant_window_s: float = 0.025
    average_window_s: float = 1.0
    usage_is_instant: bool = False
    sample_s: float = 0.02
    limit_w: float = 400.0
    limit_after_w: float = 400.0
    limit_change_s: float = NEVER
    unsupported: tuple[str, ...] = ()
    unsupported_from_s: float = 0.0
    lost_at_s: float = NEVER
    reset_at_s: float = NEVER
    stuck_at_s: float = NEVER
    unknown_rate: float = 0.0
    too_fast_s: float = 0.0
    throttle: int = 0
    throttle_from_s: float = 0.0
    throttle_until_s: float = NEVER
    sm_clock_mhz: int = 1980
    sm_clock_after_mhz: int = 1980
    sm_clock_change_s: float = NEVER
    memory_bytes: int = 1 << 30
    memory_after_bytes: int = 1 << 30
    memory_change_s: float = NEVER
    memory_total_bytes: int = 80 << 30
    temperature_c: float = 50.0
    warming_c_per_s: float = 0.0
    architecture: int = 7
    mig: bool = False
    mig_devices: int = 2
    module_only: bool = False
    pids: tuple[int, ...] = ()
    pids_from_s: float = 0.0
    pids_until_s: float = NEVER

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError."""
        _check(_values(self))
        levels = (self.wave.start_w,) if isinstance(self.wave, StepLog) else _levels(self.wave)
        if min(levels) < 0:
            raise ValueError(f"wave: power is {min(levels):g} W; it must not be below 0")
        shaped = [name for name in _SHAPES if getattr(self, name)]
        if shaped and not isinstance(self.wave, StepLog):
            raise ValueError(f"{shaped[0]}: shapes the steps of a StepLog; the wave is {type(self.wave).__name__}")
        if self.counter_duty < 1 and (self.counter_lag_s or self.counter_box_s):
            raise ValueError("counter_duty: a part-time counter has no lag and no box here")
        if isinstance(self.wave, Bursts) and not 0 < self.wave.burst_s <= self.wave.slot_s:
            raise ValueError(f"wave: bursts of {self.wave.burst_s:g} s do not fit slots of {self.wave.slot_s:g} s")
        if isinstance(self.wave, SquareWave) and not (self.wave.period_s > 0 and 0 <= self.wave.duty <= 1):
            raise ValueError("wave: a square wave's period must be above 0, and its duty from 0 to 1")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an NVML function, by its C name; board is None for calls without a board."""

    t_s: float
    function: str
    board: int | None


def _values(board: SimulatedBoard) -> dict[str, Any]:
    """Return the values by field, unchanged."""
    return {field.name: getattr(board, field.name) for field in fields(board)}


def _levels(wave: ConstantPower | SquareWave | Bursts) -> tuple[float, ...]:
    return (wave.power_w,) if isinstance(wave, ConstantPower) else (wave.low_w, wave.high_w)


_ABOVE_0 = (
    *("noise_slot_s", "counter_period_s", "power_period_s", "instant_window_s", "average_window_s", "sample_s"),
    *("counter_duty", "settle_s"),
)
_FROM_0 = ("rise_s", "fall_s", "settle_w", "counter_lag_s", "counter_box_s")
_SHAPES = ("rise_s", "fall_s", "settle_w")  # of a StepLog
_UP_TO_1 = ("counter_jitter", "counter_duty", "unknown_rate")


def _check(values: Mapping[str, Any]) -> None:
    """Check the values. Raises a ValueError with the field, its value and the valid values."""
    for name, value in values.items():
        if name in _ABOVE_0 and not value > 0:
            raise ValueError(f"{name}: is {value}; must be above 0")
        if name in _FROM_0 and not value >= 0:
            raise ValueError(f"{name}: is {value}; must not be below 0")
        if name in _UP_TO_1 and not 0 <= value <= 1:
            raise ValueError(f"{name}: is {value}; must be from 0 to 1")
        if name == "unsupported" and (strange := sorted(set(value) - set(FEATURES))):
            raise ValueError(f"unsupported: {', '.join(strange)}; must be of {', '.join(FEATURES)}")
        if name == "pids" and len(value) > _MAX_PIDS:
            raise ValueError(f"pids: {len(value)} of them; must be at most {_MAX_PIDS}")
        if name == "mig_devices" and not 0 <= value <= _MAX_SLICES:
            raise ValueError(f"mig_devices: is {value}; must be from 0 to {_MAX_SLICES}")
        if name in ("uuid", "model") and len(value.encode(errors="surrogateescape")) >= _NAME_BYTES:
            raise ValueError(
                f"{name}: is {len(value.encode(errors='surrogateescape'))} bytes long; must be below {_NAME_BYTES}"
            )


# -- the state file, as in nvml_simulator.c ------------------------------------------------------------------------


class _Step(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("t_s", "power_w", "before_j", "from_w", "ramp_s", "settle_w")]


_NUMBERS = (
    *("wave", "low_w", "high_w", "period_s", "duty", "burst_s", "slot_s", "wave_phase_s", "wave_seed"),
    *("rise_s", "fall_s", "settle_w", "settle_s"),
    *("noise_w", "noise_slot_s", "seed", "gain"),
    *("counter_period_s", "counter_phase_s", "counter_jitter", "counter_duty", "counter_lag_s", "counter_box_s"),
    "counter_start_j",
    *("power_period_s", "power_phase_s", "instant_window_s", "average_window_s", "usage_is_instant", "sample_s"),
    *("limit_w", "limit_after_w", "limit_change_s"),
    *("unsupported", "unsupported_from_s", "lost_at_s", "reset_at_s", "stuck_at_s", "unknown_rate", "too_fast_s"),
    *("throttle", "throttle_from_s", "throttle_until_s", "sm_clock_mhz", "sm_clock_after_mhz", "sm_clock_change_s"),
    *("memory_total_bytes", "memory_bytes", "memory_after_bytes", "memory_change_s"),
    *("temperature_c", "warming_c_per_s", "architecture", "mig", "mig_devices", "module_only"),
    *("pid_count", "pids_from_s", "pids_until_s"),
)


class _Board(ctypes.Structure):
    _fields_ = [
        ("uuid", ctypes.c_char * _NAME_BYTES),
        ("model", ctypes.c_char * _NAME_BYTES),
        *((name, ctypes.c_double) for name in _NUMBERS),
        ("pids", ctypes.c_double * _MAX_PIDS),
        ("last_poll_s", ctypes.c_double),
        ("draws", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("step_count", ctypes.c_uint64),
        ("steps", _Step * _MAX_STEPS),
    ]


class _Call(ctypes.Structure):
    _fields_ = [("t_s", ctypes.c_double), ("function", ctypes.c_double), ("board", ctypes.c_double)]


class _State(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint64),
        ("board_count", ctypes.c_uint64),
        ("calls_logged", ctypes.c_uint64),
        *((name, ctypes.c_double) for name in ("is_virtual", "virtual_s", "call_cost_s")),
        *((name, ctypes.c_double) for name in ("epoch_s", "start_s", "wall_offset_s", "init_error")),
        ("driver", ctypes.c_char * _NAME_BYTES),
        ("calls", ctypes.c_uint64 * _FUNCTIONS),
        ("log", _Call * _LOG_LENGTH),
        ("lock", ctypes.c_char * _LOCK_BYTES),
        ("boards", _Board * _MAX_BOARDS),
    ]


class _StateClock(VirtualClock):
    """A virtual clock whose time is in the state, so that the library's calls advance it too."""

    def __init__(self, state: Any) -> None:
        self._state = state
        super().__init__(state.virtual_s)

    @property
    def _now_s(self) -> float:
        return float(self._state.virtual_s)

    @_now_s.setter
    def _now_s(self, value: float) -> None:
        self._state.virtual_s = value


# -- the library ---------------------------------------------------------------------------------------------------


def compiler() -> str | None:
    """Return the command of the C compiler: the first of $CC, cc, gcc and clang; None without a compiler."""
    commands = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((command for command in commands if command.strip() and shutil.which(shlex.split(command)[0])), None)


_builds: dict[str, bytes] = {}  # digest of the source -> the library: one compilation serves all folders of a process


def build(folder: Path) -> Path:
    """Compile the library into a subfolder of `folder`, once per version of its source.

    Raises RuntimeError without the C source or a compiler, or with the message of the compiler.
    """
    if not SOURCE.is_file():
        raise RuntimeError(f"{SOURCE.name} is not part of the wheel: run pip install -e . in a checkout")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    library = folder.resolve() / digest[:16] / SONAME
    if library.exists():
        return library
    if digest not in _builds:
        with tempfile.TemporaryDirectory() as place:
            _compile(Path(place) / SONAME)
            _builds[digest] = (Path(place) / SONAME).read_bytes()
    # the library last: who finds it finds both
    for target, content in ((library.with_name("nvidia-smi"), SMI.encode()), (library, _builds[digest])):
        with replacing(target) as file:
            os.fchmod(file.fileno(), 0o755)
            file.write(content)
    return library


def _compile(target: Path) -> None:
    command = compiler()
    if command is None:
        raise RuntimeError("the NVML simulator needs a C compiler: install gcc or clang, or set CC")
    flags = ["-O2", "-shared", "-fPIC", "-pthread", f"-Wl,-soname,{SONAME}", "-o", str(target), str(SOURCE), "-lm"]
    done = subprocess.run([*shlex.split(command), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} cannot build {SOURCE.name}: {done.stderr.strip()[:2000]}")


_loaded: list[Any] = []  # the library of this process; pynvml would not find a second copy


def _library(path: str) -> Any:
    """Load the library once. Raises RuntimeError if it is another NVML, or another version of this one."""
    if not _loaded:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        if not hasattr(library, "nvmlsim_view"):
            raise RuntimeError(f"{path} is another NVML, not the simulator")
        _declare(library)
        names = [library.nvmlsim_number_name(number) for number in range(len(_NUMBERS) + 1)]
        mirrored = [*(name.encode() for name in _NUMBERS), None]
        if library.nvmlsim_size() != ctypes.sizeof(_State) or names != mirrored:
            raise RuntimeError(f"{SOURCE.name} and {Path(__file__).name} disagree about the layout of the state")
        _loaded.append(library)
    return _loaded[0]


def _declare(library: Any) -> None:
    text, number, board, view = ctypes.c_char_p, ctypes.c_double, ctypes.c_uint, ctypes.c_void_p
    for name, result, arguments in (
        ("create", ctypes.c_int, [text]),
        ("view", view, [text]),
        ("select", None, [view]),
        ("close", None, [view]),
        ("lock", None, [view]),
        ("unlock", None, []),
        ("size", ctypes.c_ulong, []),
        ("number_name", text, [board]),
        ("function", text, [board]),
        ("energy_j", number, [view, board, number, number]),
        ("power_w", number, [view, board, number]),
        ("set_power", number, [view, board, number]),
        ("play", number, [view, board, board, ctypes.POINTER(number), ctypes.POINTER(number)]),
    ):
        function = getattr(library, f"nvmlsim_{name}")
        function.restype, function.argtypes = result, arguments


class NvmlSimulator:
    """Simulated boards; usable as the clock of a meter too, and as a context manager that closes it.

    Attributes:
        boards: The given boards, with their UUIDs.
    """

    def __init__(
        self,
        boards: Sequence[SimulatedBoard],
        folder: Path,
        *,
        virtual: bool = False,
        call_cost_s: float = 0.0,
        driver: str = "580.65.06",
        init_error: int = 0,
    ) -> None:
        """Compile the library if necessary, and write the boards' state.

        Args:
            boards: 0 to 16 boards.
            folder: Folder of library and state.
            virtual: Whether time advances only by `advance`, `sleep` and the calls' cost.
            call_cost_s: Virtual seconds that each NVML call takes.
            driver: Version that the driver reports.
            init_error: NVML code that nvmlInit returns, 0 for success.

        Raises:
            RuntimeError: There is no compiler, or it fails, or `time.perf_counter` is not CLOCK_MONOTONIC.
            ValueError: Too many boards.
        """
        if len(boards) > _MAX_BOARDS:
            raise ValueError(f"0 to {_MAX_BOARDS} boards can be simulated, not {len(boards)}")
        if "CLOCK_MONOTONIC" not in time.get_clock_info("perf_counter").implementation:
            raise RuntimeError("the NVML simulator needs Linux, where time.perf_counter is CLOCK_MONOTONIC")
        folder.mkdir(parents=True, exist_ok=True)
        self._library_file = build(folder)
        self._library = _library(str(self._library_file))
        handle, name = tempfile.mkstemp(prefix="state-", dir=folder.resolve())
        os.close(handle)
        self._file = Path(name)
        if self._library.nvmlsim_create(os.fsencode(self._file)):
            raise RuntimeError(f"the NVML simulator cannot write {self._file}")
        self._map()
        state = self._state
        now_s = VIRTUAL_START_S if virtual else time.perf_counter()
        state.board_count = len(boards)
        state.is_virtual, state.virtual_s, state.call_cost_s = virtual, now_s, call_cost_s
        state.epoch_s, state.start_s = now_s - HISTORY_S, now_s
        state.wall_offset_s = VIRTUAL_WALL_S if virtual else time.time() - now_s
        state.init_error, state.driver = init_error, driver.encode()
        self.boards = tuple(
            replace(board, uuid=board.uuid or f"GPU-{index:08x}-5117-4a7e-b0a4-{index + 1:012x}")
            for index, board in enumerate(boards)
        )
        for found, board in zip(state.boards, self.boards, strict=False):
            values = _values(board)
            _write_wave(found, values.pop("wave"), state.epoch_s, board.limit_w)
            _write(found, values)
        self._start()

    @classmethod
    def attach(cls) -> NvmlSimulator:
        """Return the simulator of the process that set `environment()` for this one.

        Its `boards` have their current configuration. Raises KeyError if no process did, RuntimeError if the dynamic
        linker finds another NVML.
        """
        self = cls.__new__(cls)
        self._file = Path(os.environ[VARIABLE])
        self._library = _library(SONAME)
        self._library_file = Path(os.environ["LD_LIBRARY_PATH"].split(":")[0]) / SONAME
        self._map()
        self.boards = tuple(_read(board) for board in self._state.boards[: self._state.board_count])
        self._start()
        self._library.nvmlsim_select(self._view)
        return self

    def _map(self) -> None:
        self._view = self._library.nvmlsim_view(os.fsencode(self._file))
        if not self._view:
            raise RuntimeError(f"{self._file} is not the state of an NVML simulator of this version")
        with self._file.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(_State))
        self._state = _State.from_buffer(self._memory)
        self._binding_before: tuple[Any, Any] | None = None

    def _start(self) -> None:
        self._clock = _StateClock(self._state) if self._state.is_virtual else None

    def __enter__(self) -> Self:
        """Return the simulator, which is already open."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def environment(self) -> dict[str, str]:
        """Return environment variables for other processes to see these boards: library, state, and `nvidia-smi`."""
        folder = str(self._library_file.parent)
        paths = {name: os.environ.get(name) for name in ("LD_LIBRARY_PATH", "PATH")}
        return {name: f"{folder}:{old}" if old else folder for name, old in paths.items()} | {VARIABLE: str(self._file)}

    def load(self) -> Any:
        """Make this process's pynvml use these boards, until `close`; nvmlInit is not called.

        All simulators of a process share a library: pynvml sees the one that was loaded last.
        """
        self._library.nvmlsim_select(self._view)
        nvml: Any = import_module("pynvml")
        if nvml.nvmlLib is not self._library:  # it may have loaded the machine's NVML, and caches its functions
            self._binding_before = (nvml, nvml.nvmlLib)
            nvml._nvmlGetFunctionPointer_cache.clear()
            nvml.nvmlLib = self._library
        return nvml

    def now(self) -> float:
        """Return seconds on the simulator's clock: `time.perf_counter`, or virtual."""
        return time.perf_counter() if self._clock is None else self._clock.now()

    def wall_us(self) -> float:
        """Return microseconds on the wall clock of the driver's time stamps."""
        return 1e6 * (self.now() + float(self._state.wall_offset_s))

    def sleep(self, seconds: float) -> None:
        """Wait, or advance virtual time."""
        if self._clock is not None:
            self._clock.sleep(seconds)
        elif seconds > 0:
            time.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Call `sleep`; tests use this name."""
        self.sleep(seconds)

    def every(self, interval_s: float, action: Callable[[], None]) -> Cancel:
        """Call `action` every `interval_s`; return a function that stops it. On real time, a thread makes the calls.

        On virtual time it is called from `advance` and `sleep` when it is due; if a call's cost has advanced time past
        it, it is called in the next of these.
        """
        return (self._clock or SystemClock()).every(interval_s, action)

    def asleep_s(self) -> float:
        """Return seconds of the machine's sleep; 0 on virtual time."""
        return (self._clock or SystemClock()).asleep_s()

    def set_power(self, board: int, power_w: float) -> float:
        """Set the power of a `StepLog` board now, and return the time.

        Raises ValueError on another wave and on power below 0, IndexError when 65,536 steps are used up.
        """
        if self._board(board).wave != _WAVES.index("steps"):
            raise ValueError(f"board {board} has another wave; set_power needs a StepLog")
        if not power_w >= 0:
            raise ValueError(f"power_w: is {power_w}; must not be below 0")
        now_s = float(self._library.nvmlsim_set_power(self._view, board, power_w))
        if now_s < 0:
            raise IndexError(f"board {board} has used all of its {_MAX_STEPS} steps")
        return now_s

    def play(self, board: int, times_s: Sequence[float], powers_w: Sequence[float]) -> float:
        """Let a `StepLog` board draw a recorded power from now on, and return the time.

        Each power is drawn from its time, in seconds from now and ascending, to the next one; the last one until
        something else is set. Rise, fall and settling are those of the trace. A later `play` or `set_power` replaces
        what is still to come; until then only the past has a true energy.

        Raises ValueError on another wave, on unequal lengths, times out of order and power below 0, IndexError when
        65,536 steps are used up.
        """
        if self._board(board).wave != _WAVES.index("steps"):
            raise ValueError(f"board {board} has another wave; play needs a StepLog")
        if len(times_s) != len(powers_w) or not len(times_s):
            raise ValueError(f"times_s: {len(times_s)} of them for {len(powers_w)} powers; must be as many, and not 0")
        if times_s[0] < 0 or any(later < earlier for earlier, later in pairwise(times_s)):
            raise ValueError("times_s: must ascend from 0 or later")
        if min(powers_w) < 0:
            raise ValueError(f"powers_w: {min(powers_w)} is among them; must not be below 0")
        numbers = ctypes.c_double * len(times_s)
        now_s = float(
            self._library.nvmlsim_play(self._view, board, len(times_s), numbers(*times_s), numbers(*powers_w))
        )
        if now_s < 0:
            raise IndexError(f"board {board} has used all of its {_MAX_STEPS} steps")
        return now_s

    def change(self, board: int, **changes: Any) -> None:
        """Change attributes of a board while it runs, e.g. `change(0, lost_at_s=simulator.now() + 0.5)`.

        This changes the past too: a new `gain` or `counter_period_s` is valid from the start. The true power (wave,
        noise, seed) cannot be changed. Raises ValueError for that, for unknown names, and for invalid values.
        """
        known = {field.name for field in fields(SimulatedBoard)} - _FIXED
        strange = sorted(set(changes) - known)
        if strange:
            raise ValueError(f"a board's {', '.join(strange)} cannot be changed; these can: {', '.join(sorted(known))}")
        _check(changes)
        found = self._board(board)
        with self._locked():
            _write(found, changes)

    def energy_j(self, board: int, begin_s: float, end_s: float) -> float:
        """Return the true energy in J of the board."""
        self._board(board)
        return float(self._library.nvmlsim_energy_j(self._view, board, begin_s, end_s))

    def power_w(self, board: int, t_s: float) -> float:
        """Return the true power in W at `t_s`."""
        self._board(board)
        return float(self._library.nvmlsim_power_w(self._view, board, t_s))

    def call_counts(self) -> dict[str, int]:
        """Return the number of calls of each NVML function by C name, from all processes."""
        counts = enumerate(self._state.calls)
        return {self._library.nvmlsim_function(number).decode(): int(count) for number, count in counts if count}

    def call_log(self) -> list[Call]:
        """Return the last 65,536 calls of all processes, in order."""
        with self._locked():
            logged = int(self._state.calls_logged)
            numbers = range(max(logged - _LOG_LENGTH, 0), logged)
            entries = [self._state.log[number % _LOG_LENGTH] for number in numbers]
            plain = [(entry.t_s, int(entry.function), int(entry.board)) for entry in entries]
        return [
            Call(t_s, self._library.nvmlsim_function(function).decode(), None if board < 0 else board)
            for t_s, function, board in plain
        ]

    def close(self) -> None:
        """Remove the state's file, and restore pynvml; other processes keep their open state."""
        if self._binding_before is not None:
            nvml, library = self._binding_before
            if nvml.nvmlLib is self._library:
                nvml._nvmlGetFunctionPointer_cache.clear()
                nvml.nvmlLib = library
            self._binding_before = None
        if self._view:
            self._library.nvmlsim_close(self._view)
            self._view = None
        self._file.unlink(missing_ok=True)

    def _board(self, number: int) -> Any:
        if not self._view:
            raise RuntimeError("the NVML simulator is closed")
        if not 0 <= number < self._state.board_count:
            raise IndexError(f"there is no board {number}: there are {self._state.board_count} boards, from 0")
        return self._state.boards[number]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock out the library's calls of all processes."""
        self._library.nvmlsim_lock(self._view)
        try:
            yield
        finally:
            self._library.nvmlsim_unlock()


def _write(found: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in ("uuid", "model"):
            setattr(found, name, value.encode(errors="surrogateescape"))
        elif name == "unsupported":
            found.unsupported = sum(FEATURES[feature] for feature in set(value))
        elif name == "pids":
            found.pids[: len(value)] = list(value)
            found.pid_count = len(value)
        else:
            setattr(found, name, float(value))
    found.generation += 1


def _write_wave(found: Any, wave: Wave, epoch_s: float, limit_w: float) -> None:
    match wave:
        case ConstantPower(power_w):
            kind, found.low_w, found.high_w = "constant", power_w, power_w
        case SquareWave():
            kind, found.low_w, found.high_w = "square", wave.low_w, wave.high_w
            found.period_s, found.duty = wave.period_s, wave.duty
        case Bursts():
            kind, found.low_w, found.high_w = "bursts", wave.low_w, wave.high_w
            found.burst_s, found.slot_s, found.wave_seed = wave.burst_s, wave.slot_s, wave.seed
        case StepLog():
            # Utilisation is computed from these two: from the power at rest to the limit.
            kind, found.low_w, found.high_w = "steps", wave.start_w, limit_w
            found.steps[0] = _Step(epoch_s, wave.start_w, 0.0, wave.start_w, 0.0, 0.0)
            found.step_count = 1
    found.wave = _WAVES.index(kind)


def _read(found: Any) -> SimulatedBoard:
    values: dict[str, Any] = {}
    for name, value in _values(SimulatedBoard()).items():
        if name in ("uuid", "model"):
            values[name] = getattr(found, name).decode(errors="surrogateescape")
        elif name == "unsupported":
            values[name] = tuple(feature for feature, bit in FEATURES.items() if int(found.unsupported) & bit)
        elif name == "pids":
            values[name] = tuple(int(pid) for pid in found.pids[: int(found.pid_count)])
        elif name == "wave":
            values[name] = _read_wave(found)
        else:
            values[name] = type(value)(getattr(found, name))
    return SimulatedBoard(**values)


def _read_wave(found: Any) -> Wave:
    match _WAVES[int(found.wave)]:
        case "square":
            return SquareWave(low_w=found.low_w, high_w=found.high_w, period_s=found.period_s, duty=found.duty)
        case "bursts":
            seed = int(found.wave_seed)
            return Bursts(low_w=found.low_w, high_w=found.high_w, burst_s=found.burst_s, slot_s=found.slot_s, seed=seed)
        case "steps":
            return StepLog(start_w=found.low_w)
        case _:
            return ConstantPower(found.low_w)
