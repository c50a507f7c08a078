"""Meter of CPU packages and memory with Linux powercap (RAPL): files that count microjoules and wrap around.

    /sys/class/powercap/intel-rapl:0/     name: package-0   energy_uj   max_energy_range_uj   (AMD too)
    /sys/class/powercap/intel-rapl:0:0/   name: core        inside the package: not counted again
    /sys/class/powercap/intel-rapl:0:1/   name: dram        outside the package: counted
    /sys/class/powercap/intel-rapl:1/     name: psys        contains the package: not counted

The counters refresh about every millisecond, so windows are not aligned to edges: the error of the two ends is at
most one refresh at the window's power, e.g. 0.2 J at 100 W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock, SystemClock
from perjoule.meters.identity import MeteredDevice, cpu_name
from perjoule.meters.pulse import BEAT_S
from perjoule.meters.rest import update_period
from perjoule.meters.watcher import EdgeWatcher
from perjoule.types import EnergyReading

POWERCAP = Path("/sys/class/powercap")
EDGES_LEARNT = 11
STUCK_AFTER_S = 0.2  # 200 refreshes; in virtual machines the files may exist but never change
POLL_S = 0.0002
# Maximum power of a domain that does not report one, above that of any socket. More means that the counter was reset.
MOST_POWER_W = 500.0
LIMIT_HEADROOM = 2.0  # sockets exceed their long-term limit for seconds
LOOK_S = 1.0  # inside a window; a counter of 65 kJ wraps around in two minutes at the earliest
LEAST_REFRESHES = 10.0  # shorter windows can show much less than their share
PEAK_TO_MEAN = 2.0  # power at the ends relative to its mean over the window, for the bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One RAPL counter.

    Attributes:
        name: Name, e.g. `package-0` or `dram`.
        file: Path of `energy_uj`.
        wraps_at_j: Energy at which the counter starts again from 0 (some 65 to 262 kJ).
        most_w: Power that the domain cannot exceed over a window.
    """

    name: str
    file: Path
    wraps_at_j: float
    most_w: float = MOST_POWER_W

    def read_j(self) -> float:
        """Return the counter in J. Raises Fault W220 if it cannot be read."""
        try:
            return int(self.file.read_text(encoding="ascii")) / 1e6
        except (OSError, ValueError) as error:
            raise Fault("W220", f"{self.file}: {error}") from error

    def between_j(self, first_j: float, last_j: float, duration_s: float) -> float:
        """Return the energy between two values `duration_s` apart; the counter may have wrapped around.

        Raises:
            Fault: W210 if it is more than the domain can draw, because a reset looks like a wrap-around; W221 if the
                counter may have wrapped around once more in that time.
        """
        energy_j = last_j - first_j if last_j >= first_j else last_j - first_j + self.wraps_at_j
        most_j = self.most_w * duration_s
        if energy_j > most_j:
            raise Fault("W210", f"{self.file} went from {first_j:.1f} J to {last_j:.1f} J in {duration_s:.3f} s")
        if energy_j + self.wraps_at_j <= most_j:
            raise Fault("W221", f"{self.file} counts to {self.wraps_at_j:.0f} J, the window took {duration_s:.0f} s")
        return energy_j


def find_domains(root: Path = POWERCAP) -> list[Domain]:
    """Return all readable packages and their memory.

    Raises:
        MeterError: There are none, or they cannot be read; the message names the file and the remedy.
    """
    folders = {
        path.name: path for path in sorted([*root.glob("intel-rapl:*"), *root.glob("intel-rapl:*/intel-rapl:*")])
    }
    domains = [domain for folder in folders.values() if (domain := _domain(folder)) is not None]
    if not any(domain.name.startswith("package") for domain in domains):
        raise MeterError(
            f"rapl: no CPU package under {root}; RAPL needs Linux on bare metal and the intel_rapl_msr module "
            "(most virtual machines and containers hide it)"
        )
    return domains


