"""Load of the machine around a window: load average, CPU time of other processes, steal, CPU frequency.

    begin()  ── window ──  end()        a few small files each, read outside of the metered interval

The load average counts running and waiting tasks, including our own threads, so a run that uses all cores has a load
equal to the core count, and one with more threads than cores a higher load. This is intended and the same in every
window. Only work of *others* disturbs: W264 needs a load above the core count and, in the window itself, CPU time used
by others, e.g. by a hypervisor that takes CPU time away (steal).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perjoule.meters.processes import running_cpu_s
from perjoule.types import MachineLoad
from perjoule.warnings import warning

OTHERS_CORES = 0.25  # cores used by others, on average, above which they count; daemons use less
STEAL_SHARE = 0.05  # of all CPU time
LEAST_S = 0.1  # shorter windows have too few ticks of 10 ms to attribute CPU time
MOST_FREQUENCIES = 8  # each is a file, and there may be hundreds


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Reading of the machine; fields are None if the system does not report them.

    Attributes:
        t_s: Time on a monotonic clock.
        load: Mean number of tasks that ran or waited over the last minute.
        busy_s: CPU seconds used by all processes since boot, over all CPUs.
        steal_s: CPU seconds that a hypervisor gave to others since boot.
        own_s: CPU seconds of this process and its descendants.
        mhz: Mean frequency of the CPUs.
    """

    t_s: float
    load: float | None
    busy_s: float | None
    steal_s: float | None
    own_s: float
    mhz: float | None


class Machine:
    """Reads the machine from Linux's files under /proc and /sys; on other systems nothing is reported.

    Args:
        root: Where `proc` and `sys` are.
        now: Seconds on a monotonic clock.
        own_s: CPU seconds of this process and its descendants.
        cores: Logical CPUs.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        now: Callable[[], float] = time.perf_counter,
        own_s: Callable[[], float] | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores = cores or os.cpu_count() or 1
        self._proc, self._now, self._own_s = root / "proc", now, own_s or _own_cpu_s
        frequencies = (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")
        self._frequencies = sorted(frequencies)[:MOST_FREQUENCIES]

    def look(self) -> Look:
        """Read the files, which takes about 0.1 ms."""
        busy_s, steal_s = self._cpu_s()
        return Look(
            t_s=self._now(), load=self._load(), busy_s=busy_s, steal_s=steal_s, own_s=self._own_s(), mhz=self._mhz()
        )

    def _load(self) -> float | None:
        try:
            return float((self._proc / "loadavg").read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _cpu_s(self) -> tuple[float | None, float | None]:
        """Return (busy, steal) from the first line of /proc/stat, whose guest times are part of user times."""
        try:
            with (self._proc / "stat").open("rb") as file:
                words = file.readline().split()
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
        except (OSError, ValueError):
            return None, None
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        return (user + nice + system + irq + softirq) / ticks_per_s, steal / ticks_per_s

    def _mhz(self) -> float | None:
        found = []
        for file in self._frequencies:
            try:
                found.append(int(file.read_text(encoding="ascii")) / 1000)
            except (OSError, ValueError):
                continue
        return sum(found) / len(found) if found else None


def between(before: Look, after: Look, cores: int) -> tuple[MachineLoad, tuple[str, ...]]:
    """Return the load between two readings, and coded warnings."""
    duration_s = after.t_s - before.t_s
    others = steal = None
    if duration_s >= LEAST_S and None not in (before.busy_s, after.busy_s):
        busy_s = (after.busy_s or 0.0) - (before.busy_s or 0.0)
        others = max(busy_s - (after.own_s - before.own_s), 0.0) / duration_s
    if duration_s >= LEAST_S and None not in (before.steal_s, after.steal_s):
        steal = max((after.steal_s or 0.0) - (before.steal_s or 0.0), 0.0) / (duration_s * cores)
    load = MachineLoad(
        load=(before.load, after.load),
        cores=cores,
        others_cores=others,
        steal_share=steal,
        cpu_mhz=(before.mhz, after.mhz),
    )
    return load, tuple(_said(load))


def _said(load: MachineLoad) -> list[str]:
    said = []
    highest = max((one for one in load.load if one is not None), default=0.0)
    if highest > load.cores and load.others_cores is not None and load.others_cores >= OTHERS_CORES:
        said.append(
            f"the load average was {highest:.1f} on {load.cores} CPUs, and other processes used "
            f"{load.others_cores:.1f} of them"
        )
    if load.steal_share is not None and load.steal_share > STEAL_SHARE:
        said.append(f"the hypervisor took {load.steal_share:.0%} of the CPU time away")
    return [warning("W264", "; ".join(said))] if said else []


def _own_cpu_s() -> float:
    """Return CPU seconds of this process and its descendants so far."""
    times = os.times()
    mine = times.user + times.system + times.children_user + times.children_system
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return mine
    return mine + running_cpu_s()
