"""Probes which sources a board supports, because drivers of one architecture differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from perjoule.meters.base import BoardFacts, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.conditions import ConditionsRecorder
from perjoule.meters.nvml_device import (
    FIELD_POWER_AVERAGE,
    FIELD_POWER_INSTANT,
    FIELD_TOTAL_ENERGY,
    SCOPES,
    NvmlDevice,
)
from perjoule.meters.power import PowerSource
from perjoule.types import IdlePower, UpdatePeriod
from perjoule.warnings import warning

# NVML: "Ampere (except GA100) or newer: average over 1 s"; arXiv 2312.02741 measured the same.
AVERAGE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedBoard:
    """A board and its working sources.

    Attributes:
        device: The board.
        driver: Version of the driver.
        read_j: Reads the energy counter in J; None without a counter.
        read_both: Reads counter in J and instant power in W by a single call, if the board supports that.
        counter_words: Description of the counter's call.
        no_counter: Reason why there is no counter, else empty.
        power: The best power reading, None without one.
        no_power: Reasons against better power readings.
        notes: Coded warnings of every reading of the board.
        limit_w: Enforced power limit.
        mig: True if the board is split.
    """

    device: NvmlDevice
    driver: str
    read_j: Callable[[], float] | None
    read_both: Callable[[], tuple[float, float]] | None
    counter_words: str
    no_counter: str
    power: PowerSource | None
    no_power: tuple[str, ...]
    notes: tuple[str, ...]
    limit_w: float | None
    mig: bool

    @property
    def label(self) -> str:
        """The board's name in records."""
        return self.device.board.label

    @property
    def model(self) -> str:
        """The board's model, or `unknown`."""
        return self.device.board.model or "unknown"

    @property
    def is_module(self) -> bool:
        """True if power is reported for CPU and GPU together (Grace Hopper)."""
        return self.power is not None and self.power.scope == "MODULE"

    def facts(
        self, clock: Clock, period: UpdatePeriod | None, idle: IdlePower | None, reading_s: float | None = None
    ) -> BoardFacts:
        """Return the facts about the board, with its current conditions."""
        recorder = ConditionsRecorder(self.label, self.device, clock)
        recorder.begin()
        recorder.look()
        conditions = recorder.end()[0]
        return BoardFacts(
            digest=self.label,
            model=self.model,
            driver=self.driver,
            counter=self.counter_words if period is not None else None,
            period=period,
            idle=idle,
            reading_s=reading_s,
            limit_w=self.limit_w,
            power=self.power.words if self.power is not None else None,
            mig=self.mig,
            conditions=conditions,
            absent=tuple(self.device.absent.values()),
        )


def probe(device: NvmlDevice) -> ProbedBoard:
    """Query all properties of the board once."""
    label = device.board.label
    read_j, words, no_counter = _energy_counter(device)
    power, no_power = _power_source(device)
    notes, mig = [], device.mig_enabled()
    if mig:
        notes.append(warning("W206", f"{label} is in MIG mode, other slices are counted too"))
    board = ProbedBoard(
        device=device,
        driver=device.driver(),
        read_j=read_j,
        read_both=_both(device, power),
        counter_words=words,
        no_counter=no_counter,
        power=power,
        no_power=tuple(no_power),
        notes=tuple(notes),
        limit_w=device.limit_w(),
        mig=mig,
    )
    if not board.is_module:
        return board
    said = warning("W205", f"the power of {label} is that of the whole module and includes the CPU")
    return replace(board, notes=(*board.notes, said))


def _energy_counter(device: NvmlDevice) -> tuple[Callable[[], float] | None, str, str]:
    """Return the counter (by the plain call or as a field value), its description, and the reason if there is none."""
    problems = []
    for words, read in (
        ("energy counter", device.energy_j),
        (f"energy counter (field {FIELD_TOTAL_ENERGY}, scope GPU)", device.field_energy_j),
    ):
        try:
            read()
            return read, words, ""
        except Fault as fault:
            problems.append(str(fault))
    return None, "", "; ".join(problems)


def _both(device: NvmlDevice, power: PowerSource | None) -> Callable[[], tuple[float, float]] | None:
    """Return a call that reads counter and instant power together, which costs half of two calls; None without it."""
    scope = next((number for number, name in SCOPES.items() if power is not None and name == power.scope), 0)

    def read() -> tuple[float, float]:
        return device.energy_and_power(scope)

    if power is None or power.averaging_s:
        return None
    try:
        read()
    except Fault:
        return None
    return read


def _power_source(device: NvmlDevice) -> tuple[PowerSource | None, list[str]]:
    """Return the best power reading and the reasons against better ones.

    PowerUsage and the entries of the sample buffer are treated as averages. Whether they are depends on board and
    driver; treating an instant reading as an average costs a second of waiting, while the reverse loses up to 30 %
    of a one-second window. The buffer comes last, because the meaning of its entries is not documented.
    """

    def newest_w() -> float:
        entries = device.power_samples(0)
        if not entries:
            raise Fault("W220", f"the power sample buffer of {device.board.label} is empty")
        return entries[-1][1]

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
    candidates.append(
        PowerSource(
            words="power sample buffer",
            read=newest_w,
            averaging_s=AVERAGE_S,
            scope="GPU",
            drain=device.power_samples,
        )
    )
    problems: list[str] = []
    for candidate in candidates:
        try:
            if candidate.read() > 0:
                return candidate, problems
            problems.append(f"{candidate.words} answers 0 W")
        except Fault as fault:
            problems.append(str(fault))
    return None, problems
