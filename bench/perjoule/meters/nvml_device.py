"""Selection of boards and their NVML data: the only module that calls NVML, and the only one that uses mW and mJ.

Calls for energy and power raise `Fault`, since a meter needs them. All other calls describe a board and may fail on
some board, driver or binding: `ask` then returns None and the reason, whatever was raised.

NVML counts boards in PCI order, ignores CUDA_VISIBLE_DEVICES, and knows energy only for whole boards. So a board is
chosen by UUID, CUDA's environment variable is read here, and MIG slices are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from perjoule.errors import MeterError
from perjoule.meters.base import Fault
from perjoule.meters.clock import Clock
from perjoule.text import board_digest

T = TypeVar("T")

RETRY_S = 0.25  # maximum duration of a transient failure; the slowest known update period is 0.1 s
RETRY_OPTIONAL_S = 0.02  # for calls that only describe the board
RETRY_PAUSE_S = 0.001
# NVML return codes of transient failures: TIMEOUT, NO_DATA, IN_USE, INSUFFICIENT_RESOURCES, NOT_READY,
# UNKNOWN.
TRANSIENT = frozenset({10, 19, 21, 23, 27, 999})
SCOPES = {0: "GPU", 1: "MODULE"}  # NVML_POWER_SCOPE_*
FIELD_TOTAL_ENERGY = 83  # NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION
FIELD_POWER_AVERAGE = 185  # NVML_FI_DEV_POWER_AVERAGE
FIELD_POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT
NVML_TOTAL_POWER_SAMPLES = 0
NOT_FOUND = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A GPU board in NVML's list.

    Attributes:
        index: Index in PCI order.
        uuid: UUID; empty if the board does not report it.
        model: Model; empty if the board does not report it.
    """

    index: int
    uuid: str
    model: str = ""

    @property
    def label(self) -> str:
        """The board's name in records and on the command line: the digest of its UUID, or its index."""
        return board_digest(self.uuid) if self.uuid else f"{_BY_INDEX}{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen boards and a note on how they were chosen."""

    boards: tuple[Board, ...]
    note: str


ALL = "all"
_BY_INDEX, _BY_DIGEST = "index-", "board-"


def choose_boards(
    boards: Sequence[Board], selector: str, visible: str | None, device_order: str | None = None
) -> Choice:
    """Choose the boards that the measured process uses.

    Args:
        boards: All boards, in PCI order.
        selector: UUIDs, labels, or prefixes of them, separated by commas; `all` selects those visible to CUDA, an empty
            selector the first of them.
        visible: Value of CUDA_VISIBLE_DEVICES, None if it is not set.
        device_order: Value of CUDA_DEVICE_ORDER.

    Raises:
        MeterError: There is no board, the UUID is ambiguous or unknown, it names a MIG slice, or CUDA hides all
            boards.
    """
    if not boards:
        raise MeterError("nvml: the driver lists no GPU; see `nvidia-smi -L`")
    if selector and selector != ALL:
        chosen = [_by_uuid(boards, one.strip(), f"nvml:{selector}") for one in selector.split(",")]
        if len(set(chosen)) < len(chosen):
            raise MeterError(f"nvml: nvml:{selector} names {_twice(chosen)} twice; name each board once")
        return Choice(boards=tuple(chosen), note="chosen by name")
    if visible is None:
        if selector == ALL:
            return Choice(boards=tuple(boards), note="CUDA_VISIBLE_DEVICES is not set: all boards")
        others = f", the first of {len(boards)} in PCI order" if len(boards) > 1 else ""
        return Choice(boards=(boards[0],), note=f"CUDA_VISIBLE_DEVICES is not set{others}")

    where = f"CUDA_VISIBLE_DEVICES={visible!r}"
    seen = _visible_to_cuda(boards, visible, where)
    note = f"{'all entries' if selector == ALL else 'first entry'} of {where}"
    # CUDA's default order is fastest first; it agrees with PCI order only for equal boards.
    by_number = any(entry.strip().lstrip("+").isdigit() for entry in visible.split(","))
    if by_number and device_order != "PCI_BUS_ID" and len({one.model for one in boards}) > 1:
        note += " taken in PCI order, though CUDA counts fastest first: set CUDA_DEVICE_ORDER=PCI_BUS_ID or a UUID"
    if selector == ALL:
        return Choice(boards=tuple(seen), note=note)
    if len(seen) > 1:
        note += f"; {len(seen) - 1} more visible to CUDA are not measured (nvml:all measures them too)"
    return Choice(boards=(seen[0],), note=note)