def _domain(folder: Path) -> Domain | None:
    """Return the domain of a powercap folder, or None if it is not part of the sum."""
    try:
        name = (folder / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    if not (name.startswith("package") or name == "dram"):
        return None
    file = folder / "energy_uj"
    try:
        int(file.read_text(encoding="ascii"))
        wraps_at_j = int((folder / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
    except PermissionError as error:
        raise MeterError(
            f"rapl: only root can read {error.filename} (since CVE-2020-8694); allow it with "
            f"`sudo chmod a+r {folder.parent}/intel-rapl:*/energy_uj {folder.parent}/intel-rapl:*:*/energy_uj`, "
            'or permanently with the udev rule `SUBSYSTEM=="powercap", ACTION=="add", '
            'RUN+="/bin/chmod a+r /sys%p/energy_uj"`'
        ) from error
    except (OSError, ValueError) as error:
        raise MeterError(f"rapl: {file} cannot be read: {error}; check the kernel log for the reason") from error
    return Domain(name=name, file=file, wraps_at_j=wraps_at_j, most_w=_most_w(folder))


def _most_w(folder: Path) -> float:
    """Return twice the highest limit that may be set for the domain; MOST_POWER_W if it is unknown."""
    try:
        limit_w = int((folder / "constraint_0_max_power_uw").read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        limit_w = 0.0
    return LIMIT_HEADROOM * limit_w or MOST_POWER_W


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Values of all counters in J at `t_s`."""

    t_s: float
    values_j: tuple[float, ...]


@dataclass(slots=True)
class _Open:
    """An open window: readings so far, time of the last one, and the function that stops them."""

    looks: list[Look]
    looked_s: float = 0.0
    cancel: Callable[[], None] = field(default=lambda: None)


class RaplMeter(BaseMeter[_Open]):
    """Meter of the sum of CPU packages and their memory.

    Inside a window the counters are read once per second, so that no wrap-around is missed, and a counter that fails
    loses at most a second.
    """

    watches = True

    def __init__(self, root: Path = POWERCAP, clock: Clock | None = None) -> None:
        """Find the domains and check that the first package's counter changes.

        Memory with a counter that does not change, as on some machines, is left out.

        Args:
            root: The powercap folder.
            clock: The clock.

        Raises:
            MeterError: There are no domains, permission is denied, or a package's counter does not change.
        """
        clock = clock or SystemClock()
        domains = find_domains(root)
        package = next(domain for domain in domains if domain.name.startswith("package"))
        try:
            before_j = [domain.read_j() for domain in domains]
            watcher = EdgeWatcher(package.read_j, clock, POLL_S, STUCK_AFTER_S)
            self._period_s = update_period(watcher.watch(EDGES_LEARNT)).longest_s
            dead = _standing_still(domains, before_j, clock)
        except Fault as fault:
            raise _dead(package, fault.warning) from fault
        for domain in dead:
            if domain.name.startswith("package"):
                raise _dead(domain, f"it stayed at {domain.read_j():.3f} J")
        self._domains: Sequence[Domain] = [domain for domain in domains if domain not in dead]
        names = sorted({domain.name for domain in self._domains})
        self._cpu = cpu_name()
        why = f"reads the CPU's own energy counters ({', '.join(names)})"
        if dead:
            why += f"; {dead[0].file} does not change, so memory is left out"
        super().__init__(
            name="rapl",
            why=why,
            boundary="cpu-package+dram" if "dram" in names else "cpu-package",
            provenance="measured",
            clock=clock,
        )

    @property
    def device(self) -> MeteredDevice:
        """The CPU."""
        return MeteredDevice(name=self._cpu)

    @property
    def method(self) -> str:
        """Description of the source: domains and refresh period."""
        names = "+".join(domain.name for domain in self._domains)
        return f"rapl {names}, refreshed every {self._period_s * 1000:.1f} ms at most"

    def learn_idle(self, seconds: float) -> float | None:
        """Return mean power in W of all domains over `seconds` (at least 10 ms); None if a counter fails."""
        try:
            first = self._look_at_all()
            self.clock.sleep(max(seconds, 0.01))
            last = self._look_at_all()
            self.idle_power_w = self._between_j(first, last) / (last.t_s - first.t_s)
        except Fault:
            return None
        return self.idle_power_w

    def _look_at_all(self) -> Look:
        """Read all counters. Raises Fault."""
        return Look(t_s=self.clock.now(), values_j=tuple(domain.read_j() for domain in self._domains))

    def _between_j(self, first: Look, last: Look) -> float:
        """Return the energy of all domains between two readings; the values may be one refresh old. Raises Fault."""
        duration_s = last.t_s - first.t_s + self._period_s
        values = zip(self._domains, first.values_j, last.values_j, strict=True)
        return sum(domain.between_j(one, other, duration_s) for domain, one, other in values)

    def _begin(self) -> _Open:
        state = _Open(looks=[])

        def look() -> None:
            self._look()
            if self.clock.now() - state.looked_s < LOOK_S - BEAT_S / 2:
                return
            state.looked_s = self.clock.now()
            try:
                state.looks.append(self._look_at_all())
            except Fault:
                return  # the last reading will report the reason, or the next one will succeed

        state.looks.append(self._look_at_all())
        state.looked_s = self.clock.now()
        state.cancel = self.clock.every(BEAT_S, look)
        return state

    def _end(self, state: _Open, started_s: float, stopped_s: float) -> EnergyReading:
        state.cancel()
        energy_j, counted = 0.0, state.looks[0]
        try:
            for look in state.looks[1:]:
                energy_j, counted = energy_j + self._between_j(counted, look), look
            energy_j += self._between_j(counted, self._look_at_all())
        except Fault as fault:
            reading = self._reading(None, None, started_s, stopped_s, [fault.warning])
            if counted.t_s <= started_s:
                return reading
            return replace(reading, partial_energy_j=energy_j, partial_s=counted.t_s - started_s)
        duration_s = max(stopped_s - started_s, 1e-9)
        idle_w = self.idle_power_w or 0.0
        if energy_j < 0.5 * idle_w * duration_s and duration_s > LEAST_REFRESHES * self._period_s:
            # a reset soon after the counter started from 0 does not look like a wrap-around
            raise Fault("W213", f"{energy_j:.3f} J in {duration_s:.3f} s is less than half of {idle_w:.1f} W at rest")
        peak_w = PEAK_TO_MEAN * max(energy_j / duration_s, idle_w)
        uncertainty_j = peak_w * self._period_s + len(self._domains) * 1e-4  # units are 61 uJ at the coarsest
        return self._reading(energy_j, uncertainty_j, started_s, stopped_s)

    def _abandon(self, state: _Open) -> None:
        state.cancel()


def _standing_still(domains: Sequence[Domain], before_j: Sequence[float], clock: Clock) -> list[Domain]:
    """Return the domains whose counters do not change from `before_j` within `STUCK_AFTER_S`."""
    pairs = [(domain, one_j) for domain, one_j in zip(domains, before_j, strict=True) if domain.read_j() == one_j]
    if not pairs:
        return []
    clock.sleep(STUCK_AFTER_S)
    return [domain for domain, one_j in pairs if domain.read_j() == one_j]


def _dead(domain: Domain, reason: str) -> MeterError:
    return MeterError(
        f"rapl: {domain.file} does not count ({reason}); counters of virtual machines often do not change"
    )
