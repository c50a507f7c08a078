"""Energy: readings of a meter and the data that they are computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from perjoule.types.work import Work

# weakest first. Joules without a stated provenance rank below an estimate, because their origin is unknown, and above
# simulated joules, which are certainly not energy
Provenance = Literal["simulated", "not stated", "estimated", "measured"]
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
Boundary = Literal["gpu-board", "gpu-module", "cpu-package+dram", "cpu-package", "estimate", "system"]


def weakest(provenances: Iterable[str | None]) -> Provenance | None:
    """Return the weakest of several provenances, that of a number computed from all of them; None if there are none."""
    kinds = set(provenances)
    return next((provenance for provenance in PROVENANCES if provenance in kinds), None)


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
        """Best estimate of the time of the edge."""
        return (self.early_s + self.late_s) / 2

    @property
    def width_s(self) -> float:
        """Uncertainty of that time."""
        return self.late_s - self.early_s


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePeriod:
    """Update period of a counter: median, shortest and longest gap in s, and the number of gaps."""

    median_s: float
    shortest_s: float
    longest_s: float
    gap_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePower:
    """Power before the work: mean, standard deviation between refreshes, and the range of all readings, in W.

    On a device at rest the range is narrow; on one that is always busy it shows how much power may vary.
    `gap_count`: number of refreshes in the mean.
    """

    power_w: float
    spread_w: float
    lowest_w: float
    highest_w: float
    gap_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterPoll:
    """One reading of counter and power inside a window; None if the source gave no answer."""

    t_s: float
    energy_j: float | None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterResponse:
    """How long counter and board take to follow a change of work. The defaults are those of an ideal counter.

    Attributes:
        lag_s: Measured age of the energy that the counter shows at a refresh; None if it was not measured.
        box_s: Measured time over which the counter averages power; None if it was not measured.
        reach_s: After the end of work, the counter adds energy of the work for at most this long.
        averages: True if the counter may average over up to a second, because nothing has excluded it yet.
        least_fall_s: Lower and
        most_fall_s: upper limit of what a board draws above its rest after the end of work, in seconds of its power
            at work above rest.
    """

    lag_s: float | None = 0.0
    box_s: float | None = 0.0
    reach_s: float = 0.0
    averages: bool = False
    least_fall_s: float = 0.0
    most_fall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterLog:
    """Input of `perjoule.meters.edges.bracket`, which computes the energy of a counter's window from it.

    Attributes:
        before: The refresh before the start.
        started_s: Start of the window. All times are seconds on the monotonic clock since then, so it is 0.
        stopped_s: End of the window.
        stop_j: Value of the counter at `stopped_s`: the energy up to the last refresh before.
        after: The refresh that closes the window, None if there was none.
        rest: The refresh after that one, which shows the power right after the window.
        later: Further refreshes, if the counter may lag or the board was still falling at `after`.
        polls: Readings in between, a few per second.
        period: Measured update period.
        idle: Power at rest, measured before the window.
        rest_before_w: Mean power right before the window, None if it was not measured.
        rest_after: Power at rest right after the last few windows, None before the first one.
        response: How fast counter and board follow a change of work.
        limit_w: The device's power limit.
        seen_share: Share of time that a part-time counter sees; 1 for a counter that sees everything.
        lost: Coded reason if the source failed inside the window or the window is invalid; else None.
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
    later: tuple[Edge, ...] = ()
    rest_before_w: float | None = None
    rest_after: IdlePower | None = None
    response: CounterResponse = CounterResponse()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Conditions on a board during a window; fields are None if the board does not report them. Tuples: begin and end.

    Attributes:
        temperature_c: GPU temperature.
        power_limit_w: Enforced limit.
        sm_clock_mhz: Lowest and highest SM clock seen inside the window.
        throttle_reasons: All bits of `nvmlClocksEventReason` seen inside the window, idle and user settings left out.
        foreign_processes: Largest number of other compute processes on the board at either end.
        peak_memory_bytes: Most memory in use on the board by all processes, read once per second.
        utilisation: Mean share of time with a kernel running, 0 to 1, read once per second.
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
    """Load of the machine around a window; None if the system does not report it. Tuples: before and after.

    Attributes:
        load: Load average of the last minute: tasks that run or wait, including our own.
        cores: Logical CPUs.
        others_cores: Mean number of CPUs that other processes used between the two readings.
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
        device: Digest of its UUID (runs of earlier versions contain the UUID itself).
        energy_j: Gross energy of the window, or None.
        uncertainty_j: Its bound, or None.
        idle_power_w: Power at rest, measured before the window.
        counter: Input of the computation, for boards with an energy counter.
        power_ratio: Energy by the counter over energy by the power reading, inside the window; a cross-check.
        conditions: Temperature, clocks, other processes.
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
    """The energy of one window, with its uncertainty, conditions and warnings.

    Attributes:
        energy_j: Gross energy; None if it is unknown (`warnings` then contains the reason).
        uncertainty_j: Bound on the error, designed to hold for at least 99.5 % of windows; None if it is unknown.
        duration_s: Length of the window.
        boundary: The part of the system that the energy covers.
        provenance: How the energy was obtained.
        method: Description of the source, e.g. `nvml energy counter, GPU-1234, period 0.100 s`.
        idle_power_w: Idle power measured before the window, or None.
        net_energy_j: `energy_j - idle_power_w * duration_s`, or None.
        partial_energy_j: Energy counted until the source failed inside the window (`energy_j` is then None).
        partial_s: Seconds of the window that `partial_energy_j` covers.
        iterations: Number of repetitions of the work, if `Window.repeat` was used.
        warnings: Codes with a sentence each, e.g. `W203: no driver counter, power integrated instead`.
        trace: Power samples inside the window, if the source has any.
        devices: The parts of the boards, in the requested order; empty without boards.
        device: Model of the measured device, several boards joined by ` + `; None if the source does not know it.
        device_digest: Distinguishes boards of one model.
        power_limit_w: Enforced power limit of the device when the meter was opened.
        machine: Load of the machine; None on virtual time.
        work: Counted work of the networks that torch ran in this process; None if there were none or not all could be
            counted.
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
    work: Work | None = None