def _visible_to_cuda(boards: Sequence[Board], visible: str, where: str) -> list[Board]:
    """Return the boards that CUDA shows, in its order; as in CUDA, entries after an invalid one are ignored."""
    seen: list[Board] = []
    for number, entry in enumerate(one.strip() for one in visible.split(",")):
        if not entry and number == 0:
            raise MeterError(f"nvml: {where} hides every GPU from CUDA; unset it, or name a board as nvml:GPU-…")
        if not entry.lstrip("+-").isdigit():
            if number and not entry.upper().startswith(("GPU-", "MIG")):
                break
            seen.append(_by_uuid(boards, entry, where))
        elif 0 <= int(entry) < len(boards):
            seen.append(boards[int(entry)])
        elif number:
            break
        else:
            raise MeterError(
                f"nvml: {where} names board {int(entry)}, there are {len(boards)} (0 to {len(boards) - 1}); "
                "CUDA sees no GPU then; correct the variable, or name a board as nvml:GPU-…"
            )
    if len(set(seen)) < len(seen):
        raise MeterError(f"nvml: {where} names {_twice(seen)} twice; CUDA sees no GPU then; correct the variable")
    return seen


def _twice(boards: Sequence[Board]) -> str:
    return next(board.uuid or board.label for board in boards if boards.count(board) > 1)


