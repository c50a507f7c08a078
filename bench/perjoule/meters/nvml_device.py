"""Which board, and what NVML says about it: the only module that calls NVML, and the only one that sees mW and mJ.

NVML counts boards in PCI order, sees all of them whatever CUDA_VISIBLE_DEVICES says, and knows energy for
whole boards only. So a board is chosen by UUID, CUDA's environment variable is read here, and MIG slices are
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from perjoule.errors import MeterError
from perjoule.meters.base import Fault
from perjoule.meters.clock import Clock

T = TypeVar("T")

RETRY_S = 0.25  # how long a transient failure may last; the slowest known update period is 0.1 s
RETRY_PAUSE_S = 0.001
# NVML return codes that pass by themselves: TIMEOUT, NO_DATA, IN_USE, INSUFFICIENT_RESOURCES, NOT_READY,
# UNKNOWN.
TRANSIENT = frozenset({10, 19, 21, 23, 27, 999})
SCOPES = {0: "GPU", 1: "MODULE"}  # NVML_POWER_SCOPE_*
FIELD_POWER_AVERAGE = 185  # NVML_FI_DEV_POWER_AVERAGE
FIELD_POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A GPU board as NVML lists it; index in PCI order."""

    index: int
    uuid: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen board and a note on how it was chosen."""

    board: Board
    note: str


def choose_board(
    boards: Sequence[Board], selector: str, visible: str | None, device_order: str | None = None
) -> Choice:
    """Pick the board that the measured process uses.

    Args:
        boards: All boards, in PCI order.
        selector: UUID or a prefix of one; empty takes the first that CUDA would see.
        visible: Value of CUDA_VISIBLE_DEVICES, None if it is not set.
        device_order: Value of CUDA_DEVICE_ORDER.

    Raises:
        MeterError: No board, an ambiguous or unknown UUID, a MIG slice, or a process from which CUDA hides
            all.
    """
    if not boards:
        raise MeterError("nvml: the driver lists no GPU; see `nvidia-smi -L`")
    if selector:
        return Choice(board=_by_uuid(boards, selector, f"nvml:{selector}"), note=f"chosen by UUID {selector}")
    if visible is None:
        others = f", the first of {len(boards)} in PCI order" if len(boards) > 1 else ""
        return Choice(board=boards[0], note=f"CUDA_VISIBLE_DEVICES is not set{others}")

    where = f"CUDA_VISIBLE_DEVICES={visible!r}"
    entries = [entry.strip() for entry in visible.split(",")]
    first = entries[0]
    if not first:
        raise MeterError(f"nvml: {where} hides every GPU from CUDA; unset it, or name a board as nvml:GPU-…")
    if not first.lstrip("+-").isdigit():
        board = _by_uuid(boards, first, where)
        note = f"first entry of {where}"
    else:
        index = int(first)
        if not 0 <= index < len(boards):
            raise MeterError(
                f"nvml: {where} names board {index}, there are {len(boards)} (0 to {len(boards) - 1}); "
                "CUDA sees no GPU then; correct the variable, or name a board as nvml:GPU-…"
            )
        board = boards[index]
        note = f"first entry of {where}"
        # CUDA's own default order is fastest first; it agrees with PCI order only among equal boards.
        if device_order != "PCI_BUS_ID" and len({one.model for one in boards}) > 1:
            note += " taken in PCI order, though CUDA counts fastest first: set CUDA_DEVICE_ORDER=PCI_BUS_ID or a UUID"
    if len(entries) > 1:
        note += f"; {len(entries) - 1} more visible to CUDA are not measured"
    return Choice(board=board, note=note)


def _by_uuid(boards: Sequence[Board], wanted: str, where: str) -> Board:
    if wanted.upper().startswith("MIG"):
        raise MeterError(
            f"nvml: {where} names a MIG slice, but energy is known for the whole board only; name the board as "
            "nvml:GPU-… and keep its other slices idle, or switch MIG off"
        )
    prefix = wanted.lower() if wanted.lower().startswith("gpu-") else f"gpu-{wanted.lower()}"
    found = [board for board in boards if board.uuid.lower().startswith(prefix)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(board.uuid for board in (found or boards))
    problem = "fits several boards" if found else "fits no board"
    raise MeterError(f"nvml: {where} {problem}: {listed}; give enough of one UUID")


class NvmlDevice:
    """One board through an initialised NVML binding; SI units out, `Fault` instead of NVML's exceptions."""

    def __init__(self, nvml: Any, board: Board, clock: Clock) -> None:
        """Find the handle: nvmlDeviceGetHandleByIndex on the index under which the UUID was just listed."""
        self.board = board
        self._nvml = nvml
        self._clock = clock
        self._handle = self._call("nvmlDeviceGetHandleByIndex", nvml.nvmlDeviceGetHandleByIndex, board.index)

    def energy_j(self) -> float:
        """nvmlDeviceGetTotalEnergyConsumption: J since the driver was loaded (documented from Volta on)."""
        total_mj = self._call(
            "nvmlDeviceGetTotalEnergyConsumption",
            self._nvml.nvmlDeviceGetTotalEnergyConsumption,
            self._handle,
        )
        return float(total_mj) / 1000

    def power_w(self) -> float:
        """nvmlDeviceGetPowerUsage: W, instantaneous or averaged over 1 s depending on board and driver."""
        return float(self._call("nvmlDeviceGetPowerUsage", self._nvml.nvmlDeviceGetPowerUsage, self._handle)) / 1000

    def field_power_w(self, field: int, scope: int) -> float:
        """Call nvmlDeviceGetFieldValues for a power field in W; checks the field's own return code as well."""

        def read() -> float:
            value = self._nvml.nvmlDeviceGetFieldValues(self._handle, [(field, scope)])[0]
            if value.nvmlReturn != 0:
                raise self._nvml.NVMLError(value.nvmlReturn)
            return float(value.value.uiVal) / 1000  # power fields are unsigned int, in mW

        return self._call(f"nvmlDeviceGetFieldValues({field}, scope {SCOPES.get(scope, scope)})", read)

    def limit_w(self) -> float | None:
        """Call nvmlDeviceGetEnforcedPowerLimit: W, or None where the board does not tell."""
        limit_mw = self._optional(lambda: self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        return None if not limit_mw else float(limit_mw) / 1000

    def mig_enabled(self) -> bool:
        """nvmlDeviceGetMigMode: True if the board is split."""
        mode = self._optional(lambda: self._nvml.nvmlDeviceGetMigMode(self._handle))
        return bool(mode and mode[0])

    def driver(self) -> str:
        """nvmlSystemGetDriverVersion, or `unknown`."""
        return str(self._optional(self._nvml.nvmlSystemGetDriverVersion) or "unknown")

    def _optional(self, read: Callable[[], Any]) -> Any:
        """A description that boards may lack: None then."""
        try:
            return read()
        except self._nvml.NVMLError:
            return None

    def _call(self, name: str, function: Callable[..., T], *args: Any) -> T:
        """Call, retrying what passes by itself for RETRY_S. Raises Fault W220 with NVML's own words."""
        begun_s: float | None = None
        while True:
            try:
                return function(*args)
            except self._nvml.NVMLError as error:
                now_s = self._clock.now()
                begun_s = now_s if begun_s is None else begun_s
                code = int(getattr(error, "value", 999))
                if code not in TRANSIENT or now_s - begun_s > RETRY_S:
                    raise Fault("W220", f"{name} on {self.board.uuid}: {error} (NVML code {code})") from error
                self._clock.sleep(RETRY_PAUSE_S)


def list_boards(nvml: Any) -> list[Board]:
    """All boards in PCI order, with UUIDs. Raises the binding's NVMLError."""
    boards = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        boards.append(
            Board(
                index=index,
                uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                model=_text(nvml.nvmlDeviceGetName(handle)),
            )
        )
    return boards


def _text(value: str | bytes) -> str:
    """Old bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
