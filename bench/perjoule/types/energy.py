"""Joules: readings of a meter, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

# weakest first. Joules whose provenance is not stated rank below an estimate, because they may be anything, and above
# simulated ones, of which it is certain that they are not energy
Provenance = Literal["simulated", "not stated", "estimated", "measured"]
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
Boundary = Literal["gpu-board", "gpu-module", "cpu-package+dram", "cpu-package", "estimate", "system"]


def weakest(provenances: Iterable[str | None]) -> Provenance | None:
    """The weakest of several provenances: a number is only as good as the worst that it rests on. None without any."""
    seen = set(provenances)
    return next((provenance for provenance in PROVENANCES if provenance in seen), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTrace:
    """Power over time. t_s: seconds on the monotonic clock from the start of the window; power_w: watts."""

    t_s: tuple[float, ...]
    power_w: tuple[float, ...]
    source: str
    poll_interval_s: float | None = None
    update_period_s: float | None = None
    averaging_window_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A refresh of an energy counter, seen between two polls.

    Attributes:
        early_s: When the last poll that still saw the old value was sent.
        late_s: When the first poll that saw the new value came back.
        energy_j: The new value; whole mJ.
    """

    early_s: float
    late_s: float
    energy_j: float

    @property
    def at_s(self) -> float:
        """The best guess of the moment."""
        return (self.early_s + self.late_s) / 2

    @property
    def width_s(self) -> float:
        """How well the moment is known."""
        return self.late_s - self.early_s


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePeriod:
    """How often a counter is refreshed: median, shortest and longest gap in s, and how many were seen."""

    median_s: float
    shortest_s: float
    longest_s: float
    gap_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePower:
    """Power before the work: mean, standard deviation between refreshes, and the range that anything showed, in W.

    On a resting device the range is narrow; on one that works all the time it says how far power may swing.
    `gap_count`: refreshes that the mean rests on.
    """

    power_w: float
    spread_w: float
    lowest_w: float
    highest_w: float
    gap_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterPoll:
    """One look at counter and power inside a window; None where the source gave no answer."""

    t_s: float
    energy_j: float | None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterLog:
    """All that the energy of a counter's window is computed from; `perjoule.meters.edges.bracket` does it again.

    Attributes:
        before: The refresh before the start.
        started_s: Start of the window. All times are seconds on the monotonic clock, here 0.
        stopped_s: End of the window.
        stop_j: The counter as it stood at `stopped_s`: the energy up to the last refresh before.
        after: The refresh that closes the window, None if there was none.
        rest: The refresh after that one, which shows the power right after the window.
        polls: Looks in between, a few per second.
        period: As learnt.
        idle: As learnt before the window.
        limit_w: The device's power limit.
        seen_share: Share of time that a part-time counter sees; 1 for one that misses nothing.
        lost: The coded reason why the source failed on the way, or why the window is worthless; None if it is not.
    """

    before: Edge
    started_s: float
    stopped_s: float
    stop_j: float | None
    after: Edge | None
    rest: Edge | None
    polls: tuple[CounterPoll, ...]
    period: UpdatePeriod
    idle: IdlePower
    limit_w: float | None
    seen_share: float = 1.0
    lost: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a board was in the middle of; fields are None where it does not tell. Tuples hold begin and end.

    Attributes:
        temperature_c: GPU temperature.
        power_limit_w: Enforced limit.
        sm_clock_mhz: Lowest and highest SM clock seen inside the window.
        throttle_reasons: All bits of `nvmlClocksEventReason` seen inside the window, idle and user settings left out.
        foreign_processes: Most compute processes of others that were on the board at either end.
        peak_memory_bytes: Most memory in use on the board, by anyone, among a look per second.
        utilisation: Mean share of time with a kernel running, 0 to 1, among a look per second.
    """

    temperature_c: tuple[int | None, int | None] = (None, None)
    power_limit_w: tuple[float | None, float | None] = (None, None)
    sm_clock_mhz: tuple[int, int] | None = None
    throttle_reasons: int | None = None
    foreign_processes: int | None = None
    peak_memory_bytes: int | None = None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """How busy the machine was around a window; None where the system does not tell. Tuples hold before and after.

    Attributes:
        load: Load average of the last minute: tasks that run or wait, our own included.
        cores: Logical CPUs.
        others_cores: Mean number of CPUs that other processes used between the two looks.
        steal_share: Share of all CPU time that a hypervisor gave to others.
        cpu_mhz: Mean CPU frequency.
    """

    load: tuple[float | None, float | None]
    cores: int
    others_cores: float | None = None
    steal_share: float | None = None
    cpu_mhz: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEnergy:
    """One board's part of a reading.

    Attributes:
        device: Digest of its UUID (runs of earlier versions hold the UUID itself).
        energy_j: Gross energy of the window, or None.
        uncertainty_j: Its bound, or None.
        idle_power_w: Learnt before the window.
        counter: What it was computed from, for boards with an energy counter.
        power_ratio: Energy by the counter over energy by the power reading, inside the window; a cross-check.
        conditions: What else went on on the board.
    """

    device: str
    energy_j: float | None
    uncertainty_j: float | None
    idle_power_w: float | None = None
    counter: CounterLog | None = None
    power_ratio: float | None = None
    conditions: Conditions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """The joules of one window, with all that is needed to believe them.

    Attributes:
        energy_j: Gross energy; None when it could not be had (`warnings` then says why).
        uncertainty_j: Bound on the error, meant to hold for at least 99.5 % of windows; None if it is not known.
        duration_s: Length of the window.
        boundary: What the number covers.
        provenance: How it came about.
        method: The source in words, e.g. `nvml energy counter, GPU-1234, period 0.100 s`.
        idle_power_w: Idle power learnt before the window, or None.
        net_energy_j: `energy_j - idle_power_w * duration_s`, or None.
        partial_energy_j: Where `energy_j` is None since the source failed on the way: what was counted until then.
        partial_s: How far into the window `partial_energy_j` reaches.
        iterations: How often the work ran, where `Window.repeat` drove it.
        warnings: Codes with a sentence each: `W203: no driver counter, power integrated instead`.
        trace: Power samples inside the window, if the source has any.
        devices: The boards' parts, in the order in which they were asked for; empty for sources without boards.
        device: Model of what was metered, several boards joined by ` + `; None for sources that do not know.
        device_digest: Tells boards of one model apart.
        power_limit_w: Enforced power limit of the device when the meter was opened.
        machine: How busy the machine was; None on virtual time.
    """

    energy_j: float | None
    uncertainty_j: float | None
    duration_s: float
    boundary: Boundary
    provenance: Provenance
    method: str
    idle_power_w: float | None = None
    net_energy_j: float | None = None
    partial_energy_j: float | None = None
    partial_s: float | None = None
    iterations: int | None = None
    warnings: tuple[str, ...] = ()
    trace: PowerTrace | None = None
    devices: tuple[DeviceEnergy, ...] = ()
    device: str | None = None
    device_digest: str | None = None
    power_limit_w: float | None = None
    machine: MachineLoad | None = None
