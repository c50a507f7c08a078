"""The system under test, and the part of it that must agree before two runs may be compared."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from perjoule import __version__
from perjoule.commit import checked_out_commit
from perjoule.protocols import EnergyMeter
from perjoule.types import Suite

_PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "numpy",
    "cvvdp",
    "pyiqa",
    "nvidia-ml-py",
    "codecarbon",
)


def describe(suite: Suite, meter: EnergyMeter, model_digests: dict[str, str], command: list[str]) -> dict[str, Any]:
    """Everything that can change an energy or an image, for `environment.json`.

    `comparability` holds the keys whose difference makes joules incomparable; `comparability_key` is its digest.
    """
    gpus = nvidia_gpus()
    packages = {name: found for name in _PACKAGES if (found := _version(name))}
    comparability = {
        "device": [gpu["name"] for gpu in gpus] or _cpu_name(),
        "meter": meter.name.split(":")[0],
        "driver": gpus[0].get("driver", "").split(".")[0] if gpus else "",
        "power_limit_w": [gpu.get("power_limit_w") for gpu in gpus],
        "models": model_digests,
        "torch": packages.get("torch", ""),
        "diffusers": packages.get("diffusers", ""),
        "threads": suite.protocol.threads or os.cpu_count(),
    }
    key = hashlib.sha256(json.dumps(comparability, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "perjoule": __version__,
        "command": command,
        "suite": suite.name,
        "meter": {"name": meter.name, "why": meter.why},
        "models": model_digests,
        "gpu": gpus,
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "packages": packages,
        # whether files differ from it is not recorded: to find out, git may run programs that the folder configures
        "commit": checked_out_commit(Path()),
        "comparability": comparability,
        "comparability_key": key,
        "fingerprint": key,
    }


def gpu_name() -> str | None:
    """Of the first NVIDIA GPU; None without one."""
    gpus = nvidia_gpus()
    return str(gpus[0]["name"]) if gpus else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def nvidia_gpus() -> list[dict[str, Any]]:
    """Name, UUID digest, driver, memory and power limit of each NVIDIA GPU; empty without a driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found: list[dict[str, Any]] = []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            found.append(
                {
                    "name": _text(pynvml.nvmlDeviceGetName(handle)),
                    # a board's serial identity is nobody's business; its digest tells boards apart
                    "uuid_sha256": hashlib.sha256(_text(pynvml.nvmlDeviceGetUUID(handle)).encode()).hexdigest()[:12],
                    "driver": driver,
                    "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                    "power_limit_w": _power_limit_w(pynvml, handle),
                }
            )
    finally:
        pynvml.nvmlShutdown()
    return found


def _power_limit_w(pynvml: Any, handle: Any) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1e3  # NVML gives mW
    except pynvml.NVMLError:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