def _by_uuid(boards: Sequence[Board], wanted: str, where: str) -> Board:
    if wanted.upper().startswith("MIG"):
        raise MeterError(
            f"nvml: {where} names a MIG slice, but energy is known only for the whole board; name the board as "
            "nvml:GPU-… and keep its other slices idle, or disable MIG"
        )
    if wanted.startswith(_BY_INDEX):
        found = [board for board in boards if board.label == wanted]
    elif wanted.startswith(_BY_DIGEST):
        found = [board for board in boards if board.label.startswith(wanted)]
    else:
        prefix = wanted.lower() if wanted.lower().startswith("gpu-") else f"gpu-{wanted.lower()}"
        found = [board for board in boards if board.uuid.lower().startswith(prefix)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(board.uuid or board.label for board in (found or boards))
    problem = "matches several boards" if found else "does not match any board"
    raise MeterError(f"nvml: {where} {problem}: {listed}; give a longer part of the UUID")


class NvmlDevice:
    """One board of an initialised NVML binding; returns SI units and raises `Fault` instead of NVML's exceptions.

    Descriptions of the board (limit, clocks, processes) are None if it does not report them.

    Attributes:
        board: The board.
        absent: For calls that describe the board: name of the call -> reason why its last attempt failed.
    """

    def __init__(self, nvml: Any, board: Board, clock: Clock) -> None:
        """Get the handle with nvmlDeviceGetHandleByIndex, from the index at which the UUID was just listed."""
        self.board = board
        self.absent: dict[str, str] = {}
        self._nvml = nvml
        self._clock = clock
        self._patience_s = RETRY_S
        self._handle = self._call("nvmlDeviceGetHandleByIndex", board.index)

    def energy_j(self) -> float:
        """nvmlDeviceGetTotalEnergyConsumption: J since the driver was loaded (documented from Volta on)."""
        return float(self._device_call("nvmlDeviceGetTotalEnergyConsumption")) / 1000

    def field_energy_j(self) -> float:
        """NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: the same counter as a field value."""
        return float(self._field(FIELD_TOTAL_ENERGY, 0).ullVal) / 1000

    def power_w(self) -> float:
        """nvmlDeviceGetPowerUsage: W, instantaneous or averaged over 1 s depending on board and driver."""
        return float(self._device_call("nvmlDeviceGetPowerUsage")) / 1000

    def field_power_w(self, field: int, scope: int) -> float:
        """Call nvmlDeviceGetFieldValues for a power field in W; checks the field's own return code as well."""
        return float(self._field(field, scope).uiVal) / 1000  # power fields are unsigned int, in mW

    def energy_and_power(self, scope: int) -> tuple[float, float]:
        """Counter in J and instant power in W, by one call of nvmlDeviceGetFieldValues."""
        energy, power = self._fields((FIELD_TOTAL_ENERGY, 0), (FIELD_POWER_INSTANT, scope))
        return float(energy.ullVal) / 1000, float(power.uiVal) / 1000

    def power_samples(self, since_us: int) -> list[tuple[int, float]]:
        """nvmlDeviceGetSamples(NVML_TOTAL_POWER_SAMPLES): (wall-clock us, W) newer than `since_us`, oldest first."""
        try:
            kind, samples = self._device_call("nvmlDeviceGetSamples", NVML_TOTAL_POWER_SAMPLES, since_us)
        except Fault as fault:
            if fault.code == NOT_FOUND:  # there is no newer sample
                return []
            raise
        name = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal"}.get(int(kind), "uiVal")  # nvmlValueType
        return [(int(one.timeStamp), float(getattr(one.sampleValue, name)) / 1000) for one in samples]

    def limit_w(self) -> float | None:
        """nvmlDeviceGetEnforcedPowerLimit, in W."""
        limit_mw = self._optional("nvmlDeviceGetEnforcedPowerLimit", take=float)
        return limit_mw / 1000 if limit_mw else None

    def temperature_c(self) -> int | None:
        """GPU temperature by nvmlDeviceGetTemperature."""
        return self._optional("nvmlDeviceGetTemperature", 0, take=int)  # NVML_TEMPERATURE_GPU

    def sm_clock_mhz(self) -> int | None:
        """SM clock by nvmlDeviceGetClockInfo."""
        return self._optional("nvmlDeviceGetClockInfo", 1, take=int)  # NVML_CLOCK_SM

    def max_sm_clock_mhz(self) -> int | None:
        """Highest SM clock by nvmlDeviceGetMaxClockInfo."""
        return self._optional("nvmlDeviceGetMaxClockInfo", 1, take=int)  # NVML_CLOCK_SM

    def ecc(self) -> bool | None:
        """nvmlDeviceGetEccMode: whether error correction of the memory is on, which takes bandwidth on some boards."""
        return self._optional("nvmlDeviceGetEccMode", take=lambda found: bool(found[0]))

    def persistence_mode(self) -> bool | None:
        """nvmlDeviceGetPersistenceMode: whether the driver stays loaded without a program that uses the board."""
        return self._optional("nvmlDeviceGetPersistenceMode", take=bool)

    def throttle_reasons(self) -> int | None:
        """nvmlDeviceGetCurrentClocksEventReasons, or its older name in old bindings."""
        name = "nvmlDeviceGetCurrentClocksEventReasons"
        older = "nvmlDeviceGetCurrentClocksThrottleReasons"
        return self._optional(name if hasattr(self._nvml, name) else older, take=int)

    def memory_bytes(self) -> int | None:
        """nvmlDeviceGetMemoryInfo: memory in use on the board by all processes."""
        return self._optional("nvmlDeviceGetMemoryInfo", take=lambda found: int(found.used))

    def memory_total_bytes(self) -> int | None:
        """nvmlDeviceGetMemoryInfo: total memory; boards that share the memory of the CPU do not report it."""
        return self._optional("nvmlDeviceGetMemoryInfo", take=lambda found: int(found.total))

    def utilisation(self) -> float | None:
        """nvmlDeviceGetUtilizationRates: share of its last sample period with a kernel running."""
        return self._optional("nvmlDeviceGetUtilizationRates", take=lambda found: int(found.gpu) / 100)

    def compute_pids(self) -> list[int] | None:
        """nvmlDeviceGetComputeRunningProcesses; milliseconds on real drivers."""
        return self._optional(
            "nvmlDeviceGetComputeRunningProcesses", take=lambda found: [int(process.pid) for process in found]
        )

    def mig_enabled(self) -> bool:
        """nvmlDeviceGetMigMode: True if the board is split."""
        return self._optional("nvmlDeviceGetMigMode", take=lambda found: bool(found[0])) or False

    def driver(self) -> str:
        """nvmlSystemGetDriverVersion, or `unknown`."""
        name = "nvmlSystemGetDriverVersion"
        answer = ask(self._nvml, self._clock, name, take=_text)
        self._note(name, answer.reason)
        return answer.value or "unknown"

    def _field(self, field: int, scope: int) -> Any:
        return self._fields((field, scope))[0]

    def _fields(self, *fields: tuple[int, int]) -> list[Any]:
        def read() -> list[Any]:
            values = self._nvml.nvmlDeviceGetFieldValues(self._handle, list(fields))
            for value in values:
                if value.nvmlReturn != 0:
                    raise self._nvml.NVMLError(value.nvmlReturn)
            return [value.value for value in values]

        names = " and ".join(f"{field}, scope {SCOPES.get(scope, scope)}" for field, scope in fields)
        return self._retried(f"nvmlDeviceGetFieldValues({names}) on {self.board.label}", read)

    def _optional(self, name: str, *args: Any, take: Callable[[Any], T]) -> T | None:
        """Ask for a description; if that fails, store the reason in `absent`."""
        for_s = min(RETRY_OPTIONAL_S, self._patience_s)
        answer = ask(self._nvml, self._clock, name, self._handle, *args, take=take, for_s=for_s)
        self._note(name, answer.reason)
        return answer.value

    def _note(self, name: str, reason: str) -> None:
        if reason:
            self.absent[name] = reason
        else:
            self.absent.pop(name, None)

    def _device_call(self, name: str, *args: Any) -> Any:
        return self._call(name, self._handle, *args)

    def _call(self, name: str, *args: Any) -> Any:
        words, function = f"{name} on {self.board.label}", getattr(self._nvml, name, None)
        if function is None:
            raise Fault("W220", f"{words}: this binding does not have it")
        return self._retried(words, function, *args)

    def _retried(self, words: str, function: Callable[..., T], *args: Any) -> T:
        """Call `retried`, but ask a board that has just failed for RETRY_S only once, until it answers again."""
        try:
            result = retried(self._nvml, self._clock, words, function, *args, for_s=self._patience_s)
        except Fault as fault:
            self._patience_s = 0.0 if fault.code in TRANSIENT else RETRY_S
            raise
        self._patience_s = RETRY_S
        return result


def retried(nvml: Any, clock: Clock, words: str, function: Callable[..., T], *args: Any, for_s: float = RETRY_S) -> T:
    """Call a function and retry transient failures for `for_s`. Raises Fault W220 with NVML's message."""
    begun_s: float | None = None
    while True:
        try:
            return function(*args)
        except nvml.NVMLError as error:
            now_s = clock.now()
            begun_s = now_s if begun_s is None else begun_s
            code = int(getattr(error, "value", 999))
            if code not in TRANSIENT or now_s - begun_s > for_s:
                raise Fault("W220", f"{words}: {error} (NVML code {code})", code) from error
            clock.sleep(RETRY_PAUSE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """Answer of NVML, or None and the reason."""

    value: T | None
    reason: str = ""


def ask(
    nvml: Any, clock: Clock, name: str, *args: Any, take: Callable[[Any], T], for_s: float = RETRY_OPTIONAL_S
) -> Answer[T]:
    """Make a call that describes a board or the system. Never raises.

    Args:
        nvml: The binding.
        clock: The clock.
        name: NVML's name of the call.
        *args: Arguments of the call.
        take: Converts the answer.
        for_s: How long to retry transient failures.
    """
    try:
        try:
            value = retried(nvml, clock, name, getattr(nvml, name), *args, for_s=for_s)
        except UnicodeDecodeError as error:  # the binding assumes that all text is UTF-8, which is not always true
            if take is not _text:
                raise
            value = error.object
        return Answer(value=take(value))
    except Fault as fault:
        return Answer(value=None, reason=str(fault))
    except AttributeError:
        return Answer(value=None, reason=f"{name}: this binding does not have it")
    except Exception as error:
        return Answer(value=None, reason=f"{name}: {type(error).__name__}: {error}")


def list_boards(nvml: Any, clock: Clock) -> list[Board]:
    """Return all boards in PCI order, including boards without a handle or a name. Raises Fault."""
    boards = []
    for index in range(retried(nvml, clock, "nvmlDeviceGetCount", nvml.nvmlDeviceGetCount)):
        handle = ask(nvml, clock, "nvmlDeviceGetHandleByIndex", index, take=lambda found: found, for_s=RETRY_S).value
        uuid, model = (
            ask(nvml, clock, name, handle, take=_text, for_s=RETRY_S).value if handle is not None else None
            for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName")
        )
        boards.append(Board(index=index, uuid=uuid or "", model=model or ""))
    return boards


def _text(value: str | bytes) -> str:
    """Return text; old bindings return bytes, which may not be UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
