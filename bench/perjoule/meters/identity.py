"""What was metered, in words that may be shared: names and digests, never a board's UUID."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredDevice:
    """The device that a meter's joules belong to.

    Attributes:
        name: Model of the board or CPU; several boards are joined by ` + `.
        digest: Tells boards of one model apart, see `perjoule.text.board_digest`; None where there is nothing to
            tell apart by.
        power_limit_w: Enforced power limit when the meter was opened, summed over boards; None if it is not known.
    """

    name: str
    digest: str | None = None
    power_limit_w: float | None = None


def cpu_name() -> str:
    """Model of the CPU, e.g. `AMD EPYC 7763 64-Core Processor`; the architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
