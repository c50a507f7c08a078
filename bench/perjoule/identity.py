"""What was metered, in words that may be shared: names and digests, never a board's UUID."""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_WHOLE_UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_PART_OF_UUID = re.compile(r"\b(GPU|MIG)-[0-9a-f][0-9a-f-]{3,}", re.IGNORECASE)
_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredDevice:
    """The device that a meter's joules belong to.

    Attributes:
        name: Model of the board or CPU; several boards are joined by ` + `.
        digest: Tells boards of one model apart, see `board_digest`; None where there is nothing to tell apart by.
        power_limit_w: Enforced power limit when the meter was opened, summed over boards; None if it is not known.
    """

    name: str
    digest: str | None = None
    power_limit_w: float | None = None


def board_digest(uuid: str) -> str:
    """`board-` and 12 hex digits of the SHA-256 of a board's UUID: tells boards apart without naming them."""
    return f"board-{hashlib.sha256(uuid.encode()).hexdigest()[:_DIGITS]}"


def without_uuids(text: str) -> str:
    """The text with UUIDs of boards and slices replaced by their digests, and beginnings of UUIDs by `GPU-…`."""
    text = _WHOLE_UUID.sub(lambda found: board_digest(found.group()), text)
    return _PART_OF_UUID.sub(lambda found: f"{found.group(1)}-…", text)


def cpu_name() -> str:
    """Model of the CPU, e.g. `AMD EPYC 7763 64-Core Processor`; the architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
