"""Identity of the metered device by name and digest, which can be shared, unlike a board's UUID."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredDevice:
    """The device that a meter's joules belong to.

    Attributes:
        name: Model of the board or CPU; several boards are joined by ` + `.
        digest: Distinguishes boards of one model, see `perjoule.text.board_digest`; None if the device has no
            identifier.
        power_limit_w: Enforced power limit when the meter was opened, summed over boards; None if it is unknown.
    """

    name: str
    digest: str | None = None
    power_limit_w: float | None = None


def cpu_name() -> str:
    """Return the model of the CPU, e.g. `AMD EPYC 7763 64-Core Processor`, or its architecture if unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
