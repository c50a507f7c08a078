"""CPU packages and memory through Linux powercap (RAPL): files that count microjoules and wrap around.

    /sys/class/powercap/intel-rapl:0/     name: package-0   energy_uj   max_energy_range_uj   (AMD too)
    /sys/class/powercap/intel-rapl:0:0/   name: core        inside the package: not counted again
    /sys/class/powercap/intel-rapl:0:1/   name: dram        beside the package: counted
    /sys/class/powercap/intel-rapl:1/     name: psys        contains the package: not counted

The counters refresh about every millisecond, so windows are not aligned to edges: one refresh at the window's
own power bounds what the two ends can be off by, 0.2 J at 100 W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock, SystemClock
from perjoule.meters.counter import EdgeWatcher
from perjoule.meters.edges import update_period
from perjoule.types import EnergyReading

POWERCAP = Path("/sys/class/powercap")
EDGES_LEARNT = 11
STUCK_AFTER_S = 0.2  # 200 refreshes; in virtual machines the files may exist and never move
POLL_S = 0.0002
# Above any socket with its memory. A larger reading is a counter that was reset, and a window longer than it
# takes this power to go once round a counter might have gone round twice.
MOST_POWER_W = 1000.0
PEAK_TO_MEAN = 2.0  # power at the ends against its mean over the window, for the bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One counter: its powercap name, its file, and the energy in J at which it starts again from 0."""

    name: str
    file: Path
    wraps_at_j: float

    def read_j(self) -> float:
        """The counter in J. Raises Fault W220 if it cannot be read."""
        try:
            return int(self.file.read_text()) / 1e6
        except (OSError, ValueError) as error:
            raise Fault("W220", f"{self.file}: {error}") from error

    def between_j(self, first_j: float, last_j: float) -> float:
        """Energy from one value to a later one, round the end of the counter if need be."""
        return last_j - first_j if last_j >= first_j else last_j - first_j + self.wraps_at_j


def find_domains(root: Path = POWERCAP) -> list[Domain]:
    """Packages and their memory, readable.

    Raises:
        MeterError: There are none, or they may not be read: names the file and the remedy.
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
    """The domain of a powercap folder, or None if it is not one of those that are summed."""
    try:
        name = (folder / "name").read_text().strip()
    except OSError:
        return None
    if not (name.startswith("package") or name == "dram"):
        return None
    file = folder / "energy_uj"
    try:
        int(file.read_text())
        wraps_at_j = int((folder / "max_energy_range_uj").read_text()) / 1e6
    except PermissionError as error:
        raise MeterError(
            f"rapl: {error.filename} is readable by root only (since CVE-2020-8694); allow it with "
            f"`sudo chmod a+r {folder.parent}/intel-rapl:*/energy_uj {folder.parent}/intel-rapl:*:*/energy_uj`, "
            'or for good with the udev rule `SUBSYSTEM=="powercap", ACTION=="add", '
            'RUN+="/bin/chmod a+r /sys%p/energy_uj"`'
        ) from error
    except (OSError, ValueError) as error:
        raise MeterError(f"rapl: {file} cannot be read: {error}; see whether the kernel log says why") from error
    return Domain(name=name, file=file, wraps_at_j=wraps_at_j)


class RaplMeter(BaseMeter[list[float]]):
    """The sum over CPU packages and their memory."""

    def __init__(self, root: Path = POWERCAP, clock: Clock | None = None) -> None:
        """Find the domains and watch the first package's counter move.

        Args:
            root: The powercap folder.
            clock: Time.

        Raises:
            MeterError: No domains, no permission, or a counter that stands still.
        """
        clock = clock or SystemClock()
        self._domains: Sequence[Domain] = find_domains(root)
        package = next(domain for domain in self._domains if domain.name.startswith("package"))
        try:
            watcher = EdgeWatcher(package.read_j, clock, POLL_S, STUCK_AFTER_S)
            self._period_s = update_period(watcher.watch(EDGES_LEARNT)).longest_s
        except Fault as fault:
            raise MeterError(
                f"rapl: {package.file} does not count ({fault.warning}); virtual machines often show dead counters"
            ) from fault
        names = sorted({domain.name for domain in self._domains})
        super().__init__(
            name="rapl",
            why=f"reads the CPU's own energy counters ({', '.join(names)})",
            boundary="cpu-package+dram" if "dram" in names else "cpu-package",
            provenance="measured",
            clock=clock,
        )

    @property
    def method(self) -> str:
        """Domains and refresh period."""
        names = "+".join(domain.name for domain in self._domains)
        return f"rapl {names}, refreshed every {self._period_s * 1000:.1f} ms at most"

    def learn_idle(self, seconds: float) -> float | None:
        """Mean power in W of all domains over `seconds` (at least 10 ms); None if a counter fails."""
        try:
            begun_s, first = self.clock.now(), self._begin()
            self.clock.sleep(max(seconds, 0.01))
            total_j = self._total_j(first, self._begin())
        except Fault:
            return None
        self.idle_power_w = total_j / (self.clock.now() - begun_s)
        return self.idle_power_w

    def _begin(self) -> list[float]:
        return [domain.read_j() for domain in self._domains]

    def _end(self, state: list[float], started_s: float, stopped_s: float) -> EnergyReading:
        last = self._begin()
        duration_s = max(stopped_s - started_s, 1e-9)
        shortest_wrap_s = min(domain.wraps_at_j for domain in self._domains) / MOST_POWER_W
        if duration_s > shortest_wrap_s:
            raise Fault(
                "W221",
                f"{duration_s:.0f} s is longer than the {shortest_wrap_s:.0f} s it may take to go round",
            )
        energy_j = self._total_j(state, last)
        most_j = MOST_POWER_W * len(self._domains) * (duration_s + self._period_s)
        if energy_j > most_j:
            # A counter that fell without having been near its end was reset, and looks like a huge wrap.
            raise Fault("W210", f"{energy_j:.0f} J in {duration_s:.3f} s: a counter was reset")
        peak_w = PEAK_TO_MEAN * max(energy_j / duration_s, self.idle_power_w or 0.0)
        uncertainty_j = peak_w * self._period_s + len(self._domains) * 1e-4  # units are 61 uJ at the coarsest
        return self._reading(energy_j, uncertainty_j, started_s, stopped_s)

    def _total_j(self, first: Sequence[float], last: Sequence[float]) -> float:
        return sum(domain.between_j(one, other) for domain, one, other in zip(self._domains, first, last, strict=True))
